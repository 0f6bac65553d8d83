"""What two versions of a topology say differently: every cell of every closed window, from their changelogs.

Compared are windows that both versions have closed, and that are whole in both. They are final: neither of them changes
any more, however much comes in meanwhile. A cell is a window and a key of a table; it differs where a column that both
versions keep has other results, or where only one version has it. Columns that promise an error are compared within it
(tables.recount.compared_by). Slices of different lengths are compared over the shortest windows that both can be cut
into.
"""

import asyncio
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.kafka_log import KafkaLog
from streams.topics import missing_topics
from tables.aggregates import Aggregate
from tables.digest import read_up
from tables.read_model import ReadModel
from tables.recount import compared_by
from tables.windows import Window
from topologies.kept_topics import kept_topics
from topologies.recounting import within
from topologies.topology import Topology
from topologies.views.hosting import read_group

PROGRESS_EVERY_S: Final = 0.2
Results = Mapping[str, Any]
Tell = Callable[[int], None]


@dataclass(frozen=True)
class Differing:
    """One cell that two versions do not agree on; None: that version does not have it. `columns` are those at odds."""

    table: str
    start_ms: int
    end_ms: int
    key: str
    columns: tuple[str, ...]
    one: Results | None
    other: Results | None


@dataclass
class Compared:
    """One table: windows that start in `[from_ms, until_ms)`. Pairs are of the one version, then of the other.

    `sums` has every column of whole numbers, over all cells. `only` names columns that one version has alone.
    """

    table: str
    from_ms: int
    until_ms: int
    windows: int = 0
    cells: tuple[int, int] = (0, 0)
    differing: int = 0
    sums: dict[str, tuple[int, int]] = field(default_factory=dict)
    only: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


@dataclass
class Comparison:
    """Of all tables that both versions have; those that one has alone are named. `examples` are differing cells."""

    tables: list[Compared] = field(default_factory=list)
    only: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    examples: list[Differing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def differing(self) -> int:
        """How many cells differ."""
        return sum(table.differing for table in self.tables)

    @property
    def same(self) -> bool:
        """Whether both versions say the same, as far as it can be asked."""
        return not (self.differing or any(self.only) or any(any(table.only) for table in self.tables))


def compare_models(
    one: ReadModel,
    other: ReadModel,
    *,
    tables: Sequence[str] | None = None,
    span: tuple[int | None, int | None] = (None, None),
    examples: int = 20,
) -> Comparison:
    """Compare what two read models say of windows that start in `span` (ms). Raises MillraceError for no such table."""
    names = list(dict.fromkeys([*one.tables, *other.tables]))
    for name in tables or ():
        if name not in names:
            raise MillraceError(f"there is no table {name!r}: there are {', '.join(names)}")
    wanted = [name for name in names if not tables or name in tables]
    found = Comparison(
        only=(
            tuple(name for name in wanted if name not in other.tables),
            tuple(name for name in wanted if name not in one.tables),
        )
    )
    for name in wanted:
        if name in one.tables and name in other.tables:
            found.tables.append(_compare_table(one, other, name, span, found, examples))
    return found


def _compare_table(
    one: ReadModel,
    other: ReadModel,
    name: str,
    span: tuple[int | None, int | None],
    found: Comparison,
    examples: int,
) -> Compared:
    width = math.lcm(one.slice_ms(name), other.slice_ms(name))
    start, end = _common(one, other, name, span, width)
    columns = one.tables[name].aggregates, other.tables[name].aggregates
    both = {column: aggregate for column, aggregate in columns[0].items() if column in columns[1]}
    table = Compared(
        name,
        start,
        end,
        only=(
            tuple(sorted(columns[0].keys() - columns[1].keys())),
            tuple(sorted(columns[1].keys() - columns[0].keys())),
        ),
    )
    for window in _windows(one, other, name, start, end, width):
        pair = one.results(name, window), other.results(name, window)
        table.windows += 1
        table.cells = table.cells[0] + len(pair[0]), table.cells[1] + len(pair[1])
        for key in sorted(pair[0].keys() | pair[1].keys()):
            cells = pair[0].get(key), pair[1].get(key)
            _add(table.sums, both, cells)
            at_odds = _differing(both, *cells)
            if at_odds:
                table.differing += 1
                if len(found.examples) < examples:
                    found.examples.append(Differing(name, window.start_ms, window.end_ms, key, at_odds, *cells))
    return table


def _common(
    one: ReadModel, other: ReadModel, name: str, span: tuple[int | None, int | None], width: int
) -> tuple[int, int]:
    """Whole windows that both have closed, of those asked for."""
    first = max(one.complete_from(name), other.complete_from(name), span[0] or 0)
    last = min(one.closed_before(name), other.closed_before(name))
    last = last if span[1] is None else min(last, span[1])
    start = -(-first // width) * width
    return start, max(start, last - last % width)


def _windows(one: ReadModel, other: ReadModel, name: str, start: int, end: int, width: int) -> Iterator[Window]:
    """The windows of `[start, end)` that have cells in one of them."""
    at = start
    while at < end:
        stored = [model.stored_slice(name, at, end) for model in (one, other)]
        known = [found for found in stored if found is not None]
        if not known:
            return
        first = min(known)
        at = first - first % width + width
        yield Window(at - width, at)


def _add(sums: dict[str, tuple[int, int]], columns: Mapping[str, Any], cells: tuple[Results | None, ...]) -> None:
    for column in columns:
        values = [cell[column] if cell is not None else 0 for cell in cells]
        if all(type(value) is int for value in values):
            before = sums.get(column, (0, 0))
            sums[column] = before[0] + values[0], before[1] + values[1]


def _differing(columns: Mapping[str, Aggregate[Any]], one: Results | None, other: Results | None) -> tuple[str, ...]:
    if one is None or other is None:
        return tuple(columns) or ("cell",)
    return tuple(name for name, aggregate in columns.items() if not _agree(aggregate, one[name], other[name]))


def _agree(aggregate: Aggregate[Any], one: Any, other: Any) -> bool:
    same: bool = one == other
    return same or (compared_by(aggregate) == "error" and within(one, other))


async def compare_versions(
    one: Topology,
    other: Topology,
    cluster: Cluster,
    *,
    tables: Sequence[str] | None = None,
    span: tuple[int | None, int | None] = (None, None),
    examples: int = 20,
    tell: Tell = lambda records: None,
) -> Comparison:
    """Read both versions as their changelogs are now, into temporary copies, and compare them.

    `tell` hears how many records were read. Raises MillraceError, LogError.
    """
    for topology in (one, other):
        await asyncio.to_thread(_check, cluster, topology)
    log = KafkaLog(cluster, client_id="millrace-diff")
    await log.start()
    with tempfile.TemporaryDirectory(prefix="millrace-diff-") as directory:
        sides = (("one", one), ("other", other))  # which may be the same version
        models = [ReadModel(read_group(topology), Path(directory) / side) for side, topology in sides]
        telling = asyncio.create_task(_tell(models, tell))
        try:
            for model in models:
                await read_up(model, log)
            tell(sum(model.records for model in models))
            found = await asyncio.to_thread(compare_models, *models, tables=tables, span=span, examples=examples)
            found.notes += [*_notes(one, models[0]), *_notes(other, models[1])]
            return found
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling
            for model in models:
                model.close()
            await log.stop()


async def _tell(models: Sequence[ReadModel], tell: Tell) -> None:
    while True:
        tell(sum(model.records for model in models))
        await asyncio.sleep(PROGRESS_EVERY_S)


def _check(cluster: Cluster, topology: Topology) -> None:
    missing = missing_topics(cluster, kept_topics(read_group(topology)))
    if missing:
        raise MillraceError(
            f"version {topology.version} of {topology.family} has no tables here ({min(missing)} is missing): "
            f"`millrace replay list` shows what there is"
        )


def _notes(topology: Topology, model: ReadModel) -> list[str]:
    """What a version has not counted, since its sources had let go of it when it was made."""
    found = []
    for tp, progress in sorted(model.progress.items()):
        since = max((at for name, at in progress.since.items() if "." not in name), default=0)
        if since > 0:
            found.append(f"{topology.version} has counted {tp.topic}[{tp.partition}] from offset {since:,} on only")
    return found
