"""What of the tables a replay from earliest would not bring back, because retention has taken the events.

A log that begins later than the tables' history is no loss in itself: tables let go of old windows, too. What counts is
whether a cell that is kept holds events from before the log's first offset, which each cell knows (its first offset).

What a source hands on to another topic of the group is counted in the tables of that one, which is dropped as well.
Their cells know that topic's offsets alone. But what is handed on keeps its event's time, and none is more than
`max_ahead_ms` beyond its record's own: a slice that begins later than that after the log's first record holds nothing
from before, any other may.

A source that was made anew (by a replay of the topology that derives it) begins at 0, wherever the former one began.
While it holds as many events as the tables had taken, its own first one among them, it is taken to bring them back;
else any cell may hold more.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from streams.log import TP, Log
from tables.accumulators import decode_key, first_of, stamp_of
from tables.progress import Progress
from tables.rules import EVER
from tables.table import Group, Source, Table

NO_IDS: Final[Mapping[str, str]] = MappingProxyType({})


class Loss(Struct, frozen=True):
    """One source partition: its log begins at `first`, the tables' history at `since`.

    `cells` of the `kept` ones hold events from before; both are None where the state cannot say (it is lost itself).
    With `to` they are those of what is handed on to that topic, and *may* hold some. With `former` the topic was made
    anew, and holds fewer events than the offset up to which the tables had taken the former one, or lacks its first.
    """

    topic: str
    partition: int
    since: int
    first: int
    cells: int | None = None
    kept: int | None = None
    to: str | None = None
    former: int | None = None

    @property
    def harmless(self) -> bool:
        """Whether nothing that the tables hold is concerned."""
        return self.cells == 0


async def find_losses(
    group: Group,
    log: Log,
    firsts: Mapping[TP, int],
    progress: Mapping[TP, Progress],
    present: set[str],
    ids: Mapping[str, str] = NO_IDS,
) -> list[Loss]:
    """The source partitions whose log begins later than what their tables were made of, or was made anew with less.

    `present` are the topics that there are, `ids` those of the sources. Reads the changelogs of the tables concerned
    whole. Raises LogError.
    """
    losses: list[Loss] = []
    if not present.intersection([group.progress.name, *(group.changelog(table).name for table in group.tables)]):
        return losses  # there are no tables yet
    ends, held = await log.end_offsets(firsts), Held(group, log, present)
    for tp, first in firsts.items():
        known = progress.get(tp)
        since = min([at for name, at in known.since.items() if "." not in name], default=0) if known else 0
        anew = known is not None and known.topic_id not in ("", ids.get(tp.topic, known.topic_id))
        former = known.position if known is not None and anew else None
        if first <= since if former is None else first == 0 and former <= ends[tp]:
            continue
        source, loss = group.source(tp.topic), Loss(tp.topic, tp.partition, since, first, former=former)
        receiving = _receiving(group, source)
        if source.tables or not receiving:
            losses.append(loss if known is None else await held.of_tables(loss, source.tables))
        if source.forward is not None and receiving:
            loss = replace(loss, to=source.forward.topic.name)
            losses.append(loss if known is None else await held.of_receiving(loss, receiving, source, ends[tp]))
    return losses


def _receiving(group: Group, source: Source) -> list[Table]:
    """The group's own tables of what the source hands on, also where it is handed on again."""
    sources = {one.topic.name: one for one in group.sources}
    found: list[Table] = []
    while source.forward is not None and (to := sources.pop(source.forward.topic.name, None)) is not None:
        source = to
        found += source.tables
    return found


@dataclass
class Held:
    """What changelogs hold; `slices` is how many cells each slice has, of those that are asked for again."""

    group: Group
    log: Log
    present: set[str]
    slices: dict[TP, Counter[int]] = field(default_factory=dict)

    async def of_tables(self, loss: Loss, tables: Iterable[Table]) -> Loss:
        """The loss with the cells of the partition's own tables; as it is where a changelog is missing."""
        changelogs = [TP(self.group.changelog(table).name, loss.partition) for table in tables]
        if not self._has(changelogs):
            return loss
        before = EVER if loss.former is not None else loss.first
        firsts = [first for changelog in changelogs for _, first in await self._newest(changelog)]
        return replace(loss, cells=sum(first < before for first in firsts), kept=len(firsts))

    async def of_receiving(self, loss: Loss, tables: Iterable[Table], source: Source, end: int) -> Loss:
        """The loss with the cells of what the source is handed on to, in whatever partition; likewise."""
        numbers = range(self.group.progress.partitions)
        changelogs = [TP(self.group.changelog(table).name, number) for table in tables for number in numbers]
        if not self._has(changelogs):
            return loss
        until = EVER if loss.former is not None else await self._latest_before(loss, source, end)
        slices = sum([await self._slices(changelog) for changelog in changelogs], Counter[int]())
        return replace(loss, cells=sum(n for at, n in slices.items() if at <= until), kept=slices.total())

    def _has(self, changelogs: Iterable[TP]) -> bool:
        return all(changelog.topic in self.present for changelog in changelogs)

    async def _latest_before(self, loss: Loss, source: Source, end: int) -> int:
        """No event from before the log's first record is later than this (ms), nor what was handed on of it."""
        first = {TP(loss.topic, loss.partition): (loss.first, min(loss.first + 1, end))}
        times = [record.timestamp async for _, records in self.log.read(first) for record in records]
        return times[0] + source.time.max_ahead_ms if times else EVER

    async def _slices(self, changelog: TP) -> Counter[int]:
        if changelog not in self.slices:
            self.slices[changelog] = Counter(at for at, _ in await self._newest(changelog))
        return self.slices[changelog]

    async def _newest(self, changelog: TP) -> list[tuple[int, int]]:
        """The (slice start, first offset) of every cell."""
        starts, ends = await self.log.start_offsets([changelog]), await self.log.end_offsets([changelog])
        newest: dict[bytes, tuple[bytes, int]] = {}
        async for _, records in self.log.read({changelog: (starts[changelog], ends[changelog])}):
            for record in records:
                if record.key is None:
                    continue
                if record.value is None:
                    newest.pop(record.key, None)
                elif record.key not in newest or stamp_of(record.value) >= newest[record.key][0]:
                    newest[record.key] = (stamp_of(record.value), first_of(record.value))
        return [(decode_key(key)[0], first) for key, (_, first) in newest.items()]
