"""Building the tables anew: ordinary workers do it, and what they commit is watched until all of it is there."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import confluent_kafka
from confluent_kafka import KafkaException, TopicPartition

from streams.admin.connection import ANSWER_S, QUIET, Admin, reason
from streams.admin.topics import stretches
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.kafka_log import KafkaLog
from streams.log import TP, LogError
from tables.catching_up import holds_records
from topologies.demo.processes import END_S, Children
from topologies.names import workers_here
from topologies.replay.concerned import concerned, partitions
from topologies.replay.members import OWN
from topologies.replay.planning import Plan
from topologies.settings import Settings
from topologies.topology import Topology

LOOK_EVERY_S: Final = 0.25
# A worker that commits nothing for so long may have nothing to commit: a log may end in records that nobody sees.
STILL_S: Final = 4.0
# Longer than a broker takes to start, or another to take its place.
AWAY_S: Final = 60.0

Report = Callable[[Mapping[TP, int]], None]


@dataclass(frozen=True)
class Rebuilt:
    """What this run of the command saw: `events` that were applied in `seconds`, the start of the workers included.

    `events_per_s` is the rate from their first commit to their last.
    """

    events: int
    seconds: float
    events_per_s: int
    workers: int


@dataclass(frozen=True)
class Course:
    """Sums of positions and times (s, monotonic) of a watch: at its start, when they had first moved, at its end."""

    began: tuple[int, float]
    moved: tuple[int, float]
    ended: tuple[int, float]

    @property
    def per_s(self) -> float:
        """Events in a second, from the first move on."""
        seconds = self.ended[1] - self.moved[1]
        return (self.ended[0] - self.moved[0]) / seconds if seconds > 0 else 0.0


class Committed:
    """What a group has committed, asked again and again; a coordinator that is away for a while is waited for.

    By a consumer that never joins: librdkafka's admin client dies of a segmentation fault when a coordinator answers
    that it is none any more, or not yet (librdkafka issue 5040).
    """

    def __init__(self, cluster: Cluster, group: str) -> None:
        """Connect when asked first."""
        self._group = group
        config = {**QUIET, "group.id": group, "enable.auto.commit": False}
        self._consumer = confluent_kafka.Consumer(cluster.librdkafka(**config))
        self._answered_at = time.monotonic()

    def ask(self, tps: Iterable[TP]) -> dict[TP, int] | None:
        """The offsets of these partitions, those without left out; None if nobody answers now. Raises MillraceError."""
        try:
            found = self._consumer.committed([TopicPartition(*tp) for tp in tps], timeout=ANSWER_S)
            if failed := next((one.error for one in found if one.error is not None), None):
                raise KafkaException(failed)
        except KafkaException as error:
            if time.monotonic() - self._answered_at > AWAY_S:
                raise MillraceError(f"offsets of {self._group} cannot be read: {reason(error)}") from error
            return None
        self._answered_at = time.monotonic()
        return {TP(one.topic, one.partition): one.offset for one in found if one.offset >= 0}

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()


@dataclass
class Watch:
    """How far a group is from its starts to its targets; `look` asks the cluster."""

    admin: Admin
    committed: Committed
    starts: Mapping[TP, int]
    targets: Mapping[TP, int]

    def look(self, last: Mapping[TP, int] | None = None) -> dict[TP, int]:
        """Where each partition is, between its start and its target, or was last. Raises MillraceError."""
        found = self.committed.ask(self.targets) if self.targets else {}
        known: Mapping[TP, int] = (last or {}) if found is None else found
        return {tp: min(max(known.get(tp, 0), self.starts[tp]), end) for tp, end in self.targets.items()}

    def left(self, at: Mapping[TP, int] | None = None) -> dict[TP, tuple[int, int]]:
        """What is not there yet, from where to where; as of now, or of positions."""
        found = self.look() if at is None else at
        return {tp: (found[tp], end) for tp, end in self.targets.items() if found[tp] < end}

    def wait(self, check: Callable[[], None], report: Report) -> Course:
        """Return when all targets are reached. `check` raises where nobody works on it any more."""
        at = self.look()
        began = sum(at.values()), time.monotonic()
        first, still_since = None, began[1]
        while True:
            report(at)
            left = self.left(at)
            if left and time.monotonic() - still_since > STILL_S:
                still_since = time.monotonic()
                left = left if asyncio.run(_anything(self.admin, left)) else {}
            if not left:
                ended = sum(at.values()), time.monotonic()
                return Course(began, first or ended, ended)
            check()
            time.sleep(LOOK_EVERY_S)
            before, at = at, self.look(at)
            if at != before:
                still_since = time.monotonic()
                first = first or (sum(at.values()), still_since)


def rebuild(
    admin: Admin, topology: Topology, plan: Plan, settings: Settings, named: str, workers: int, report: Report
) -> Rebuilt:
    """Have the tables built up to the plan's ends; `report` hears the positions. Raises MillraceError.

    Starts `workers` of the topology `named`, unless some run here already, and ends those that a replay has started.
    """
    running, inner = workers_here(settings.state_dir, plan.group), partitions(concerned(topology).inner)
    began = time.monotonic()
    with ExitStack() as stack:
        committed = Committed(admin.cluster, plan.group)
        stack.callback(committed.close)
        sources = _watch(admin, committed, {one.tp: (one.start, one.end) for one in plan.sources})
        stack.callback(_end_left, settings, plan.group)
        children = stack.enter_context(Children(settings.home / "logs", settings.variables()))
        needed = 0 if running or not (sources.left() or _handed_on(admin, committed, inner).left()) else workers
        for number in range(needed):
            name = f"{OWN}{number}"
            children.start(f"{plan.group}-{name}", ["worker", named, "--name", name])

        def check() -> None:
            children.check()
            if running and not workers_here(settings.state_dir, plan.group):
                raise MillraceError("the workers that were building the tables have ended: run this again to go on")

        course = sources.wait(check, report)
        for _ in range(2 if inner else 0):  # what is handed on may be handed on once more
            _handed_on(admin, committed, inner).wait(check, lambda _: None)
        seconds = round(time.monotonic() - began, 3)
    events = course.ended[0] - course.began[0]
    return Rebuilt(events, seconds, round(course.per_s), len(running) or needed)


def _watch(admin: Admin, committed: Committed, spans: Mapping[TP, tuple[int, int]]) -> Watch:
    starts, ends = {tp: start for tp, (start, _) in spans.items()}, {tp: end for tp, (_, end) in spans.items()}
    return Watch(admin, committed, starts, ends)


def _handed_on(admin: Admin, committed: Committed, inner: Sequence[TP]) -> Watch:
    """Of what the group writes for itself, all that is there now."""
    return _watch(admin, committed, {tp: (0, held.end) for tp, held in stretches(admin, inner).items()})


async def _anything(admin: Admin, spans: Mapping[TP, tuple[int, int]]) -> bool:
    """Whether there is any record in these stretches."""
    log = KafkaLog(admin.cluster, client_id="millrace-replay")
    try:
        await log.start()
        return await holds_records(log, spans)
    except LogError:
        return True  # not known: it is looked at again
    finally:
        await log.stop()


def _end_left(settings: Settings, group: str) -> None:
    """End workers that an interrupted run of the command has left behind, and wait until they have."""

    def left() -> list[int]:
        return [pid for name, pid in workers_here(settings.state_dir, group).items() if name.startswith(OWN)]

    for pid in left():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + END_S
    while left() and time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)
