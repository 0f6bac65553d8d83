"""Whether the tables of a group have come to hold all that was in its sources when somebody began to ask.

A table may be fed by way of other topics of its own group (what is forwarded, partials of closed slices), out of any
partition, by any worker. A progress is written after all that was derived up to it is acknowledged. So once every
source partition has come to the end that it had, what was made of that lies in those topics, whose ends are looked at
anew: as often as there are topics that the group makes of its own sources.
"""

import contextlib
from collections.abc import Mapping

from streams.log import TP, Log
from tables.progress import Progress, newest
from tables.table import Group


class CatchUp:
    """How far the workers of a group are from where its sources ended at the first look."""

    def __init__(self, group: Group) -> None:
        """Ask nobody yet."""
        self._progress = [TP(group.progress.name, number) for number in range(group.progress.partitions)]
        self._sources = [TP(s.topic.name, number) for s in group.sources for number in range(s.topic.partitions)]
        self._rounds = 1 + sum(s.forward is not None or s.finals_of is not None for s in group.sources)
        self._ends: dict[TP, int] = {}
        self._left: dict[TP, tuple[int, int]] = {}
        self._newest: dict[TP, Progress] = {}
        self._read_to: dict[TP, int] = {}

    @property
    def done(self) -> bool:
        """Whether they are there."""
        return not self._rounds

    async def look(self, log: Log, own: Mapping[TP, int]) -> None:
        """See how far they are; `own` are the durable positions of those who ask. Raises LogError."""
        if not own.keys() >= set(self._sources):
            await self._read_progress(log)
        at = {tp: progress.position for tp, progress in self._newest.items()} | dict(own)
        while self._rounds:
            self._ends = self._ends or await log.end_offsets(self._sources)
            left = {tp: (at.get(tp, 0), end) for tp, end in self._ends.items() if at.get(tp, 0) < end}
            before, self._left = self._left, left
            # a log may end in what nobody sees (transaction markers): no position ever comes to its end
            if left and (left != before or await holds_records(log, left)):
                return
            self._rounds -= 1
            self._ends = {}

    async def _read_progress(self, log: Log) -> None:
        starts, ends = await log.start_offsets(self._progress), await log.end_offsets(self._progress)
        spans = {tp: (max(starts[tp], self._read_to.get(tp, 0)), end) for tp, end in ends.items()}
        async for (_, number), records in log.read(spans):
            for topic, progress in newest(records, number).items():
                known = self._newest.get(TP(topic, number))
                if known is None or progress.order > known.order:
                    self._newest[TP(topic, number)] = progress
        self._read_to = ends


async def holds_records(log: Log, spans: Mapping[TP, tuple[int, int]]) -> bool:
    """Whether there is any record in these stretches, not only markers of transactions. Raises LogError."""
    starts = await log.start_offsets(spans)
    there = {tp: (max(start, starts[tp]), end) for tp, (start, end) in spans.items()}
    async with contextlib.aclosing(log.read(there)) as found:  # type: ignore[type-var]  # a generator
        async for _ in found:
            return True
    return False
