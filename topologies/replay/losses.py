"""What of the tables a replay from earliest would not bring back, because retention has taken the events.

A log that begins later than the tables' history is no loss in itself: tables let go of old windows, too. What counts is
whether a cell that is kept holds events from before the log's first offset, which each cell knows (its first offset).
"""

from collections.abc import Mapping

import msgspec

from streams.log import TP, Log
from tables.accumulators import first_of, stamp_of
from tables.progress import Progress
from tables.table import Group


class Loss(msgspec.Struct, frozen=True):
    """One source partition: its log begins at `first`, the tables' history at `since`.

    `cells` of the `kept` ones hold events from before; both are None where the state cannot say (it is lost itself).
    """

    topic: str
    partition: int
    since: int
    first: int
    cells: int | None = None
    kept: int | None = None

    @property
    def harmless(self) -> bool:
        """Whether nothing that the tables hold is concerned."""
        return self.cells == 0


async def find_losses(
    group: Group, log: Log, firsts: Mapping[TP, int], progress: Mapping[TP, Progress], present: set[str]
) -> list[Loss]:
    """The source partitions whose log begins later than what their tables were made of; `present`: topics there are.

    Reads the changelogs of those partitions whole. Raises LogError.
    """
    losses: list[Loss] = []
    if not present.intersection([group.progress.name, *(group.changelog(table).name for table in group.tables)]):
        return losses  # there are no tables yet
    for tp, first in firsts.items():
        known = progress.get(tp)
        since = min([at for name, at in known.since.items() if "." not in name], default=0) if known else 0
        if first <= since:
            continue
        loss = Loss(tp.topic, tp.partition, since, first)
        changelogs = [TP(group.changelog(t).name, tp.partition) for t in group.source(tp.topic).tables]
        if known is not None and all(changelog.topic in present for changelog in changelogs):
            counts = [await _cells_before(log, changelog, first) for changelog in changelogs]
            loss = msgspec.structs.replace(loss, cells=sum(c for c, _ in counts), kept=sum(k for _, k in counts))
        losses.append(loss)
    return losses


async def _cells_before(log: Log, changelog: TP, first: int) -> tuple[int, int]:
    starts, ends = await log.start_offsets([changelog]), await log.end_offsets([changelog])
    newest: dict[bytes, tuple[bytes, int]] = {}
    async for _, records in log.read({changelog: (starts[changelog], ends[changelog])}):
        for record in records:
            if record.key is None:
                continue
            if record.value is None:
                newest.pop(record.key, None)
            elif record.key not in newest or stamp_of(record.value) >= newest[record.key][0]:
                newest[record.key] = (stamp_of(record.value), first_of(record.value))
    return sum(begun < first for _, begun in newest.values()), len(newest)
