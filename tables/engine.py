"""All partitions of a group that one worker owns: restore, apply, flush, release.

The engine knows nothing of Faust or of consumer groups. Delivery (`streams.delivery`) or the test driver hand it
records and ask it for positions:

- `restore(numbers)` after an assignment: drops everything held and brings these partitions back.
- `apply(tp, records, base)` for each delivered batch. Raises `Gap` when delivery must go back.
- `flush()` before each commit; what it returns may be committed, and `committed` hears what was.
- `release()` at a revoke and at the end: closes every store and forgets every cache, those of partitions that come
  back included: one that was lost and regained between two assignments is never reported as revoked, and its stale
  cache would outrank the truth.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from streams.errors import MillraceError
from streams.log import TP, Entry, Log, LogError, Record
from tables.finals import provisional
from tables.flush import flush as flush_partition
from tables.partition import Feed, Partition
from tables.points import reached
from tables.recovery import LOCK_WAIT_S, Restored, restore
from tables.table import Group

logger = logging.getLogger(__name__)

LOOK_FOR_FOREIGN_EVERY_S = 60.0
# How long a source partition may be quiet before the others' closed slices go out as provisional.
IDLE_S = 30.0


class CommittedBehind(MillraceError):
    """An operator's offset reset that the tables know nothing of."""

    def __init__(self, group: str, tp: TP, committed: int, position: int) -> None:
        """Say where the group was set to, and both ways out."""
        super().__init__(
            f"group {group} was set to {committed} in {tp.topic}[{tp.partition}], but its tables contain everything "
            f"before {position}, which is not applied twice: build them anew with `millrace replay <topology> "
            f"--from ...`, or set the group back to {position}"
        )


class Engine:
    """The state of one worker in one group."""

    def __init__(
        self,
        group: Group,
        directory: Path,
        log: Log,
        *,
        name: str = "w0",
        lock_wait_s: float = LOCK_WAIT_S,
        topic_ids: Callable[[], Mapping[str, str]] = dict,
        monotonic: Callable[[], float] = time.monotonic,
        together: Callable[..., Awaitable[Any]] = asyncio.gather,
    ) -> None:
        """Nothing is opened before `restore`. `together` runs the partitions' flushes, at once or in turn."""
        self.group = group
        self.directory = directory
        self.log = log
        self.name = name
        self.lock_wait_s = lock_wait_s
        self.partitions: dict[int, Partition] = {}
        self.restored: list[Restored] = []
        self.generation = 0
        self._topic_ids = topic_ids
        self._monotonic = monotonic
        self._together = together
        self._looked_at = monotonic()
        self._careful: dict[TP, int] = {}
        self._restoring = asyncio.Lock()
        self._releases = 0
        self._marks: dict[TP, tuple[dict[str, int], float]] = {}

    @property
    def topics(self) -> frozenset[str]:
        """The source topics that this engine takes."""
        return frozenset(source.topic.name for source in self.group.sources)

    async def restore(
        self, numbers: Sequence[int], generation: int = 0, starts: Mapping[TP, int | None] | None = None
    ) -> dict[TP, int]:
        """Hold exactly these partitions, complete as of their newest progress; returns where to read on from.

        `starts` says where sources go on that have no progress yet. Holds nothing, and returns nothing, if
        `release` or another `restore` was called meanwhile.
        """
        await self.release()
        releases = self._releases
        async with self._restoring:  # one after the other: they open the same stores
            if releases == self._releases:
                await self._restore(numbers, generation, starts)
            if releases != self._releases:
                await self._let_go()
        return self.positions()

    async def _restore(self, numbers: Sequence[int], generation: int, starts: Mapping[TP, int | None] | None) -> None:
        self.generation = generation
        self.restored = await restore(
            self.group,
            sorted(numbers),
            self.directory,
            self.log,
            generation=generation,
            topic_ids=self._topic_ids(),
            private_suffix=self.name,
            lock_wait_s=self.lock_wait_s,
            starts=starts,
        )
        self.partitions = {r.partition.number: r.partition for r in self.restored}
        for partition in self.partitions.values():
            for feed in partition.feeds.values():
                feed.careful_until = self._careful.get(feed.tp, -1)

    def apply(self, tp: TP, records: Sequence[Record], base: int | None, generation: int) -> int:
        """Apply a delivered batch; returns how many records were new.

        A batch of another generation, or of a partition that is not held, is dropped. Raises `Gap`,
        `TooMuchPoison`, and whatever breaks an accumulator (then `mend` before anything else).
        """
        partition = self.partitions.get(tp.partition)
        if partition is None or generation != self.generation or partition.broken or not records:
            return 0
        return partition.apply(tp.topic, records, base)

    async def mend(self, tp: TP, last_offset: int) -> dict[TP, int]:
        """After a batch broke an accumulator: back to what is durable, and event by event up to `last_offset`."""
        if last_offset <= self._careful.get(tp, -1):
            raise MillraceError(
                f"{tp.topic}[{tp.partition}] fails again before offset {last_offset + 1} even event by event: stopping"
            )
        self._careful[tp] = last_offset
        return await self.restore(list(self.partitions), self.generation)

    async def flush(self) -> dict[TP, int]:
        """Flush every partition that changed; returns the positions that may be committed, and are not.

        A log that cannot be written now is not an error here: it is logged, and tried again with the next flush.
        """
        await self._look_for_foreign()
        await self._look_for_idle()
        partitions = list(self.partitions.values())
        await self._together(*(self._flush(partition) for partition in partitions))
        reached("before-commit")
        done: dict[TP, int] = {}
        for partition in partitions:
            if self.partitions.get(partition.number) is partition:
                done.update(uncommitted(partition))
        return done

    async def _flush(self, partition: Partition) -> None:
        try:
            await flush_partition(partition)
        except LogError as error:
            logger.warning("flush of partition %d put off: %s", partition.number, error)

    async def _look_for_foreign(self) -> None:
        """Once a minute compare every changelog's end with our own last offset: a zombie may write while we idle."""
        now = self._monotonic()
        if now - self._looked_at < LOOK_FOR_FOREIGN_EVERY_S:
            return
        self._looked_at = now
        try:
            await look_for_foreign(list(self.partitions.values()), self.log)
        except LogError as error:
            logger.warning("looking for foreign records put off: %s", error)

    async def _look_for_idle(self) -> None:
        """Send provisional results of slices that a quiet source partition keeps open."""
        now = self._monotonic()
        for partition in self.partitions.values():
            for feed in partition.feeds.values():
                if feed.source.finals_of is None:
                    continue
                marks, since = self._marks.get(feed.tp, ({}, now))
                if marks != feed.marks:
                    self._marks[feed.tp] = (dict(feed.marks), now)
                elif now - since >= IDLE_S:
                    self._marks[feed.tp] = (marks, math.inf)
                    await self._send_provisional(partition, feed)

    async def _send_provisional(self, partition: Partition, feed: Feed) -> None:
        appends: dict[TP, list[Entry]] = {}
        for tp, entry in provisional(partition, feed):
            appends.setdefault(tp, []).append(entry)
        try:
            async with partition.lock:
                if appends and not partition.broken:
                    await self.log.append(appends)
        except LogError as error:
            logger.warning("provisional results put off: %s", error)

    def committed(self, offsets: Mapping[TP, int]) -> None:
        """Note positions that the group has committed."""
        for tp, offset in offsets.items():
            partition = self.partitions.get(tp.partition)
            if partition is not None and tp.topic in partition.feeds:
                partition.feeds[tp.topic].committed = offset

    def check_committed(self, offsets: Mapping[TP, int | None]) -> None:
        """Hear what the group had committed when the partitions came; the next flush says it.

        Raises `CommittedBehind` over an offset reset that moved the group behind or ahead of what the tables contain.
        A crash before a commit leaves what had been committed before it, or None: neither is behind.
        """
        for feed in [feed for partition in self.partitions.values() for feed in partition.feeds.values()]:
            durable, at = feed.durable, offsets.get(feed.tp)
            if durable is not None and at is not None and not durable.committed <= at <= durable.position:
                raise CommittedBehind(self.group.name, feed.tp, at, durable.position)
        self.committed({tp: -1 if at is None else at for tp, at in offsets.items()})

    def positions(self) -> dict[TP, int]:
        """Where each source partition goes on; those that start anew are left out."""
        feeds = [feed for p in self.partitions.values() for feed in p.feeds.values()]
        return {feed.tp: feed.position for feed in feeds if feed.position is not None}

    async def release(self) -> None:
        """Close all stores and forget all caches. What was not flushed is applied again by whoever owns it next."""
        self._releases += 1
        await self._let_go()

    async def _let_go(self) -> None:
        if self.partitions:
            reached("handing-over")
        partitions, self.partitions = self.partitions, {}
        for partition in partitions.values():
            async with partition.lock:
                partition.broken = True
                partition.store.close()


def uncommitted(partition: Partition) -> dict[TP, int]:
    """The positions that a partition's newest flush covers, where the group has not committed them."""
    flushed = [(feed, feed.durable.position) for feed in partition.feeds.values() if feed.durable is not None]
    return {feed.tp: position for feed, position in flushed if position > feed.committed}


async def look_for_foreign(partitions: Sequence[Partition], log: Log) -> None:
    """Mark what others have appended to our changelogs, so that the next flush settles it."""
    ours = {
        TP(p.group.changelog(cache.table).name, p.number): (p, cache.table.name)
        for p in partitions
        for feed in p.feeds.values()
        for cache in feed.caches
    }
    before = {tp: partition.ends[name] for tp, (partition, name) in ours.items()}
    for tp, end in (await log.end_offsets(ours)).items():
        partition, name = ours[tp]
        # Our own flush may have appended in between; then its own check of the acknowledgements has looked already.
        if end > before[tp] == partition.ends[name] and not partition.lock.locked():
            start, _ = partition.gaps.get(name, (before[tp], end))
            partition.gaps[name] = (start, end)
