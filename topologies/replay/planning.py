"""What a replay is about to do, worked out whole before anything is touched."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec
from confluent_kafka.admin import OffsetSpec

from streams.admin.connection import Admin
from streams.admin.groups import committed_offsets, list_groups
from streams.admin.topics import Stretch, partitions_of, stretches, topic_names
from streams.errors import MillraceError
from streams.kafka_log import KafkaLog
from streams.log import TP, LogError
from streams.topics import topic_ids
from tables.progress import Progress
from tables.renewal import next_epoch, read_progress
from topologies.replay.concerned import Concerned, concerned, partitions, stores
from topologies.replay.losses import Loss, find_losses
from topologies.replay.origin import Origin
from topologies.topology import Topology


class Stretched(msgspec.Struct, frozen=True):
    """One source partition: offsets `[start, end)` are read again, of those from `first` that the log has."""

    topic: str
    partition: int
    first: int
    start: int
    end: int

    @property
    def tp(self) -> TP:
        """The partition."""
        return TP(self.topic, self.partition)

    @property
    def events(self) -> int:
        """Records to be read; fewer where offsets are missing in the log."""
        return self.end - self.start


class Plan(msgspec.Struct, frozen=True):
    """A replay. `origin` is what `--from` said, `dropped` the topics that are there and will be deleted.

    `renewed` is the epoch in which the tables begin anew; `readers` the groups that read what is dropped, by topic.
    """

    group: str
    origin: str
    whole: bool
    sources: list[Stretched]
    dropped: list[str]
    upserted: list[str]
    aside: list[str]
    directories: list[str]
    renewed: int
    losses: list[Loss] = []
    readers: dict[str, list[str]] = {}

    @property
    def events(self) -> int:
        """Records to be read in all."""
        return sum(one.events for one in self.sources)

    @property
    def losing(self) -> list[Loss]:
        """Where the tables would come back with less than they hold, or might."""
        return [loss for loss in self.losses if not loss.harmless] if self.whole else []


def make_plan(admin: Admin, topology: Topology, origin: Origin, state_dir: Path) -> Plan:
    """Look at everything that the replay concerns. Raises MillraceError where it cannot be."""
    what, present = concerned(topology), set(topic_names(admin))
    held = _held(admin, what, origin)
    starts = origin.starts(held)
    progress, losses = asyncio.run(_state(admin, topology, held, present, origin.whole))
    return Plan(
        topology.group.name,
        origin.text,
        origin.whole,
        [Stretched(*tp, held[tp].first, starts[tp], held[tp].end) for tp in sorted(held)],
        [name for name in what.dropped if name in present],
        [name for name in what.upserted if name in present],
        [name for name in what.aside if name in present],
        [str(path) for path in stores(state_dir, topology.group.name)],
        next_epoch(progress.values()),
        losses,
        _readers(admin, what.streams, topology.group.name, present),
    )


def _held(admin: Admin, what: Concerned, origin: Origin) -> dict[TP, Stretch]:
    there = partitions_of(admin, [topic.name for topic in what.sources])
    for topic in what.sources:
        if len(there[topic.name]) != topic.partitions:
            raise MillraceError(
                f"topic {topic.name!r} has {len(there[topic.name])} partitions, {topic.partitions} are declared: set "
                "MILLRACE_PARTITIONS to what it has"
            )
    at = None if origin.at_ms is None else OffsetSpec.for_timestamp(origin.at_ms)
    return stretches(admin, partitions(what.sources), at)


async def _state(
    admin: Admin, topology: Topology, held: Mapping[TP, Stretch], present: set[str], whole: bool
) -> tuple[dict[TP, Progress], list[Loss]]:
    group = topology.group
    log = KafkaLog(admin.cluster, client_id="millrace-replay")
    try:
        await log.start()
        progress = await read_progress(group, log) if group.progress.name in present else {}
        if not whole:
            return progress, []
        firsts = {tp: found.first for tp, found in held.items()}
        ids = await asyncio.to_thread(topic_ids, admin.cluster, {tp.topic for tp in held})
        return progress, await find_losses(group, log, firsts, progress, present, ids)
    except LogError as error:
        raise MillraceError(f"the state of {group.name} cannot be read: {error}") from error
    finally:
        await log.stop()


def _readers(admin: Admin, topics: tuple[str, ...], own: str, present: set[str]) -> dict[str, list[str]]:
    """Who else reads topics that will be other ones afterwards."""
    wanted = [name for name in topics if name in present]
    if not wanted:
        return {}
    names = [line.name for line in list_groups(admin) if line.name != own]
    read = {name: {tp.topic for tp in committed_offsets(admin, name)} for name in names}
    found = {topic: [name for name in names if topic in read[name]] for topic in wanted}
    return {topic: readers for topic, readers in found.items() if readers}
