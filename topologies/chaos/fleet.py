"""The processes of one run: workers that are killed, paused and started again, a view server, the broker's nodes."""

import os
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from streams.broker import Broker
from streams.errors import MillraceError
from topologies.chaos.points import VARIABLE
from topologies.demo.processes import MILLRACE, Child, Children
from topologies.names import claim_port
from topologies.settings import Settings

READY_S = 90.0
POLL_S = 0.05


def millrace_worker(slot: int, port: int, topology: str = "analytics") -> Sequence[str]:
    """The arguments of a slot's worker, with a name, so that it is back soon."""
    return ["worker", topology, "--name", f"w{slot}", "--port", str(port), "-l", "warning"]


@dataclass
class Fleet:
    """Workers by their slot number, each with its name and port for the whole run.

    A worker is `program` with the arguments that `worker` gives for a slot and a port; it answers `/readyz` with
    its partitions, and keeps its state in directories of the group's that begin with a digit. Slots that are `spared`
    are not chosen where a fault is to befall any worker.
    """

    settings: Settings
    children: Children
    group: str
    broker: Broker | None = None
    workers: dict[int, Child] = field(default_factory=dict)
    ports: dict[int, int] = field(default_factory=dict)
    program: Sequence[str] = MILLRACE
    worker: Callable[[int, int], Sequence[str]] = millrace_worker
    topology: str = "analytics"
    spared: frozenset[int] = frozenset()

    def start(self, slot: int, *, fault: str = "", file_limit: int | None = None) -> None:
        """Start the worker of a slot, with a fault to come or a limit on the size of its files."""
        if slot not in self.ports:
            self.ports[slot] = claim_port(self.settings.state_dir, self.settings.worker_port)
        arguments = self.worker(slot, self.ports[slot])
        environment = {VARIABLE: fault} if fault else {}
        self.workers[slot] = self.children.start(
            f"worker-{slot}", arguments, environment, file_limit=file_limit, program=self.program
        )

    def kill(self, slot: int) -> None:
        """End a worker as a power cut would."""
        child = self.workers.pop(slot)
        self.children.running.remove(child)
        child.process.kill()
        child.process.wait()

    def end(self, slot: int) -> None:
        """End a worker in order."""
        self.children.end(self.workers.pop(slot))

    def died(self, slot: int, limit_s: float) -> bool:
        """Wait until a worker has ended by itself; it is forgotten then. False if it lives on."""
        child = self.workers[slot]
        if not _within(lambda: child.process.poll() is not None, limit_s):
            return False
        self.children.running.remove(self.workers.pop(slot))
        return True

    def last_line(self, slot: int) -> str:
        """The last line that a worker logged."""
        lines = (self.children.directory / f"worker-{slot}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def pause(self, slot: int) -> None:
        """Stop a worker where it stands."""
        os.kill(self.workers[slot].process.pid, signal.SIGSTOP)

    def resume(self, slot: int) -> None:
        """Let it go on, as a zombie if its session has ended."""
        os.kill(self.workers[slot].process.pid, signal.SIGCONT)

    def stores(self) -> list[Path]:
        """The state directories of the partitions."""
        return sorted((self.settings.state_dir / self.group).glob("[0-9]*"))

    def wipe(self) -> None:
        """Delete all local state. No worker may run."""
        for store in self.stores():
            shutil.rmtree(store)

    def wait_ready(self) -> None:
        """Wait until every worker has joined and together they own every partition, each exactly once.

        Raises MillraceError.
        """
        if not _within(self._all_owned, READY_S):
            raise MillraceError(f"the partitions are not all owned after {READY_S:g} s: {self._owned()}")

    def ended(self, *, wait: bool = False) -> list[int]:
        """The workers that have ended by themselves, which are forgotten then.

        With `wait`, at once when the first has, and none when all partitions are owned before.
        """

        def gone() -> list[int]:
            return [slot for slot, child in self.workers.items() if child.process.poll() is not None]

        if wait:
            _within(lambda: bool(gone()) or self._owned_by_all(), READY_S)
        return [slot for slot in gone() if self.died(slot, 0)]

    def _all_owned(self) -> bool:
        for slot, child in self.workers.items():
            if child.process.poll() is not None:
                raise MillraceError(f"worker-{slot} ended by itself: {self.last_line(slot)!r}; its log is {child.log}")
        return self._owned_by_all()

    def _owned_by_all(self) -> bool:
        found = self._owned().values()
        owned = [n for numbers in found for n in numbers or ()]
        return None not in found and sorted(owned) == list(range(self.settings.partitions))

    def _owned(self) -> dict[int, list[int] | None]:
        return {slot: owned_by(self.ports[slot]) for slot in self.workers}


def owned_by(port: int) -> list[int] | None:
    """The partitions of the worker at a port; None while it does not answer or is not ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as response:
            found: list[int] = orjson.loads(response.read())["partitions"]
            return found
    except (urllib.error.URLError, OSError, ValueError):
        return None


def _within(holds: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
