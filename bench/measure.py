"""What the command and a contender's process say to each other: a task as an argument, an outcome as a line."""

import os
import sys
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from streams.cluster import Cluster


class Task(msgspec.Struct, frozen=True):
    """What a contender is to run: the `events` after the first `warmup` of a topic, group and directory its own."""

    bootstrap: str
    topic: str
    partitions: int
    warmup: int
    events: int
    group: str
    state_dir: str
    variant: str = ""
    profile: Literal["", "stages", "functions"] = ""

    @property
    def cluster(self) -> Cluster:
        """Where the topic is."""
        return Cluster(self.bootstrap)

    @property
    def total(self) -> int:
        """All records to be read."""
        return self.warmup + self.events


class Stage(msgspec.Struct, frozen=True):
    """CPU seconds that one stage of the work took, in the thread that did it."""

    name: str
    cpu_s: float


class Function(msgspec.Struct, frozen=True):
    """A function's calls and its own CPU seconds, without what it called; both are raised by the profiler."""

    name: str
    calls: int
    own_s: float


class Sum(msgspec.Struct, frozen=True, array_like=True):
    """The sales of one minute (start in ms) and key."""

    minute: int
    key: str
    revenue: int


class Outcome(msgspec.Struct, frozen=True):
    """What came of a task. `applied_s` leaves out the last flush, `seconds` includes it where there is one.

    `positions` is where it stopped in each partition; `sums` are given by who keeps nothing that can be read; `digest`
    is said of what was restored, `waiting` how many keys' results were not published yet.
    """

    events: int
    seconds: float
    applied_s: float
    cpu_s: float
    positions: dict[int, int] = {}
    sums: list[Sum] = []
    stages: list[Stage] = []
    functions: list[Function] = []
    digest: str = ""
    waiting: int = 0

    @property
    def eps(self) -> float:
        """Events in a second."""
        return self.events / self.seconds


class Meter:
    """Counts records, and holds the clock: from the first batch after the warm-up to the last record."""

    def __init__(self, warmup: int, total: int, on_start: Callable[[], None] | None = None) -> None:
        """Begin at nothing."""
        self.seen = 0
        self._warmup = warmup
        self._total = total
        self._on_start = on_start
        self._began: tuple[int, float, float] | None = None
        self._applied: float | None = None

    def before(self) -> None:
        """Call before a batch is worked on."""
        if self._began is None and self.seen >= self._warmup:
            if self._on_start is not None:
                self._on_start()
            self._began = (self.seen, time.perf_counter(), time.process_time())

    def after(self, records: int) -> bool:
        """Call when a batch is applied; returns whether it was the last one."""
        self.seen += records
        if self._applied is None and self.seen >= self._total:
            self._applied = time.perf_counter()
            return True
        return False

    def outcome(self) -> Outcome:
        """Stop the clock. Raises RuntimeError where there was nothing to measure."""
        ended = time.perf_counter()
        if self._began is None or self._applied is None:
            raise RuntimeError(f"{self.seen} of {self._total} records seen: nothing to measure")
        seen, wall, cpu = self._began
        return Outcome(self.seen - seen, ended - wall, self._applied - wall, time.process_time() - cpu)


def task_given() -> Task:
    """The task in this process's arguments."""
    return msgspec.json.decode(sys.argv[1], type=Task)


def report(outcome: Outcome) -> None:
    """Say what came of it."""
    os.write(1, msgspec.json.encode(outcome) + b"\n")  # a Faust worker turns sys.stdout into log lines
