"""A view server's merged copy of a group's tables, kept from the changelogs, which are the topics of partials.

Partials are stored as they come, by (slice, key, source partition); of two records of one partial the higher stamp
wins, so repeats, reordering and a zombie's late writes are harmless. Merging happens at read time, and merged slices
that were asked for stay in memory until one of their partials changes.

Store layout: a column family a table, key = changelog key + source partition u16, value = changelog value. Meta:
`next:<topic>:<partition>` the offset to read on from, `progress:<topic>:<partition>` the source's newest progress.
Offsets are part of the same WriteBatch as the data, so a restart reads exactly the tail.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams.log import TP, Record
from tables import progress as progress_records
from tables.accumulators import decode_key, encode_key, stamp_of
from tables.progress import Progress
from tables.reading import Cell, Reading, merge_cells, newest_by_key
from tables.store import Change, Store
from tables.table import Group, Table

# Slices of one table that stay merged in memory: two days of minutes.
SLICES_KEPT = 2_880
PARTITION_BYTES = 2


@dataclass
class Slice:
    """One slice of a table in memory: cells by key and source partition, and what was merged of them."""

    cells: dict[str, dict[int, Cell]]
    merged: dict[str, Reading]


class ReadModel:
    """The tables of a group, merged over all source partitions. One writer (`apply`), any number of readers."""

    def __init__(self, group: Group, directory: Path) -> None:
        """Open or create the local copy. Raises StoreLocked, StoreDamaged."""
        self.group = group
        self.tables: dict[str, Table] = {table.name: table for table in group.tables}
        self.store = Store(Path(directory), list(self.tables))
        self.progress: dict[TP, Progress] = {}
        self.records = 0
        self._table_of = {group.changelog(table).name: table for table in group.tables}
        self._slices: dict[str, OrderedDict[int, Slice]] = defaultdict(OrderedDict)
        self._load_progress()

    def _load_progress(self) -> None:
        for source in self.group.sources:
            for number in range(source.topic.partitions):
                tp = TP(source.topic.name, number)
                raw = self.store.meta(f"progress:{tp.topic}:{tp.partition}")
                if raw is not None:
                    self.progress[tp] = progress_records.decode(raw)

    def close(self) -> None:
        """Close the local copy."""
        self.store.close()

    def positions(self) -> dict[TP, int]:
        """Where to read each topic's partition on from: the changelogs and the progress topic."""
        tps = [TP(self.group.progress.name, p) for p in range(self.group.progress.partitions)]
        for table in self.group.tables:
            topic = self.group.changelog(table)
            tps += [TP(topic.name, p) for p in range(topic.partitions)]
        return {tp: int(self.store.meta(f"next:{tp.topic}:{tp.partition}") or 0) for tp in tps}

    def apply(self, tp: TP, records: Sequence[Record]) -> set[tuple[str, int, str]]:
        """Take consecutive records of a changelog or of the progress topic.

        Returns what changed: (table, slice start, key).
        """
        if not records:
            return set()
        self.records += len(records)
        change = self.store.change()
        table = self._table_of.get(tp.topic)
        changed = self._apply_partials(change, table, tp, records) if table else self._apply_progress(change, records)
        change.meta(f"next:{tp.topic}:{tp.partition}", str(records[-1].offset + 1).encode())
        change.write()
        return changed

    def _apply_partials(
        self, change: Change, table: Table, tp: TP, records: Sequence[Record]
    ) -> set[tuple[str, int, str]]:
        suffix = tp.partition.to_bytes(PARTITION_BYTES, "big")
        horizon = encode_key(self.horizon(table, tp.partition), "")
        best = {key: raw for key, raw in newest_by_key(records).items() if key >= horizon}
        gone = [r.key for r in records if r.key is not None and r.value is None and r.key not in best]
        keys = list(best)
        stored = self.store.get_many(table.name, [key + suffix for key in keys])
        changed: set[tuple[str, int, str]] = set()
        puts = []
        for key, old in zip(keys, stored, strict=True):
            raw = best[key]
            if old is None or stamp_of(raw) > stamp_of(old):
                puts.append((key + suffix, raw))
                changed.add((table.name, *self._remember(table, key, tp.partition, raw)))
        change.put_all(table.name, puts)
        change.delete_all(table.name, [key + suffix for key in gone])
        for key in gone:
            changed.add((table.name, *self._forget(table, key, tp.partition)))
        return changed

    def _remember(self, table: Table, key: bytes, partition: int, raw: bytes) -> tuple[int, str]:
        window, name = decode_key(key)
        held = self._slices[table.name].get(window)
        if held is not None:
            held.cells.setdefault(name, {})[partition] = table.row.decode(raw)[1]
            held.merged.pop(name, None)
        return window, name

    def _forget(self, table: Table, key: bytes, partition: int) -> tuple[int, str]:
        window, name = decode_key(key)
        held = self._slices[table.name].get(window)
        if held is not None:
            held.merged.pop(name, None)
            cells = held.cells.get(name, {})
            cells.pop(partition, None)
            if not cells:
                held.cells.pop(name, None)
        return window, name

    def _apply_progress(self, change: Change, records: Sequence[Record]) -> set[tuple[str, int, str]]:
        for record in records:
            if record.value is None:
                continue
            progress = progress_records.decode(record.value)
            tp = TP(progress.topic, progress.partition)
            known = self.progress.get(tp)
            if known is None or progress.order >= known.order:
                self.progress[tp] = progress
                change.meta(f"progress:{tp.topic}:{tp.partition}", record.value)
        return set()

    def horizon(self, table: Table, partition: int) -> int:
        """Slices of this partition that start before this are expired (ms)."""
        source = self.group.source_of(table.name)
        progress = self.progress.get(TP(source.topic.name, partition))
        if progress is None:
            return 0
        edge = progress.watermark - table.retention_ms
        return max(0, edge - edge % source.time.slice_ms)

    def slice(self, table: str, start: int) -> Slice:
        """One slice of a table, by its start in ms."""
        slices = self._slices[table]
        held = slices.get(start)
        if held is None:
            held = slices[start] = Slice(self._read_slice(self.tables[table], start), {})
            if len(slices) > SLICES_KEPT:
                slices.popitem(last=False)
        else:
            slices.move_to_end(start)
        return held

    def _read_slice(self, table: Table, start: int) -> dict[str, dict[int, Cell]]:
        cells: dict[str, dict[int, Cell]] = {}
        for key, raw in self.store.scan(table.name, encode_key(start, ""), encode_key(start + 1, "")):
            name = decode_key(key[:-PARTITION_BYTES])[1]
            partition = int.from_bytes(key[-PARTITION_BYTES:], "big")
            cells.setdefault(name, {})[partition] = table.row.decode(raw)[1]
        return cells

    def reading(self, table: str, start: int, key: str) -> Reading | None:
        """The merged result of one slice and key, with the partials that it comes from; None if there is none."""
        held = self.slice(table, start)
        found = held.merged.get(key)
        if found is None and key in held.cells:
            found = held.merged[key] = merge_cells(self.tables[table], held.cells[key])
        return found

    def cells_of(self, table: str, starts: Iterable[int], key: str) -> Iterator[Cell]:
        """Every partial of a key in these slices."""
        for start in starts:
            yield from self.slice(table, start).cells.get(key, {}).values()

    def keys(self, table: str, starts: Iterable[int]) -> set[str]:
        """All keys that occur in these slices."""
        found: set[str] = set()
        for start in starts:
            found.update(self.slice(table, start).cells)
        return found

    def merged(self, table: str, starts: Sequence[int], key: str) -> dict[str, Any] | None:
        """The results of a key over several slices (a window), merged; None if nothing is there."""
        if len(starts) == 1:
            reading = self.reading(table, starts[0], key)
            return reading.results if reading is not None else None
        cells = list(self.cells_of(table, starts, key))
        row = self.tables[table].row
        return row.results(row.merge(cells)) if cells else None

    def bounds(self, table: str) -> tuple[int, int] | None:
        """The first and last slice start that is stored; None if the table is empty."""
        first = next(self.store.scan(table, b"", b"\xff" * 8), None)
        last = self.store.newest_key(table)
        if first is None or last is None:
            return None
        return decode_key(first[0][:-PARTITION_BYTES])[0], decode_key(last[:-PARTITION_BYTES])[0]

    def watermark(self, topic: str) -> int | None:
        """The lowest watermark (ms) of a source's partitions that have had events; None before the first."""
        marks = [p.watermark for tp, p in self.progress.items() if tp.topic == topic and p.watermark >= 0]
        return min(marks) if marks else None

    def covered(self, topic: str) -> dict[int, int]:
        """For each source partition, the offset before which everything is contained."""
        return {tp.partition: p.position for tp, p in self.progress.items() if tp.topic == topic}
