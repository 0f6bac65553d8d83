"""Kafka's own command line tools, for comparisons: fetched from Maven Central once, each jar pinned by its hash.

`org.apache.kafka:kafka-tools` was not published with Kafka 4.4.0; its newest release is 4.3.1. That is the version of
these tools, with Kafka's clients of the same release, so that no class meets another than the one it was built with
(with the broker's own clients of 4.4.0 most run, but `Exit` has left its place). What is not Kafka's (JSON, options,
compression, logging) is shared with the broker. They speak to a 4.4 broker as any client does: both sides agree on
the version of each request.
"""

import hashlib
import os
import subprocess
from itertools import dropwhile
from pathlib import Path
from typing import Final

from streams.broker.jars import classpath
from streams.broker.process import JVM_OPTIONS, java_program
from streams.errors import MillraceError

TOOLS_VERSION: Final = "4.3.1"
PINNED: Final = {
    "kafka-tools": "62f3c5dd7aa3442d4c5bc6a95f86e2502178ea09de8e27f74d9563bf955e253c",
    "kafka-clients": "52501b7b47510c66f898871adaf6d2968ab7246561d44ced43643a8a587f0b36",
    "kafka-server-common": "d7c719f749579a399011f0df7414de8a78f10f074a6122caa550fdb141351575",
    "kafka-storage": "97e3facddd2914a58f28ec91ef35f8da69963eab3651196e97f487924f6dac98",
    "kafka-tools-api": "dcf6785742e0c8ab11a0fc09c62f1192e11e997dc629669a8db82aa40d933c31",
}
KAFKAS: Final = "org.apache.kafka"


def tool_command(tool: str, *arguments: str, quick: bool = True) -> list[str]:
    """The command that runs `org.apache.kafka.tools.<tool>`. Raises MillraceError when its jars cannot be had.

    `quick` spares the optimising compiler, which a call of a second does not pay for; what is measured must have it.
    """
    jars = os.pathsep.join(map(str, tools_classpath()))
    java = [str(java_program()), *(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"] if quick else []), *JVM_OPTIONS]
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
    return [*java, quiet, "-cp", jars, f"{KAFKAS}.tools.{tool}", *arguments]


def run_tool(tool: str, *arguments: str, typed: str = "", limit_s: float = 120.0, quick: bool = True) -> str:
    """Run a tool to its end and return what it printed. Raises MillraceError with what it complained of."""
    command = tool_command(tool, *arguments, quick=quick)
    done = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[:300]
        raise MillraceError(f"{tool} ended with {done.returncode}: {said}")
    return done.stdout


def tools_classpath() -> list[Path]:
    """The tools' jars, downloading Kafka's five (12 MB) if this machine does not have them."""
    others = [jar for jar in classpath() if not _is_kafkas(jar)]
    return [*(_pinned(name, digest) for name, digest in PINNED.items()), *others]


def _is_kafkas(jar: Path) -> bool:
    return KAFKAS.split(".") == list(jar.parts[-5:-2])


def _pinned(name: str, digest: str) -> Path:
    try:
        jar = _fetched(name)
    except (OSError, RuntimeError) as error:  # requests raises OSErrors, jgo RuntimeErrors
        raise MillraceError(
            f"{KAFKAS}:{name}:{TOOLS_VERSION} is not on this machine and Maven Central could not be reached"
        ) from error
    if hashlib.sha256(jar.read_bytes()).hexdigest() != digest:
        jar.unlink()
        raise MillraceError(f"{jar.name} is not the file that it should be, and was deleted: try again")
    return jar


def _fetched(name: str) -> Path:
    from jgo.maven import MavenContext

    jar: Path = MavenContext().project(KAFKAS, name).at_version(TOOLS_VERSION).artifact().resolve()
    return jar


def listed(output: str) -> list[list[str]]:
    r"""The rows of a table on groups, without its heading and without what is said before it.

    >>> listed("\nWarn: Partition 2 from topic t is empty. Falling back to latest known offset.\nGROUP TOPIC\ng t\n")
    [['g', 't']]
    """
    rows = [row.split() for row in output.splitlines() if row.strip()]
    _, *listed = dropwhile(lambda row: row[0] != "GROUP", rows)
    return listed
