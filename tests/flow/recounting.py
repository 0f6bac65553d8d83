"""Counting a driver's tables again from its log, for the tests of recounts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.log import TP, Record
from streams.memory_log import MemoryLog
from tables.read_model import ReadModel
from tables.recount import CannotRecount, Recount, Wanted, as_written, differing, recount
from tables.table import Table
from tables.windows import Window

Cell = list[Any]


@dataclass
class MemoryReader:
    """Reads a log in memory, as far back as `first` says, and notes how many records were read."""

    log: MemoryLog
    first: int = 0
    read_records: int = 0

    def bounds(self, tp: TP) -> tuple[int, int]:
        """From `first` to the end."""
        records = self.log.records(tp)
        return self.first, records[-1].offset + 1 if records else 0

    def offset_at(self, tp: TP, at_ms: int) -> int:
        """As Kafka finds it."""
        found = (record.offset for record in self.log.records(tp) if record.timestamp >= at_ms)
        return next(found, self.bounds(tp)[1])

    def read(self, tp: TP, start: int, end: int) -> Iterator[Sequence[Record]]:
        """In small batches."""
        records = self.log.records(tp, max(start, self.first), end)
        for i in range(0, len(records), 7):
            self.read_records += len(records[i : i + 7])
            yield records[i : i + 7]


def wanted(model: ReadModel, tables: Sequence[str], window: Window, number: int) -> Wanted:
    """Everything of these tables in a window, as far as the model covers it."""
    source = model.group.source_of(tables[0])
    progress = model.progress[TP(source.topic.name, number)]
    chosen = tuple(model.tables[name] for name in tables)
    return Wanted(source, number, chosen, window, progress.position, progress.since)


def mismatches(model: ReadModel, reader: MemoryReader, table: str, start: int) -> Mapping[tuple[str, int], list[str]]:
    """What of a slice is not as counted again, by key and partition. Raises CannotRecount."""
    declared, width = model.tables[table], model.slice_ms(table)
    stored: dict[str, dict[int, Cell]] = {}
    for key, number, raw in model.stored(table, start):
        stored.setdefault(key, {})[number] = declared.row.read(raw)
    found: dict[tuple[str, int], list[str]] = {}
    for number in range(model.group.source_of(table).topic.partitions):
        if TP(model.group.source_of(table).topic.name, number) not in model.progress:
            continue
        again = recount(reader, wanted(model, [table], Window(start, start + width), number))
        found |= {
            (key, number): names
            for key in stored.keys() | again.cells[table].get(start, {}).keys()
            if (names := _differing(declared, stored.get(key, {}).get(number), again, start, key))
        }
    return found


def _differing(table: Table, stored: Cell | None, again: Recount, start: int, key: str) -> list[str]:
    counted = again.cells[table.name].get(start, {}).get(key)
    return differing(table, stored, None if counted is None else as_written(table, counted))


__all__ = ["CannotRecount", "MemoryReader", "mismatches", "wanted"]
