"""A view server's merged copy of a group's tables, kept from the changelogs, the topics of partials.

Partials are stored as they come, by (slice, key, source partition); of two records of one partial the higher
stamp wins, so repeats, reordering and a zombie's late writes are harmless. Merging happens at read time, and
what was asked for stays merged in memory until one of its partials changes (`tables.rollup`).

A progress record counts only when the changelogs have been read up to the ends that it names: ends of several
topics are not read atomically, and what is said to be covered must be in the tables.

Store layout: a column family a table, key = changelog key + source partition u16, value = changelog value.
Meta: `next:<topic>:<partition>` the offset to read on from, `progress:<topic>:<partition>` the source's
newest progress that counts, `announced:...` the newest one read, `topic-id:<topic>` whose copy this is.
Offsets are part of the same WriteBatch as the data, so a restart reads exactly the tail.

*Other aggregates* (tables.layout). Tables that grew at their end are read on in place, by a server with the former
row too. A copy of what else the tables were once begins anew; what is written otherwise now is refused.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from streams.intake import NO_WATERMARK
from streams.log import TP, Record
from tables import progress as progress_records
from tables.accumulators import decode_key, encode_key, stamp_of
from tables.layout import Fit, fit, kept, refusal
from tables.progress import Progress
from tables.reading import Reading, merge_cells, newest_by_key
from tables.renewal import Renewed
from tables.rollup import Partials, Results, Rollup
from tables.store import Change, Store, wipe
from tables.table import Group, Source, Table
from tables.windows import Window

PARTITION_BYTES = 2
# Progress that waits for its changelogs while a backlog is read; of more the oldest need not be known.
ANNOUNCED_KEPT = 1_000

Changed = set[tuple[str, int, str]]


class ReadModel:
    """The tables of a group, merged over all source partitions. One writer (`apply`), many readers.

    `moved` is another number whenever `progress` has changed.
    """

    def __init__(self, group: Group, directory: Path) -> None:
        """Open or create the local copy. Raises StoreLocked, StoreDamaged."""
        self.group = group
        self.tables: dict[str, Table] = {table.name: table for table in group.tables}
        self.directory = Path(directory)
        self.records = 0
        self.moved = 0
        self._table_of = {group.changelog(table).name: table for table in group.tables}
        # Known also after a reset: else progress of before, which is read again, would make it begin anew for ever.
        self._renewed: dict[TP, int] = {}
        self._open()

    def _open(self) -> None:
        self.store = Store(self.directory, list(self.tables))
        self.moved += 1
        self._bounds: dict[str, Window] = {}
        self._closed_before: dict[str, int] = {}
        self.progress: dict[TP, Progress] = {}
        self._announced: dict[TP, deque[Progress]] = defaultdict(lambda: deque(maxlen=ANNOUNCED_KEPT))
        self._next = {tp: int(self.store.meta(f"next:{tp.topic}:{tp.partition}") or 0) for tp in self._tps()}
        self._rollups = {table.name: self._rollup(table) for table in self.group.tables}
        for source in self.group.sources:
            for tp in partitions_of(source):
                self._load_progress(tp)
        written = [*self.progress.values(), *(p for waiting in self._announced.values() for p in waiting)]
        if not all(self._fits(progress) for progress in written):
            self.reset()  # a copy of what these tables were once
            return
        for number in range(self.group.progress.partitions):
            self._settle(number)

    def _fits(self, progress: Progress) -> bool:
        return all(self._fit(name, progress) is not Fit.OTHER for name in progress.schemas)

    def _fit(self, name: str, progress: Progress) -> Fit:
        table = self.tables.get(name)
        if table is None:
            return Fit.SAME  # nobody's to read here
        now = table.row.layout
        return fit(now, kept(now, progress.schemas[name], progress.layouts.get(name)))

    def _check_fit(self, progress: Progress) -> None:
        for name in progress.schemas:
            if self._fit(name, progress) is Fit.OTHER:
                now = self.tables[name].row.layout
                layout = kept(now, progress.schemas[name], progress.layouts.get(name))
                raise refusal(name, self.group.name, now, layout)

    def _rollup(self, table: Table) -> Rollup:
        partials = Partials(partial(self._values_of_slice, table), partial(self._values_of_key, table))
        return Rollup(table, self.slice_ms(table.name), partials)

    def slice_ms(self, table: str) -> int:
        """How long the table's slices are."""
        return self.group.source_of(table).slice_ms(self.tables[table])

    def _load_progress(self, tp: TP) -> None:
        known = self.store.meta(f"progress:{tp.topic}:{tp.partition}")
        if known is not None:
            self.progress[tp] = progress_records.decode(known)
        announced = self.store.meta(f"announced:{tp.topic}:{tp.partition}")
        if announced is not None:
            self._announced[tp].append(progress_records.decode(announced))

    def close(self) -> None:
        """Close the local copy, and let go of what was merged."""
        self.store.close()
        self._rollups.clear()

    def reset(self) -> None:
        """Begin anew from nothing: the copy is not of these topics."""
        self.store.close()
        wipe(self.directory)
        self._open()

    def bind(self, topic_ids: Mapping[str, str]) -> bool:
        """Hear the ids of the topics that are followed now; returns False if the copy was another one's.

        Topics that were deleted and made anew under the same names have new ids: their copy begins anew.
        """
        stored = {topic: self.store.meta(f"topic-id:{topic}") for topic in topic_ids}
        same = all(known in (None, topic_ids[topic].encode()) for topic, known in stored.items())
        if not same:
            self.reset()
        change = self.store.change()
        for topic, topic_id in topic_ids.items():
            change.meta(f"topic-id:{topic}", topic_id.encode())
        change.write()
        return same

    def _tps(self) -> list[TP]:
        topics = [self.group.progress, *(self.group.changelog(table) for table in self.group.tables)]
        return [TP(topic.name, p) for topic in topics for p in range(topic.partitions)]

    def positions(self) -> dict[TP, int]:
        """Where to read each topic's partition on from: the changelogs and the progress topic."""
        return dict(self._next)

    def apply(self, tp: TP, records: Sequence[Record]) -> Changed:
        """Take consecutive records of a changelog or of the progress topic.

        Returns what changed: (table, slice start, key). Raises StateUnfit where the tables are written with
        aggregates that these are not the beginning of, nor the other way round, and `Renewed` where a replay in place
        has dropped the tables that are held here: the model has to begin anew then.
        """
        if not records:
            return set()
        self.records += len(records)
        change = self.store.change()
        table = self._table_of.get(tp.topic)
        changes = self._apply_partials(change, table, tp, records) if table else {}
        if table is None:
            self._apply_progress(change, records)
        position = records[-1].offset + 1
        change.meta(f"next:{tp.topic}:{tp.partition}", str(position).encode())
        change.write()
        self._next[tp] = position
        changed = self._tell(table, tp.partition, changes) if table else set()
        return changed | self._settle(tp.partition)

    def _apply_partials(
        self, change: Change, table: Table, tp: TP, records: Sequence[Record]
    ) -> dict[bytes, bytes | None]:
        suffix = tp.partition.to_bytes(PARTITION_BYTES, "big")
        horizon = encode_key(self.horizon(table, tp.partition), "")
        best = {key: raw for key, raw in newest_by_key(records).items() if key >= horizon}
        gone = {r.key for r in records if r.key is not None and r.value is None} - best.keys()
        stored = self.store.get_many(table.name, [key + suffix for key in best])
        changes: dict[bytes, bytes | None] = dict.fromkeys(gone)
        for (key, raw), old in zip(best.items(), stored, strict=True):
            if old is None or stamp_of(raw) > stamp_of(old):
                changes[key] = raw
        change.put_all(table.name, [(key + suffix, raw) for key, raw in changes.items() if raw is not None])
        change.delete_all(table.name, [key + suffix for key in gone])
        return changes

    def _apply_progress(self, change: Change, records: Sequence[Record]) -> None:
        for record in records:
            if record.value is None:
                continue
            progress = progress_records.decode(record.value)
            self._check_fit(progress)
            tp = TP(progress.topic, progress.partition)
            if progress.renewed < self._renewed.get(tp, 0):
                continue
            waiting = self._announced[tp]
            newest = waiting[-1] if waiting else self.progress.get(tp)
            if newest is not None and progress.renewed > newest.renewed:
                self._renewed[tp] = progress.renewed
                raise Renewed(TP(self.group.progress.name, progress.partition))
            if newest is None or progress.order >= newest.order:
                waiting.append(progress)
                change.meta(f"announced:{tp.topic}:{tp.partition}", record.value)

    def _settle(self, number: int) -> Changed:
        """Let announced progress of this partition number count, as far as the changelogs have been read."""
        changed: Changed = set()
        for tp, waiting in self._announced.items():
            settled = None
            while waiting and tp.partition == number and self._has_read(waiting[0]):
                settled = waiting.popleft()
            if settled is not None:
                changed |= self._advance(tp, settled)
        return changed

    def _has_read(self, progress: Progress) -> bool:
        ends = ((self.tables.get(name), end) for name, end in progress.ends.items())
        tps = ((TP(self.group.changelog(table).name, progress.partition), end) for table, end in ends if table)
        return all(self._next.get(tp, 0) >= end for tp, end in tps)

    def _advance(self, tp: TP, progress: Progress) -> Changed:
        tables = [t for source in self.group.sources if source.topic.name == tp.topic for t in source.tables]
        before = {table.name: self.horizon(table, tp.partition) for table in tables}
        self.progress[tp] = progress
        self.moved += 1
        self._closed_before.clear()
        change = self.store.change()
        change.meta(f"progress:{tp.topic}:{tp.partition}", progress_records.encode(progress))
        changed: Changed = set()
        for table in tables:
            after = self.horizon(table, tp.partition)
            expired = self._expire(change, table, tp.partition, before[table.name], after)
            changed |= self._tell(table, tp.partition, expired)
        change.write()
        return changed

    def _expire(self, change: Change, table: Table, partition: int, start: int, end: int) -> dict[bytes, bytes | None]:
        """Drop what retention has left behind, which a zombie may have put there before this was known."""
        if end <= start:
            return {}
        suffix = partition.to_bytes(PARTITION_BYTES, "big")
        found = self.store.scan(table.name, encode_key(start, ""), encode_key(end, ""))
        keys = [key for key, _ in found if key.endswith(suffix)]
        change.delete_all(table.name, keys)
        return {key[:-PARTITION_BYTES]: None for key in keys}

    def _tell(self, table: Table, partition: int, changes: Mapping[bytes, bytes | None]) -> Changed:
        """Pass changes on to what is held in memory."""
        cells = {decode_key(key): raw for key, raw in changes.items()}
        known = self._bounds.get(table.name)
        if known and any(raw is None or not known.start_ms <= at < known.end_ms for (at, _), raw in cells.items()):
            del self._bounds[table.name]
        self._rollups[table.name].change(partition, cells)
        return {(table.name, start, key) for start, key in cells}

    def horizon(self, table: Table, partition: int) -> int:
        """Slices of this partition that start before this are expired (ms)."""
        source = self.group.source_of(table.name)
        progress = self.progress.get(TP(source.topic.name, partition))
        if progress is None:
            return 0
        edge = progress.watermark - table.retention_ms
        return max(0, edge - edge % source.slice_ms(table))

    def complete_from(self, table: str) -> int:
        """Slices that start before this (ms) are expired in some partition: what is left is a part."""
        tps = partitions_of(self.group.source_of(table))
        return max(self.horizon(self.tables[table], tp.partition) for tp in tps)

    def closed_before(self, table: str) -> int:
        """Windows that end here (ms) or before are final: no partition takes events for them any more.

        0 while a partition has not had any event.
        """
        if table not in self._closed_before:
            source, declared = self.group.source_of(table), self.tables[table]
            known = [self.progress.get(tp) for tp in partitions_of(source)]
            before = min(source.closed_before(declared, p.watermark) if p is not None else 0 for p in known)
            self._closed_before[table] = before
        return self._closed_before[table]

    def _values_of_key(self, table: Table, start: int, key: str) -> dict[int, bytes]:
        found = self.store.get_many(table.name, self._names(table, start, key))
        return {number: raw for number, raw in enumerate(found) if raw is not None}

    def _names(self, table: Table, start: int, key: str) -> list[bytes]:
        """A cell's keys as stored, by its source partitions."""
        name = encode_key(start, key)
        numbers = range(self.group.source_of(table.name).topic.partitions)
        return [name + number.to_bytes(PARTITION_BYTES, "big") for number in numbers]

    def _values_of_slice(self, table: Table, start: int) -> dict[str, dict[int, bytes]]:
        values: dict[str, dict[int, bytes]] = {}
        for key, raw in self.store.scan(table.name, encode_key(start, ""), encode_key(start + 1, "")):
            number = int.from_bytes(key[-PARTITION_BYTES:], "big")
            values.setdefault(key[8:-PARTITION_BYTES].decode(), {})[number] = raw
        return values

    def partials(self, table: str, start: int, key: str) -> dict[int, list[Any]]:
        """One key's cells of a slice by source partition, as stored."""
        declared = self.tables[table]
        return {number: declared.row.read(raw) for number, raw in self._values_of_key(declared, start, key).items()}

    def stored(self, table: str, start: int) -> Iterator[tuple[str, int, bytes]]:
        """Every cell of a slice as it is stored: its key, its source partition and its bytes."""
        for key, raw in self.store.scan(table, encode_key(start, ""), encode_key(start + 1, "")):
            yield key[8:-PARTITION_BYTES].decode(), int.from_bytes(key[-PARTITION_BYTES:], "big"), raw

    def stored_slice(self, table: str, start: int, end: int) -> int | None:
        """The first slice of `[start, end)` (ms) that has cells; None if none has."""
        first = next(self.store.scan(table, encode_key(start, ""), encode_key(end, "")), None) if start < end else None
        return None if first is None else slice_of(first[0])

    def reading(self, table: str, start: int, key: str) -> Reading | None:
        """The merged result of one slice and key, and the partials it comes from; None if there is none."""
        declared = self.tables[table]
        found = self._values_of_key(declared, start, key)
        cells = {partition: declared.row.read(raw) for partition, raw in found.items()}
        return merge_cells(declared, cells) if cells else None

    def cells(self, table: str, key: str, window: Window) -> list[tuple[int, list[Any]]]:
        """The (slice start, merged states) of one key in a window, oldest first: for what its slices tell together."""
        declared, slice_ms = self.tables[table], self.slice_ms(table)
        stored = self.bounds(table)
        if stored is None:
            return []
        first = max(window.start_ms - window.start_ms % slice_ms, stored.start_ms)
        starts = range(first, min(window.end_ms, stored.end_ms), slice_ms)
        cells: dict[int, list[Any]] = {}
        # asked for at once: a user's day is some hundred cells, most of which are not there
        names = [(start, name) for start in starts for name in self._names(declared, start, key)]
        for (start, _), raw in zip(names, self.store.get_many(table, [name for _, name in names]), strict=True):
            if raw is not None:
                cells.setdefault(start, []).append(declared.row.read(raw))
        return [(start, declared.row.merge(found)) for start, found in cells.items()]

    def results(self, table: str, window: Window) -> dict[str, Results]:
        """The merged results of every key in a window of whole slices. Not to be changed."""
        return self._rollups[table].results(window.start_ms, window.end_ms)

    def result(self, table: str, window: Window, key: str) -> Results | None:
        """The merged results of one key in a window of whole slices; None if nothing is there."""
        return self._rollups[table].result(window.start_ms, window.end_ms, key)

    def keys(self, table: str, window: Window) -> set[str]:
        """All keys that occur in a window of whole slices."""
        return self._rollups[table].keys(window.start_ms, window.end_ms)

    def steps(self, table: str, window: Window) -> Iterator[None]:
        """Do the work of `results` in small steps, none of which holds up an event loop for long."""
        return self._rollups[table].steps(window.start_ms, window.end_ms)

    def merged(self, table: str) -> list[tuple[int, int]]:
        """The stretches `[start, end)` (ms) whose merged results are in memory, least recently read first."""
        return self._rollups[table].held

    def bounds(self, table: str) -> Window | None:
        """From the first slice that is stored to the end of the last one; None if the table is empty."""
        known = self._bounds.get(table)
        if known is None:
            first = next(self.store.scan(table, b"", b"\xff" * 8), None)
            last = self.store.newest_key(table)
            if first is None or last is None:
                return None
            known = self._bounds[table] = Window(slice_of(first[0]), slice_of(last) + self.slice_ms(table))
        return known

    def watermarks(self, topic: str) -> dict[int, int]:
        """The watermark (ms) of each of a source's partitions that has had events."""
        known = ((tp, p.watermark) for tp, p in self.progress.items() if tp.topic == topic)
        return {tp.partition: mark for tp, mark in known if mark != NO_WATERMARK}

    def covered(self, topic: str) -> dict[int, int]:
        """For each source partition, the offset before which everything is contained."""
        return {tp.partition: p.position for tp, p in self.progress.items() if tp.topic == topic}


def partitions_of(source: Source) -> list[TP]:
    """Every partition of a source's topic."""
    return [TP(source.topic.name, number) for number in range(source.topic.partitions)]


def slice_of(stored: bytes) -> int:
    """The slice start (ms) of a key as stored here."""
    return int.from_bytes(stored[:8], "big")
