"""Reading merged results: partials of all source partitions become one number, which can be explained."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.log import Record
from tables.accumulators import EVENTS, FIRST, STAMP, decode_key, stamp_of
from tables.table import Table

Cell = list[Any]


@dataclass(frozen=True)
class Part:
    """What one source partition contributes: `events` of its offsets `first` to `last`, both counted."""

    partition: int
    first: int
    last: int
    events: int


@dataclass(frozen=True)
class Reading:
    """One merged result and the partials that it comes from."""

    results: dict[str, Any]
    parts: tuple[Part, ...]


def part(partition: int, cell: Cell) -> Part:
    """Say what a partial covers."""
    return Part(partition, cell[FIRST], cell[STAMP], cell[EVENTS])


def merge_cells(table: Table, cells: Mapping[int, Cell]) -> Reading:
    """Merge one key's accumulators by source partition."""
    results = table.row.results(table.row.merge(list(cells.values())))
    return Reading(results, tuple(part(p, cell) for p, cell in sorted(cells.items())))


def newest_by_key(records: Iterable[Record]) -> dict[bytes, bytes]:
    """The value with the highest stamp of each key; a tombstone removes what came before it."""
    best: dict[bytes, bytes] = {}
    for record in records:
        if record.key is None:
            continue
        if record.value is None:
            best.pop(record.key, None)
            continue
        known = best.get(record.key)
        if known is None or stamp_of(record.value) >= stamp_of(known):
            best[record.key] = record.value
    return best


def read_cells(table: Table, changelog: Mapping[int, Sequence[Record]]) -> dict[tuple[int, str], Reading]:
    """Every merged result of a table from its whole changelog, by (slice start, key)."""
    cells: dict[tuple[int, str], dict[int, Cell]] = {}
    for partition, records in changelog.items():
        for key, raw in newest_by_key(records).items():
            cells.setdefault(decode_key(key), {})[partition] = table.row.read(raw)
    return {key: merge_cells(table, by_partition) for key, by_partition in sorted(cells.items())}
