"""The engine on a cluster: what Faust's delivery calls, and what a delivered batch comes to."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.kafka_log import KafkaLog
from streams.log import TP, LogError, TopicGone
from streams.topics import topic_ids
from tables.engine import Engine
from tables.partition import Gap
from topologies.kept_topics import ensure_all, explained, kept_topics
from topologies.publishing import Publishing, keep_publishing
from topologies.topology import Topology

if TYPE_CHECKING:
    from streams.delivery import Batch, BatchApp, Consumer

logger = logging.getLogger(__name__)

PAUSES_KEPT = 100
RESTORE_TRIES = 5
RESTORE_WAIT_S = 1.0


@dataclass(frozen=True)
class Pause:
    """How long a rebalance held a worker up, in seconds, and by what."""

    flush_s: float  # until what was applied is durable and committed, and the stores are closed
    group_s: float  # until the group has agreed on who owns what
    restore_s: float  # until the stores are open and up to date


class EngineProcessor:
    """Runs a topology's engine under a Faust app (streams.delivery.Processor)."""

    def __init__(self, topology: Topology, cluster: Cluster, state_dir: Path) -> None:
        """Connects nothing."""
        self.topology = topology
        self.cluster = cluster
        self.log = KafkaLog(cluster)
        self._ids: dict[str, str] = {}
        self.engine = Engine(topology.group, state_dir, self.log, topic_ids=lambda: self._ids)
        self.ready = False
        self.pauses: deque[Pause] = deque(maxlen=PAUSES_KEPT)
        self._paused_at: float | None = None
        self._released_at: float | None = None
        self.publishing = Publishing(topology.publications, self.engine, self.log)
        self._publishing: asyncio.Task[None] | None = None

    @property
    def topics(self) -> frozenset[str]:
        """Source topics that are delivered in batches."""
        return self.engine.topics

    async def start(self) -> None:
        """Create what topics are missing and connect. Raises MillraceError with one readable line."""
        await ensure_all(self.cluster, self.topology)
        names = [*(source.topic.name for source in self.engine.group.sources), *kept_topics(self.engine.group)]
        self._ids = await asyncio.to_thread(topic_ids, self.cluster, names)
        await self.log.start()
        if self.topology.publications:
            directory = self.engine.directory / self.topology.name / f"published-{self.engine.name}"
            self._publishing = asyncio.create_task(keep_publishing(self.publishing, self.cluster, directory))

    async def stop(self) -> None:
        """Close every store and disconnect."""
        self.ready = False
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.gather(self._publishing, return_exceptions=True)
        await self.engine.release()
        await self.log.stop()

    async def restore(self, numbers: Sequence[int], generation: int, starts: Mapping[TP, int | None]) -> dict[TP, int]:
        """Bring the partitions back; a log that does not answer is asked again for a while."""
        self.ready = False
        started = time.monotonic()
        for left in reversed(range(RESTORE_TRIES)):
            try:
                positions = await self.engine.restore(numbers, generation, starts)
                break
            except TopicGone as gone:
                raise explained(gone, self.engine.group) from gone
            except LogError as error:
                if not left:
                    raise
                logger.warning("restore put off: %s", error)
                await asyncio.sleep(RESTORE_WAIT_S)
        for restored in self.engine.restored:
            logger.info(
                "partition %d restored%s: %d changelog records, %.2f s, position %s",
                restored.partition.number,
                " into a private directory" if restored.private else "",
                restored.changelog_records,
                restored.seconds,
                {feed.tp.topic: feed.position for feed in restored.partition.feeds.values()},
            )
        self.ready = True
        self._note_pause(started, time.monotonic())
        return positions

    def _note_pause(self, restoring: float, ready: float) -> None:
        if self._paused_at is not None and self._released_at is not None:
            flushed, joined = self._released_at - self._paused_at, restoring - self._released_at
            self.pauses.append(Pause(round(flushed, 3), round(joined, 3), round(ready - restoring, 3)))
        self._paused_at = self._released_at = None

    def pausing(self) -> None:
        """Hear that a rebalance has begun: delivery stands still until partitions are restored."""
        self._paused_at = time.monotonic()

    async def flush(self) -> dict[TP, int]:
        """Make what was applied durable; returns what may be committed, and is not."""
        try:
            return await self.engine.flush()
        except TopicGone as gone:
            raise explained(gone, self.engine.group) from gone

    def positions(self) -> dict[TP, int]:
        """Where each source partition goes on."""
        return self.engine.positions()

    def committed(self, offsets: Mapping[TP, int]) -> None:
        """Hear what the group has committed."""
        self.engine.committed(offsets)

    async def release(self) -> None:
        """Let all partitions go."""
        self.ready = False
        await self.engine.release()
        self._released_at = time.monotonic()

    def check_committed(self, offsets: Mapping[TP, int | None]) -> None:
        """Hear what the group had committed; refuses to run over an offset reset (tables.engine)."""
        self.engine.check_committed(offsets)

    async def take(self, app: "BatchApp", batch: "Batch") -> None:
        """Apply a delivered batch; where delivery skipped records or a batch broke the state, go back."""
        consumer = cast("Consumer", app.consumer)
        try:
            self.engine.apply(batch.tp, batch, batch.base, batch.generation)
        except Gap as gap:
            logger.info("%s", gap)
            await consumer.read_on_from({gap.tp: gap.position})
        except MillraceError:
            raise
        except Exception:
            logger.exception("batch %s ending at %d failed; trying event by event", batch.tp, batch[-1].offset)
            await consumer.read_on_from(await self.engine.mend(batch.tp, batch[-1].offset))
