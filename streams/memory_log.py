"""A log in memory, for the test driver: no broker, no network, no clock.

It keeps what the engine's guarantees lean on: offsets, order within a partition, tombstones, compaction that keeps a
key's last record (never the one with the highest stamp), and writers that interleave. It does not simulate groups,
replication, retention by time, or a broker that fails, except for `fail_next_append`, which tears a flush.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from streams.log import TP, Entry, Headers, LogError, Record, Span

_offset = attrgetter("offset")


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A record as the log holds it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass
class MemoryLog:
    """Partitions as lists. `now_ms` stamps appended records and is moved by hand."""

    now_ms: int = 0
    read_batch: int = 500
    _records: dict[TP, list[MemoryRecord]] = field(default_factory=lambda: defaultdict(list))
    _ends: dict[TP, int] = field(default_factory=lambda: defaultdict(int))
    _appends_left: int | None = None

    def put(self, tp: TP, entry: Entry, timestamp_ms: int | None = None) -> int:
        """Append one record at once and return its offset."""
        offset = self._ends[tp]
        at = self.now_ms if timestamp_ms is None else timestamp_ms
        self._records[tp].append(MemoryRecord(offset, at, entry.key, entry.value, entry.headers))
        self._ends[tp] = offset + 1
        return offset

    def records(self, tp: TP, start: int = 0, end: int | None = None) -> list[MemoryRecord]:
        """The records of `[start, end)` that compaction has left."""
        held = self._records[tp]
        first = bisect_left(held, start, key=_offset)
        return held[first:] if end is None else held[first : bisect_left(held, end, key=_offset)]

    def topics(self) -> dict[str, list[int]]:
        """Every topic that holds a record, with its partitions."""
        held: dict[str, list[int]] = defaultdict(list)
        for tp in sorted(self._records):
            held[tp.topic].append(tp.partition)
        return dict(held)

    def compact(self, topic: str) -> None:
        """Keep only the last record of each key, as Kafka's cleaner does, and drop tombstones."""
        for tp in [tp for tp in self._records if tp.topic == topic]:
            last = {r.key: r.offset for r in self._records[tp]}
            kept = [r for r in self._records[tp] if r.value is not None and last[r.key] == r.offset]
            self._records[tp] = kept

    def fail_append_after(self, entries: int) -> None:
        """Let this many more entries through, then raise `LogError` once: a flush torn in the middle."""
        self._appends_left = entries

    def heal(self) -> None:
        """Take back a failure that was asked for and has not come yet."""
        self._appends_left = None

    def forget(self, topic: str) -> None:
        """Delete a topic's records, as retention does; offsets go on."""
        for tp in [tp for tp in self._records if tp.topic == topic]:
            self._records[tp] = []

    def delete(self, topic: str) -> None:
        """Delete a topic; whoever writes to it next makes it anew, from offset 0."""
        for held in (self._records, self._ends):
            for tp in [tp for tp in held if tp.topic == topic]:
                del held[tp]

    async def start_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Always 0: nothing is deleted by age here."""
        return dict.fromkeys(tps, 0)

    async def end_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """The offsets that the next records will get."""
        return {tp: self._ends[tp] for tp in tps}

    async def read(self, spans: Mapping[TP, tuple[int, int]]) -> AsyncIterator[tuple[TP, Sequence[Record]]]:
        """Yield the spans' records, partition after partition."""
        for tp, (start, end) in spans.items():
            records = self.records(tp, start, end)
            for i in range(0, len(records), self.read_batch):
                yield tp, records[i : i + self.read_batch]

    async def append(self, appends: Mapping[TP, Sequence[Entry]]) -> dict[TP, list[Span]]:
        """Append all, or raise part of the way where a test asked for it."""
        spans: dict[TP, list[Span]] = {}
        for tp, entries in appends.items():
            base = self._ends[tp]
            for entry in entries:
                self._take_one()
                self.put(tp, entry)
            spans[tp] = [Span(base, len(entries))] if entries else []
        return spans

    def _take_one(self) -> None:
        if self._appends_left is None:
            return
        if self._appends_left == 0:
            self._appends_left = None
            raise LogError("the log failed as the test asked")
        self._appends_left -= 1
