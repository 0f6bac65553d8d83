"""The consumers of a scenario, from outside: started, heard, killed, ended."""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from streams.cluster import Cluster
from streams.errors import MillraceError
from topologies.scenarios.wire import Joining, Read, decode_reads, encode

END_S: Final = 15.0
PROGRAM: Final = (sys.executable, "-m", "topologies.scenarios.consumer")
ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Heard:
    """A record, and who read it."""

    consumer: str
    read: Read


@dataclass
class Consumers:
    """Processes, by name; leaving the context ends them all. `heard` is in the order in which it was heard."""

    cluster: Cluster
    topic: str
    group: str
    session_s: float
    running: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)
    _heard: list[Heard] = field(default_factory=list)
    _listening: dict[str, threading.Thread] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start one more, out of reach of the terminal's Ctrl-C, which is ours to pass on."""
        process = subprocess.Popen(
            PROGRAM,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))},
            start_new_session=True,
        )
        self.running[name] = process
        assert process.stdin is not None
        process.stdin.write(encode(Joining(self._config(name), self.topic)) + b"\n")
        process.stdin.flush()
        listening = threading.Thread(target=self._listen, args=(name, process), daemon=True)
        listening.start()
        self._listening[name] = listening

    def _config(self, name: str) -> dict[str, Any]:
        return self.cluster.librdkafka(
            **{
                "group.id": self.group,
                "client.id": name,
                "session.timeout.ms": round(self.session_s * 1000),
                # a member hears of a new share with its next heartbeat
                "heartbeat.interval.ms": max(100, round(self.session_s * 50)),
                "partition.assignment.strategy": "range",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
                "log_level": 0,
            }
        )

    def _listen(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with process.stdout as told:
            for line in told:
                if line.endswith(b"\n"):  # the last line of one that was killed may be half a line
                    self._heard.extend(Heard(name, read) for read in decode_reads(line))

    def heard(self, act: str) -> list[Heard]:
        """What was read so far of what was sent in an act."""
        return [one for one in tuple(self._heard) if one.read.payload.act == act]

    def check(self) -> None:
        """Raise MillraceError for a consumer that has ended by itself."""
        for name, process in self.running.items():
            if process.poll() is not None:
                assert process.stderr is not None
                lines = process.stderr.read().decode(errors="replace").strip().splitlines() or ["without a word"]
                raise MillraceError(f"{name} ended by itself: {lines[-1]}; see `millrace doctor`")

    def kill(self, name: str) -> int:
        """End one as a power cut would; returns its process id."""
        process = self.running.pop(name)
        process.kill()
        process.wait()
        self._close(name, process)
        return process.pid

    def stop(self) -> None:
        """End all of them: each leaves the group, and one that takes longer than 15 s is killed."""
        ending, self.running = self.running, {}
        for process in ending.values():
            assert process.stdin is not None
            process.stdin.close()
        for name, process in ending.items():
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._close(name, process)

    def _close(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        """Hear the last of one that has ended."""
        self._listening.pop(name).join(END_S)
        for pipe in (process.stdin, process.stderr):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """End them all."""
        self.stop()
