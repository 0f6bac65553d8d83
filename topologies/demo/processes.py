"""Child processes of the demo: started with a log file each, ended in reverse order, none left behind."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from streams.errors import MillraceError

END_S = 15.0
MILLRACE = (sys.executable, "-c", "from topologies.cli import main; main()")


@dataclass
class Child:
    """One running child and where it logs."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path


@dataclass
class Children:
    """The demo's processes; leaving the context ends them all, last started first."""

    directory: Path
    environment: Mapping[str, str]
    running: list[Child] = field(default_factory=list)

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        file_limit: int | None = None,
        program: Sequence[str] = MILLRACE,
    ) -> Child:
        """Run `millrace`, or another program, out of reach of the terminal's Ctrl-C, which is ours to pass on.

        `environment` adds to that of all children; no file of the child may grow beyond `file_limit` bytes.
        """

        def limit_files() -> None:
            if file_limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.directory / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment, **(environment or {})},
                start_new_session=True,
                preexec_fn=limit_files if file_limit is not None else None,
            )
        child = Child(name, process, log)
        self.running.append(child)
        return child

    def check(self) -> None:
        """Raise MillraceError when a child has ended by itself."""
        for child in self.running:
            if child.process.poll() is not None:
                lines = child.log.read_text(errors="replace").strip().splitlines() or ["(its log is empty)"]
                raise MillraceError(f"{child.name} ended by itself: {lines[-1]}; its log is {child.log}")

    def end(self, child: Child) -> None:
        """End one child and wait; one that does not end by itself in 15 s is killed."""
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(signal.SIGTERM)
        self._await(child)
        self.running.remove(child)

    def stop(self) -> None:
        """End all children at once, and wait for each as `end` does."""
        for child in reversed(self.running):
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM)
        for child in reversed(self.running):
            self._await(child)
        self.running.clear()

    def _await(self, child: Child) -> None:
        try:
            child.process.wait(END_S)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()

    def __enter__(self) -> "Children":
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """End them all."""
        self.stop()
