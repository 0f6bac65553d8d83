"""Keeps a read model up to date: a consumer without a group, assigned at the model's own positions.

Whatever fails in the connection ends it, and a new one is made from the positions that the model has kept. Until
then the model answers from what it has, and the tracker says so.
"""

import asyncio
import logging
import time
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from streams.cluster import Cluster
from streams.errors import BrokerUnreachable
from streams.kafka_log import stop_consumer
from streams.log import TP, LogError
from streams.topics import Topic, ensure_topics, topic_ids
from tables.read_model import ReadModel, partitions_of
from topologies.kept_topics import refuse_lost
from topologies.views.freshness import Tracker

logger = logging.getLogger(__name__)

# A batch of so many holds up the event loop, and thus every answer, for 20 ms at most (measured).
BATCH_RECORDS = 4_000
FETCH_BYTES = 4 << 20
LOOK_EVERY_S = 1.0
# A cluster that does not tell its end offsets for so long counts as gone.
LOOK_TIMEOUT_S = 3.0
RETRY_S = 0.5
READ_TIMEOUT_MS = 200


class ConnectionLost(Exception):
    """The cluster does not answer; try again."""


class Follower:
    """Feeds one read model from one cluster. `run` goes on until it is cancelled."""

    def __init__(
        self,
        model: ReadModel,
        tracker: Tracker,
        cluster: Cluster,
        topics: list[Topic],
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """Connects nothing. `topics` are created where they are missing, so that a server may start first."""
        self.model = model
        self.tracker = tracker
        self.cluster = cluster
        self.topics = topics
        self.look_every_s = look_every_s
        self._lost_before = False

    async def run(self) -> None:
        """Follow for ever. Raises MillraceError for what no other try mends (a partition mismatch)."""
        while True:
            try:
                await self._follow()
            except OffsetOutOfRangeError:
                logger.warning("the changelogs do not reach back to the local copy: it begins anew")
                self._begin_anew()
            except (ConnectionLost, BrokerUnreachable, KafkaError, LogError, OSError, TimeoutError) as error:
                self._lost(error)
                await asyncio.sleep(RETRY_S)

    def _lost(self, error: Exception) -> None:
        self.tracker.connected = False
        if not self._lost_before:
            logger.warning("no connection to Kafka, answering from local data: %s", str(error) or repr(error))
        self._lost_before = True

    def _begin_anew(self) -> None:
        self.tracker.caught_up = False
        self.model.reset()

    async def _follow(self) -> None:
        await reach(self.cluster)
        await refuse_lost(self.cluster, self.model.group)
        await asyncio.to_thread(ensure_topics, self.cluster, self.topics)
        followed = {tp.topic for tp in self.model.positions()}
        ids = await asyncio.to_thread(topic_ids, self.cluster, followed)
        if not self.model.bind(ids):
            self.tracker.caught_up = False
            logger.warning("the topics were made anew since the last time: the local copy begins anew")
        consumer = AIOKafkaConsumer(
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

    async def _consume(self, consumer: AIOKafkaConsumer) -> None:
        positions = self.model.positions()
        consumer.assign([TopicPartition(*tp) for tp in positions])
        for tp, position in positions.items():
            consumer.seek(TopicPartition(*tp), position)
        targets = await consumer.end_offsets([TopicPartition(*tp) for tp in positions])
        looking = asyncio.create_task(self._look(consumer))
        try:
            await self._read(consumer, {TP(*tp): end for tp, end in targets.items()}, looking)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _read(self, consumer: AIOKafkaConsumer, targets: dict[TP, int], looking: "asyncio.Task[None]") -> None:
        while not looking.done():
            batches = await consumer.getmany(timeout_ms=READ_TIMEOUT_MS, max_records=BATCH_RECORDS)
            for tp, records in batches.items():
                self.model.apply(TP(*tp), records)
            self.tracker.settle()
            if not self.tracker.caught_up:
                await self._drop_reached(consumer, targets)
                self.tracker.caught_up = not targets
            await asyncio.sleep(0)
        await looking

    async def _drop_reached(self, consumer: AIOKafkaConsumer, targets: dict[TP, int]) -> None:
        # The last record before an end may be gone (compaction), so the position decides, not the records.
        for tp in list(targets):
            if await consumer.position(TopicPartition(*tp)) >= targets[tp]:
                del targets[tp]

    async def _look(self, consumer: AIOKafkaConsumer) -> None:
        sources = [TopicPartition(*tp) for source in self.model.group.sources for tp in partitions_of(source)]
        while True:
            asked_at = time.time()
            try:
                found = await asyncio.wait_for(consumer.end_offsets(sources), LOOK_TIMEOUT_S)
            except (KafkaError, TimeoutError) as error:
                raise ConnectionLost(str(error) or "the brokers do not answer") from error
            self.tracker.look(asked_at, by_topic({TP(*tp): end for tp, end in found.items()}))
            if self._lost_before:
                logger.warning("connected to Kafka again")
                self._lost_before = False
            await asyncio.sleep(self.look_every_s)


async def reach(cluster: Cluster) -> None:
    """Return once a broker takes a connection. Raises BrokerUnreachable when none does.

    Asked first, because the admin client waits in a thread that nothing can cancel, which would hold up Ctrl-C.
    """
    for address in cluster.bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            opening = asyncio.open_connection(host.strip("[]"), int(port))
            _, writer = await asyncio.wait_for(opening, LOOK_TIMEOUT_S)
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
