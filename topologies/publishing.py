"""Publishing beside the engine: a worker's copies of the published topics, and its share of the time for results."""

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.kafka_log import KafkaLog
from streams.log import Log, LogError
from streams.topics import topic_ids
from tables.catching_up import CatchUp
from tables.engine import Engine
from tables.partition import Partition
from tables.publishing import Publication, Publisher, Shelf
from tables.store import StoreDamaged, wipe
from tables.table import Group
from tables.topic_copy import Copied, TopicCopy

logger = logging.getLogger(__name__)

# A step holds up the event loop, and thus events, for so long; of a worker's time at most the share goes into steps.
# Both are processor time: by the clock, a machine that has much else to do would publish next to nothing.
STEP_S = 0.01
SHARE = 0.2
# While so many records wait to be applied, results have less: what is published then is soon out of date.
BACKLOG = 20_000
SHARE_BEHIND = 0.04
LOOK_EVERY_S = 1.0
IDLE_S = 0.1
RETRY_S = 2.0


class Publishing:
    """The publishers of all partitions that an engine holds, and what they read."""

    def __init__(self, publications: list[Publication], engine: Engine, log: Log) -> None:
        """Open nothing before `open`.

        Raises ValueError for a topic with fewer partitions than a source of its tables has: each has one writer.
        """
        for publication in publications:
            _check_partitions(publication, engine.group)
        self.publications = publications
        self.engine = engine
        self.log = log
        self.copies: dict[str, TopicCopy] = {}
        self._publishers: dict[int, list[Publisher]] = {}
        self._catching_up = CatchUp(engine.group)

    def open(self, directory: Path, ids: Mapping[str, str]) -> None:
        """Open the copies, a directory each; a damaged one begins anew. Raises StoreLocked, StoreFailed."""
        topics = {topic.name: topic for p in self.publications for topic in p.copied}
        for name, topic in topics.items():
            self.copies[name] = _opened(Copied(topic), directory / name)
            self.copies[name].bind(ids)

    def close(self) -> None:
        """Close the copies. Who published from them begins anew with others, and a pass finds what was not written."""
        self._publishers.clear()
        copies, self.copies = self.copies, {}
        for copy in copies.values():
            copy.close()

    async def follow(self, log: Log) -> None:
        """Read what is new in the published topics into the copies, and for their publishers. Raises LogError."""
        for copy in list(self.copies.values()):
            positions = copy.positions()
            starts, ends = await log.start_offsets(positions), await log.end_offsets(positions)
            spans = {tp: (max(at, starts[tp]), ends[tp]) for tp, at in positions.items() if ends[tp] > at}
            async for tp, records in log.read(spans):
                if self.copies:
                    copy.apply(tp, records)
            for tp, (_, end) in spans.items():
                copy.passed(tp, end)
        await self._read_back(log)

    async def _read_back(self, log: Log) -> None:
        publishers = {p.to: p for known in self._publishers.values() for p in known}
        ends = await log.end_offsets(publishers)
        behind = {tp: p for tp, p in publishers.items() if p.read_to < ends[tp]}
        starts = await log.start_offsets(behind)
        async for tp, records in log.read({tp: (max(p.read_to, starts[tp]), ends[tp]) for tp, p in behind.items()}):
            behind[tp].read(records)
        for tp, publisher in behind.items():
            publisher.read_to = ends[tp]  # compaction may have taken the last ones

    async def behind(self, log: Log) -> int:
        """How many records of the sources wait to be applied. Raises LogError."""
        positions = self.engine.positions()
        ends = await log.end_offsets(positions)
        return sum(max(0, ends[tp] - at) for tp, at in positions.items())

    def hear(self) -> None:
        """Take over which keys were flushed since the last time, and begin anew with partitions that were restored."""
        held = self.engine.partitions
        self._publishers = {n: known for n, known in self._publishers.items() if n in held}
        for number, partition in held.items():
            publishers = self._publishers.get(number)
            if publishers is None or publishers[0].shelf.partition is not partition:
                self._publishers[number] = self._begin(partition)
                self._catching_up = CatchUp(self.engine.group)
        self._hear_touched()

    def _hear_touched(self) -> None:
        for publishers in self._publishers.values():
            partition = publishers[0].shelf.partition
            touched, partition.touched = partition.touched, {table: {} for table in partition.touched}
            for publisher in publishers:
                for table in publisher.publication.tables:
                    publisher.touch(touched[table])

    async def catch_up(self, log: Log) -> None:
        """Look whether the tables are where what is published and not in them is gone for good. Raises LogError."""
        publishers = [p for known in self._publishers.values() for p in known]
        if not any(p.behind and (p.found or p.left) for p in publishers):
            return
        catching_up, feeds = self._catching_up, [f for p in self.engine.partitions.values() for f in p.feeds.values()]
        await catching_up.look(log, {feed.tp: feed.durable.position for feed in feeds if feed.durable is not None})
        if catching_up.done:
            self._hear_touched()  # what these flushes wrote is not gone
            for publisher in publishers:
                publisher.behind = False

    def _begin(self, partition: Partition) -> list[Publisher]:
        # What is flushed from now on is told; what was before is what a publisher's first pass goes over.
        partition.touched = {table: {} for p in self.publications for table in p.tables}
        shelf = Shelf(partition, self.copies)
        made: list[Publisher] = []
        for p in self.publications:
            read = {topic.name for topic in p.copies}
            after = [publisher for publisher in made if publisher.publication.topic.name in read]
            made.append(Publisher(p, shelf, self.log, self.copies[p.topic.name] if p.settles else None, after))
        return made

    async def step(self, budget_s: float) -> int:
        """One step for each publisher that has something to do; returns how many records were written."""
        busy = [p for known in self._publishers.values() for p in known if p.busy]
        return sum([await publisher.step(budget_s) for publisher in busy])

    @property
    def idle(self) -> bool:
        """Whether everything is published, as far as is known."""
        return all(p.idle for known in self._publishers.values() for p in known)

    @property
    def busy(self) -> bool:
        """Whether a step has something to do."""
        return any(p.busy for known in self._publishers.values() for p in known)

    @property
    def waiting(self) -> int:
        """How many keys are known to wait for their turn; a pass that is under way counts as one."""
        publishers = [p for known in self._publishers.values() for p in known]
        return sum(len(p.waiting) or not p.idle for p in publishers)


def _check_partitions(publication: Publication, group: Group) -> None:
    topic = publication.topic
    for source in group.sources:
        read = [table.name for table in source.tables if table.name in publication.tables]
        if read and source.topic.partitions > topic.partitions:
            raise ValueError(
                f"publication {topic.name!r} has {topic.partitions} partitions, and {source.topic.name}, which table "
                f"{read[0]} is of, {source.topic.partitions}: it needs as many"
            )


def _opened(copied: Copied, directory: Path) -> TopicCopy:
    try:
        return TopicCopy(copied, directory)
    except StoreDamaged as error:
        logger.warning("the copy of %s is read anew: %s", copied.topic.name, error)
        wipe(directory)
        return TopicCopy(copied, directory)


async def keep_publishing(publishing: Publishing, cluster: Cluster, directory: Path) -> None:
    """Publish for ever, beside the events; ended by cancelling. Whatever fails is logged and tried again."""
    while True:
        try:
            await _publish(publishing, cluster, directory)
        except (LogError, MillraceError) as error:
            logger.warning("publishing put off: %s", error)
        except Exception:
            logger.exception("publishing failed, it is tried again")
        await asyncio.sleep(RETRY_S)


async def _publish(publishing: Publishing, cluster: Cluster, directory: Path) -> None:
    names = [topic.name for p in publishing.publications for topic in p.copied]
    ids = await asyncio.to_thread(topic_ids, cluster, names)
    log = KafkaLog(cluster)
    try:
        publishing.open(directory, ids)
        await log.start()
        share, look_at = SHARE, 0.0
        while True:
            started = time.monotonic()
            try:
                looking = started >= look_at
                if looking:
                    share = SHARE_BEHIND if await publishing.behind(log) > BACKLOG else SHARE
                    look_at = started + LOOK_EVERY_S
                publishing.hear()
                await publishing.follow(log)
                if looking:
                    await publishing.catch_up(log)
                while publishing.busy and time.monotonic() - started < IDLE_S:
                    stepped = time.thread_time()
                    await publishing.step(STEP_S)
                    await asyncio.sleep((time.thread_time() - stepped) * (1 - share) / share)
            except LogError as error:  # no reason to begin anew: that reads what is published and goes over every key
                logger.warning("publishing put off: %s", error)
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(max(0.0, IDLE_S - (time.monotonic() - started)))
    finally:
        publishing.close()
        await log.stop()
