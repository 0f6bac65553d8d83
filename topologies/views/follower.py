"""Keeps a topology's read model and its copies up to date: one consumer without a group, at their own positions.

Each topology that a server serves has a follower of its own, so that one whose topics are wrong or behind holds up
no other. Whatever fails in the connection ends it, and a new one is made from the positions that the copies have
kept. Until then they answer from what they have, and the tracker says so.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from streams.cluster import Cluster
from streams.errors import BrokerUnreachable
from streams.fetching import WholeBatchConsumer
from streams.kafka_log import stop_consumer
from streams.log import TP, LogError, Record
from streams.topics import Topic, ensure_topics, topic_ids
from tables.read_model import ReadModel, partitions_of
from tables.renewal import Renewed
from tables.topic_copy import TopicCopy
from topologies.kept_topics import refuse_lost
from topologies.views.freshness import Tracker
from topologies.views.turns import Turns

logger = logging.getLogger(__name__)

# Applying so many at once holds up the event loop, and thus every answer: 3 to 10 us each for sums, some hundred for
# wide rows (measured); how many of these follow each other is a matter of turns. More may be read of each partition at
# a time: whole record batches cost next to nothing.
BATCH_RECORDS = 50
READ_RECORDS = 2_000
# One poll unpacks what it hands over in one go, at a microsecond for each record of any partition. A copy that is
# complete answers meanwhile.
READ_IN_ALL = 200
FETCH_BYTES = 4 << 20
LOOK_EVERY_S = 1.0
# A cluster that does not tell its end offsets for so long counts as gone.
LOOK_TIMEOUT_S = 3.0
RETRY_S = 0.5
READ_TIMEOUT_MS = 200


class ConnectionLost(Exception):
    """The cluster does not answer; try again."""


class Followed(Protocol):
    """A local copy of some topics: a read model, or the copy of one topic."""

    def positions(self) -> dict[TP, int]:
        """Where to read each partition on from."""
        ...

    def apply(self, tp: TP, records: Sequence[Record]) -> object:
        """Take consecutive records of a partition."""
        ...

    def bind(self, topic_ids: Mapping[str, str]) -> bool:
        """Hear the ids of the topics; False if the copy was another one's, and begins anew."""
        ...

    def reset(self) -> None:
        """Begin anew from nothing."""
        ...


class Follower:
    """Feeds one read model and its copies from one cluster. `run` goes on until it is cancelled."""

    def __init__(
        self,
        model: ReadModel,
        tracker: Tracker,
        cluster: Cluster,
        topics: list[Topic],
        *,
        copies: Sequence[TopicCopy] = (),
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """Connects nothing. `topics` are created where they are missing, so that a server may start first."""
        self.model = model
        self.copies = list(copies)
        self.tracker = tracker
        self.cluster = cluster
        self.topics = topics
        self.look_every_s = look_every_s
        self._lost_before = False
        self._pass_at = 0.0
        self._turns = Turns()
        self._going = asyncio.Event()
        self._going.set()

    def stand_still(self) -> None:
        """Apply no more than what is in hand, until `go_on`. Not for long: the cluster is still being asked."""
        self._going.clear()

    def go_on(self) -> None:
        """Apply again what comes."""
        self._going.set()

    async def run(self) -> None:
        """Follow for ever. Raises MillraceError for what no other try mends (a partition mismatch)."""
        while True:
            try:
                await self._follow()
            except (OffsetOutOfRangeError, Renewed) as error:
                self._begin_anew(error)
            except (ConnectionLost, BrokerUnreachable, KafkaError, LogError, OSError, TimeoutError) as error:
                self._lost(error)
                await asyncio.sleep(RETRY_S)

    def _lost(self, error: Exception) -> None:
        self.tracker.connected = False
        self.tracker.news.tell()
        if not self._lost_before:
            told = str(error) or repr(error)
            logger.warning("%s: no connection to Kafka, answering from local data: %s", self.model.group.name, told)
        self._lost_before = True

    def _begin_anew(self, error: OffsetOutOfRangeError | Renewed) -> None:
        """Drop the copies of the partitions that the error names: their topics are others than they were."""
        self.tracker.caught_up = False
        named = {tuple(tp) for found in error.args if isinstance(found, dict) for tp in found}
        for followed in self._followed():
            if not named or named & followed.positions().keys():
                topics = sorted({tp.topic for tp in followed.positions()})
                logger.warning("the local copy begins anew, its topics are others now: %s", ", ".join(topics))
                followed.reset()
                self.tracker.news.tell(None)

    def _followed(self) -> list[Followed]:
        return [self.model, *self.copies]

    def positions(self) -> dict[TP, int]:
        """Where to read everything that is followed on from."""
        return {tp: at for followed in self._followed() for tp, at in followed.positions().items()}

    def _bind(self, topic_ids: Mapping[str, str]) -> None:
        for followed in self._followed():
            own = {tp.topic for tp in followed.positions()}
            if not followed.bind({topic: found for topic, found in topic_ids.items() if topic in own}):
                self.tracker.caught_up = False
                self.tracker.news.tell(None)
                told = ", ".join(sorted(own))
                logger.warning("made anew since the last time, so the local copy begins anew: %s", told)

    async def _follow(self) -> None:
        await reach(self.cluster)
        await refuse_lost(self.cluster, self.model.group)
        await asyncio.to_thread(ensure_topics, self.cluster, self.topics)
        self._bind(await asyncio.to_thread(topic_ids, self.cluster, {tp.topic for tp in self.positions()}))
        consumer = WholeBatchConsumer(
            whole=_every_topic,
            at_most=READ_RECORDS,
            in_all=READ_IN_ALL if self.tracker.caught_up else None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=100,
            **self.cluster.aiokafka(),
        )
        try:
            await consumer.start()
            await self._consume(consumer)
        finally:
            await stop_consumer(consumer)

    async def _consume(self, consumer: WholeBatchConsumer) -> None:
        positions = self.positions()
        consumer.assign([TopicPartition(*tp) for tp in positions])
        starts = await consumer.beginning_offsets([TopicPartition(*tp) for tp in self._new_copies()])
        for tp, position in positions.items():
            consumer.seek(TopicPartition(*tp), max(position, starts.get(TopicPartition(*tp), 0)))
        targets = await consumer.end_offsets([TopicPartition(*tp) for tp in positions])
        looking = asyncio.create_task(self._look(consumer))
        try:
            await self._read(consumer, {TP(*tp): end for tp, end in targets.items()}, looking)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    def _new_copies(self) -> list[TP]:
        # A derived topic may be cut at its start (cleanup compact,delete): its copy is of what is there.
        return [tp for copy in self.copies for tp, position in copy.positions().items() if position == 0]

    async def _read(self, consumer: WholeBatchConsumer, targets: dict[TP, int], looking: "asyncio.Task[None]") -> None:
        of_topic = {tp.topic: followed for followed in self._followed() for tp in followed.positions()}
        while not looking.done():
            await self._going.wait()
            found = await consumer.getmany(timeout_ms=READ_TIMEOUT_MS)
            await self._apply(found, of_topic)
            consumer.in_all = READ_IN_ALL if self.tracker.caught_up else None
            await self._pass(consumer)
            if not self.tracker.caught_up:
                await self._drop_reached(consumer, targets)
                self.tracker.caught_up = not targets
                self.tracker.news.tell()
            if not found or self._turns.due():
                await self._give_way()
        await looking

    async def _apply(self, found: Mapping[TP, Sequence[Record]], of_topic: Mapping[str, Followed]) -> None:
        try:
            for tp, records in found.items():
                for start in range(0, len(records), BATCH_RECORDS):
                    batch, followed = records[start : start + BATCH_RECORDS], of_topic[tp.topic]
                    if followed is self.model:
                        self.tracker.news.note(self.model.apply(TP(*tp), batch))
                    else:
                        followed.apply(TP(*tp), batch)
                    if self._turns.due():  # answers in between: a flush is thousands of records, of many partitions
                        await self._give_way()
        finally:
            self.tracker.settle()
            if found:
                self.tracker.news.tell()  # what was applied, also if the rest was not

    async def _give_way(self) -> None:
        await self._turns.give()
        self._turns.begin(hurried=not self.tracker.caught_up)

    async def _drop_reached(self, consumer: AIOKafkaConsumer, targets: dict[TP, int]) -> None:
        # The last record before an end may be gone (compaction), so the position decides, not the records.
        for tp in list(targets):
            if await consumer.position(TopicPartition(*tp)) >= targets[tp]:
                del targets[tp]

    async def _pass(self, consumer: AIOKafkaConsumer) -> None:
        """Tell the copies now and then how far was read: compaction may have taken the last records before an end."""
        if time.monotonic() < self._pass_at:
            return
        self._pass_at = time.monotonic() + self.look_every_s
        for copy in self.copies:
            for tp in copy.positions():
                copy.passed(tp, await consumer.position(TopicPartition(*tp)))

    async def _look(self, consumer: AIOKafkaConsumer) -> None:
        sources = {tp for source in self.model.group.sources for tp in partitions_of(source)}
        copied = {tp for copy in self.copies for tp in copy.positions()}
        while True:
            asked_at, complete_at = time.time(), self.tracker.complete_at()
            try:
                # not wait_for, which forgets that it was cancelled when the answer comes at that moment
                async with asyncio.timeout(LOOK_TIMEOUT_S):
                    ends = await consumer.end_offsets([TopicPartition(*tp) for tp in sources | copied])
            except (KafkaError, TimeoutError) as error:
                raise ConnectionLost(str(error) or "the brokers do not answer") from error
            found = {TP(*tp): end for tp, end in ends.items()}
            self.tracker.look(asked_at, by_topic({tp: end for tp, end in found.items() if tp in sources}))
            self.tracker.look_at_copies(complete_at, by_topic({tp: end for tp, end in found.items() if tp in copied}))
            self.tracker.news.tell()
            if self._lost_before:
                logger.warning("%s: connected to Kafka again", self.model.group.name)
                self._lost_before = False
            await asyncio.sleep(self.look_every_s)


def _every_topic(topic: str) -> bool:
    return True


async def reach(cluster: Cluster) -> None:
    """Return once a broker takes a connection. Raises BrokerUnreachable when none does.

    Asked first, because the admin client waits in a thread that nothing can cancel, which would hold up Ctrl-C.
    """
    for address in cluster.bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            # not wait_for, which forgets that it was cancelled when a connection is refused at that moment
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError):
            continue
        writer.close()
        return
    raise BrokerUnreachable(cluster.bootstrap)


def by_topic(ends: Mapping[TP, int]) -> dict[str, dict[int, int]]:
    """End offsets by topic, then partition."""
    found: dict[str, dict[int, int]] = {}
    for tp, end in ends.items():
        found.setdefault(tp.topic, {})[tp.partition] = end
    return found
