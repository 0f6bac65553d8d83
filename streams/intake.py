"""What of a batch is applied: decode, event time, duplicates, lateness; one `Intake` for each source partition.

Every decision is a function of the partition's records up to it and of nothing else (no wall clock, no batch
bounds), so that a replay from earliest, batches of another size or a restart in between decide alike:

0. A replay of a dead letter that is not put aside here, or was taken back before (`streams.put_aside`), is a
   *duplicate*; else it is decided as follows.
1. A value that does not decode, an event time that cannot be read or lies before 1970, or one more than
   `max_ahead_ms` beyond its record's own Kafka timestamp, is *dead*: it moves nothing. (One event from the year 2999
   would otherwise make every other event late.)
2. An eventId seen before (`streams.dedupe`) is a *duplicate*: dropped, counted, moves nothing. Not so a replay whose
   original no fold could take: it was that original which was seen.
3. An event is *late* if its slice ended and the grace ran out before it: `slice end + grace <= watermark`, with the
   watermark (the highest event time so far) as it was before the event.
4. Everything else is applied, and the watermark is raised to its event time.

Whole batches almost always take the short way: list comprehensions and set operations prove that nothing in the
batch is dead or duplicate, and find what is late, at a third of the cost of asking for each event. What holds a dead
record or a duplicate is halved, until a few records around it are left that go the long way.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from types import MappingProxyType
from typing import Any

from streams.codecs import Undecodable
from streams.dead_letters import is_past_fold
from streams.dedupe import Seen, id_hashes
from streams.events import event_time_ms
from streams.log import Record
from streams.put_aside import PutAside

NO_WATERMARK = -1
NO_REPLAYS: Mapping[int, int] = MappingProxyType({})
# Below this, halving costs more than asking for each event.
FEW = 16


@dataclass(frozen=True)
class EventTime:
    """How a source topic's event time is read, all in ms: slices of `slice_ms`, epoch-aligned."""

    slice_ms: int = 60_000
    grace_ms: int = 60_000
    max_ahead_ms: int = 600_000

    def __post_init__(self) -> None:
        """Raise ValueError where a window could never be right."""
        if self.slice_ms <= 0 or self.grace_ms < 0 or self.max_ahead_ms < 0:
            raise ValueError("slice must be above 0, grace and max_ahead not negative")

    def is_late(self, at_ms: int, watermark: int) -> bool:
        """Whether an event's slice had closed before it came.

        >>> EventTime(60_000, 60_000).is_late(59_999, watermark=119_999)
        False
        >>> EventTime(60_000, 60_000).is_late(59_999, watermark=120_000)
        True
        """
        return at_ms - at_ms % self.slice_ms + self.slice_ms + self.grace_ms <= watermark

    def closed_before(self, watermark: int) -> int:
        """Slices that start before this are closed: no event can change them any more.

        >>> EventTime(60_000, 60_000).closed_before(185_000)
        120000
        """
        edge = watermark - self.grace_ms
        return max(0, edge - edge % self.slice_ms)


@dataclass(slots=True)
class Batch:
    """What a stretch of records came to; the five lists of what is applied run in parallel, in offset order.

    `ats` are the events' times, `windows` the starts of their slices, in ms.
    """

    records: list[Record]
    offsets: list[int]
    windows: list[int]
    ats: list[int]
    events: list[Any]
    dead: list[tuple[Record, str]] = field(default_factory=list)
    late: list[Record] = field(default_factory=list)
    duplicates: int = 0

    def add(self, other: "Batch") -> None:
        """Take over what came after."""
        for own, more in zip(self._lists(), other._lists(), strict=True):
            own += more
        self.duplicates += other.duplicates

    def _lists(self) -> tuple[list[Any], ...]:
        return (self.records, self.offsets, self.windows, self.ats, self.events, self.dead, self.late)

    def keep(self, places: Sequence[int]) -> None:
        """Keep only the applied events at these places of the lists."""
        self.records = [self.records[i] for i in places]
        self.offsets = [self.offsets[i] for i in places]
        self.windows = [self.windows[i] for i in places]
        self.ats = [self.ats[i] for i in places]
        self.events = [self.events[i] for i in places]


TimeOf = Callable[[Any, int], int]


@dataclass
class Intake:
    """The running decisions of one source partition. `watermark` is in ms, `NO_WATERMARK` before the first event."""

    decode: Callable[[bytes | None], Any]
    time_of: TimeOf
    rules: EventTime
    seen: Seen | None = None
    watermark: int = NO_WATERMARK
    aside: PutAside = field(default_factory=PutAside)

    def take(self, records: Sequence[Record], replays: Mapping[int, int] = NO_REPLAYS) -> Batch:
        """Decide on consecutive records and move on; `replays` has the originals' offsets of those that are such.

        What a fold cannot take is put aside by the caller: no replay of it may be among the same records.
        """
        before = self.watermark
        batch = self._take_each(records, replays) if replays else self._take_most(records)
        if self.seen is not None and self.seen.by_offset:
            self.seen.advance(records[-1].offset, records[0].offset)
        elif self.seen is not None and self.watermark > before:
            self.seen.advance(self.watermark, records[0].offset)
        return batch

    def _take_most(self, records: Sequence[Record]) -> Batch:
        """What does not decode moves nothing, so the others can be taken as if they were alone."""
        decode, dead = self.decode, list[tuple[Record, str]]()
        try:
            events = [decode(r.value) for r in records]
        except Exception:
            records, events, dead = self._decodable(records)
        first, *others = self._parts(records, events) if events else [Batch([], [], [], [], [])]
        for batch in others:
            first.add(batch)
        first.dead[:0] = dead
        return first

    def _parts(self, records: Sequence[Record], events: list[Any]) -> Iterator[Batch]:
        """Consecutive batches, as large as they can be taken whole."""
        if (whole := self._take_whole(records, events)) is not None:
            yield whole
        elif len(records) <= FEW:
            yield self._take_each(records, NO_REPLAYS)
        else:
            middle = len(records) // 2
            yield from self._parts(records[:middle], events[:middle])
            yield from self._parts(records[middle:], events[middle:])

    def _decodable(self, records: Sequence[Record]) -> tuple[list[Record], list[Any], list[tuple[Record, str]]]:
        good, events, dead = [], [], []
        for record in records:
            try:
                events.append(self._decode(record))
            except Undecodable as error:
                dead.append((record, str(error)))
                self.aside.add(record.offset)
            else:
                good.append(record)
        return good, events, dead

    def _take_whole(self, records: Sequence[Record], events: list[Any]) -> Batch | None:
        try:
            ats = _event_times(events, records, self.time_of)
        except Exception:
            return None  # one of them is dead: the long way finds which
        earliest, newest = min(ats), max(ats)
        if earliest < 0:
            return None
        if newest > min([r.timestamp for r in records]) + self.rules.max_ahead_ms:
            return None
        if self.seen is not None:
            ids, when = [e.event_id for e in events], [r.offset for r in records] if self.seen.by_offset else ats
            if None in ids:
                when = [at for at, known in zip(when, ids, strict=True) if known is not None]
                ids = [known for known in ids if known is not None]
            hashes = id_hashes(ids)
            if not self.seen.all_new(hashes):
                return None
            self.seen.remember_new(hashes, when)
        before, self.watermark = self.watermark, max(self.watermark, newest)
        slice_ms = self.rules.slice_ms
        windows = [at - at % slice_ms for at in ats]
        batch = Batch(list(records), [r.offset for r in records], windows, ats, events)
        if self.rules.is_late(earliest, self.watermark):
            self._part_late(batch, before)
        return batch

    def _part_late(self, batch: Batch, watermark: int) -> None:
        """Set aside what is late by the watermark as it was before each event; late ones do not move it anyway."""
        marks = accumulate(batch.ats, max, initial=watermark)
        still_open = self.rules.slice_ms + self.rules.grace_ms
        on_time = [w + still_open > mark for w, mark in zip(batch.windows, marks, strict=False)]
        if not all(on_time):
            batch.late += [record for record, good in zip(batch.records, on_time, strict=True) if not good]
            batch.keep([i for i, good in enumerate(on_time) if good])

    def _take_each(self, records: Sequence[Record], replays: Mapping[int, int]) -> Batch:
        batch = Batch([], [], [], [], [])
        for record in records:
            original = replays.get(record.offset)
            if original is not None and not self.aside.take_back(original, record.offset):
                batch.duplicates += 1
                continue
            try:
                self._take_one(record, batch, again=original is not None and is_past_fold(record))
            except Undecodable as error:
                batch.dead.append((record, str(error)))
                self.aside.add(record.offset)
        return batch

    def _take_one(self, record: Record, batch: Batch, again: bool) -> None:
        event = self._decode(record)
        at = self._time(event, record)
        if self.seen is not None and event.event_id is not None:
            (known,) = id_hashes([event.event_id])
            duplicate = self.seen.is_duplicate(known, self.seen.now(self.watermark, record.offset)) and not again
            self.seen.remember(known, self.seen.now(at, record.offset))
            if duplicate:
                batch.duplicates += 1
                return
        if self.rules.is_late(at, self.watermark):
            batch.late.append(record)
            return
        self.watermark = max(self.watermark, at)
        batch.records.append(record)
        batch.offsets.append(record.offset)
        batch.windows.append(at - at % self.rules.slice_ms)
        batch.ats.append(at)
        batch.events.append(event)

    def _decode(self, record: Record) -> Any:
        """The record's event. Raises `Undecodable`, also where a topic's own decoder raises anything else."""
        try:
            return self.decode(record.value)
        except Undecodable:
            raise
        except Exception as error:
            raise Undecodable(f"cannot be decoded: {type(error).__name__}: {error}") from error

    def _time(self, event: Any, record: Record) -> int:
        """The event's time in ms. Raises `Undecodable` for one that cannot be."""
        try:
            at = self.time_of(event, record.timestamp)
        except Undecodable:
            raise
        except Exception as error:
            raise Undecodable(f"event time cannot be read: {type(error).__name__}: {error}") from error
        if at.__class__ is not int:
            raise Undecodable(f"event time is no whole number of ms but a {type(at).__name__}")
        if at < 0:
            raise Undecodable("event time is before 1970, or the record has no timestamp")
        ahead = at - record.timestamp
        if ahead > self.rules.max_ahead_ms:
            raise Undecodable(f"event time is {ahead // 1000} s ahead of its record's timestamp")
        return at

    def relearn(self, records: Sequence[Record]) -> None:
        """Remember the ids of records that were taken before a restart; nothing else changes."""
        assert self.seen is not None
        for record in records:
            try:
                event = self._decode(record)
                at = self._time(event, record)
            except Undecodable:
                continue
            if event.event_id is not None:
                (known,) = id_hashes([event.event_id])
                self.seen.remember(known, self.seen.now(at, record.offset))


def _event_times(events: list[Any], records: Sequence[Record], time_of: TimeOf) -> list[int]:
    if time_of is event_time_ms:
        ats = [e.occurred_at for e in events]
        if set(map(type, ats)) == {int}:
            return ats
    ats = list(map(time_of, events, [r.timestamp for r in records]))
    if set(map(type, ats)) != {int}:
        raise TypeError("an event time is no whole number")
    return ats
