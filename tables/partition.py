"""One source partition of a group: its position, its accumulators, and what goes out with the next flush.

Positions are our own. A batch moves `position` when it is applied; a flush makes what was applied durable and only
then is it committed. Records below `position` are never applied again in this life, whatever is delivered (a seek
inside the process, a batch from before a rebalance). After a restart `position` comes from the newest progress, and
accumulators that a torn flush left ahead of it are protected by their stamps.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from streams.dead_letters import Stage, dead_letter, late_entry, replays
from streams.errors import MillraceError
from streams.intake import Batch, Intake
from streams.log import TP, Entry, Log, Record
from tables.cache import Cache
from tables.deciding import Agenda
from tables.folding import Poison, Rows, fold_all, fold_one
from tables.forwarding import Forwarded, forward_all, forward_one
from tables.progress import Progress
from tables.put_aside import Kept
from tables.store import Store
from tables.table import Group, Source, Table

# So many events in a row that no fold can take are not bad events: the fold, the disk or the memory is broken.
POISON_LIMIT = 100

# So many records go through decoding, folds and accumulators at a time, whatever the size of a batch. What 250 events
# become on the way (structs, rows) fits the processor's cache; with the 5,000 of a batch all of it takes a quarter
# longer (measured: 10.0 microseconds an event with all sales tables, 7.9 so; one table 4.4 and 3.3).
CHUNK = 250


class Gap(Exception):
    """Delivery skipped records: the consumer has to go back to `position`."""

    def __init__(self, tp: TP, position: int) -> None:
        """Name where to go on."""
        super().__init__(f"{tp.topic}[{tp.partition}] must be read from {position} again")
        self.tp = tp
        self.position = position


class TooMuchPoison(MillraceError):
    """Everything fails: stop instead of draining the topic into dead letters.

    Of the run that leads here, what a flush came between to write (at most the 100 before the limit, where events come
    slowly) lies among the dead letters and can be replayed; the message says which. The count goes on after a restart,
    so a supervisor that starts the worker again and again drains nothing more.
    """


@dataclass
class Counters:
    """What a source partition has seen in this life of the worker."""

    events: int = 0
    dead: int = 0
    late: int = 0
    duplicates: int = 0
    flushes: int = 0
    flush_s: float = 0.0


@dataclass
class Feed:
    """One source of the partition: where it stands, and its tables' caches.

    `seen_kept` names the store's stretches of event ids with the newest event time (ms) in each. `grown`: a table's
    row has more aggregates than what was written, which the next flush says before anything is applied.
    """

    source: Source
    tp: TP
    intake: Intake
    caches: list[Cache]
    position: int | None = None
    highest: int = -1
    durable: Progress | None = None
    committed: int = -1
    since: dict[str, int] = field(default_factory=dict)
    side: list[tuple[TP, Entry]] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    doubted: tuple[int, int] | None = None
    poison_run: int = 0
    poison_from: int = -1
    careful_until: int = -1
    marks: dict[str, int] = field(default_factory=dict)
    seen_kept: dict[str, int] = field(default_factory=dict)
    grown: bool = False
    put_aside: Kept = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing kept of what was put aside."""
        self.put_aside = Kept(self.tp)

    @property
    def changed(self) -> bool:
        """Whether there is something that the last flush did not have."""
        if self.position is None:
            return False
        if self.grown or self.durable is None:
            return True
        return self.position != self.durable.position or self.committed > self.durable.committed


@dataclass
class Partition:
    """All feeds of one partition number over one store. Made by `tables.recovery`.

    Of a table's changelog, `gaps` is a stretch with records of others that nobody has read yet, and `outdone` has the
    keys whose last record is not their best: the next flush settles both.

    `touched`: by table, the keys that flushes have written, for those who publish (tables.publishing); only the tables
    that are named in it are noted. `renewed` is the progress's: cells of an earlier epoch count for nothing.
    """

    group: Group
    number: int
    store: Store
    log: Log
    feeds: dict[str, Feed]
    ends: dict[str, int]
    generation: int = 0
    epoch: int = 0
    renewed: int = 0
    topic_ids: dict[str, str] = field(default_factory=dict)
    stale_progress: dict[str, list[bytes]] = field(default_factory=dict)
    gaps: dict[str, tuple[int, int]] = field(default_factory=dict)
    outdone: dict[str, set[bytes]] = field(default_factory=dict)
    expired_before: dict[str, int] = field(default_factory=dict)
    agendas: dict[str, Agenda] = field(default_factory=dict)
    touched: dict[str, dict[str, None]] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    broken: bool = False

    @property
    def changed(self) -> bool:
        """Whether a flush has something to do."""
        unsettled = bool(self.gaps or self.outdone)
        return not self.broken and (unsettled or any(feed.changed for feed in self.feeds.values()))

    def apply(self, topic: str, records: Sequence[Record], base: int | None = None) -> int:
        """Apply consecutive records and return how many were new.

        `base` is where delivery stood before the batch, None when it is not known (after a seek). Raises `Gap` if
        records between the position and this batch were never delivered.
        """
        feed = self.feeds[topic]
        records = self._new_records(feed, records, base)
        originals = replays(feed.tp, records)
        for chunk in _chunks(records, originals):
            self._apply_chunk(feed, chunk, originals)
        return len(records)

    def _apply_chunk(self, feed: Feed, records: Sequence[Record], originals: Mapping[int, int]) -> None:
        try:
            batch = feed.intake.take(records, originals)
            self._apply_batch(feed, batch)
        except BaseException:
            self.broken = True  # accumulators may be torn: only a restore from what is durable may follow
            raise
        feed.position = records[-1].offset + 1
        feed.counters.events += len(records)
        feed.counters.duplicates += batch.duplicates

    def _new_records(self, feed: Feed, records: Sequence[Record], base: int | None) -> Sequence[Record]:
        position, first = feed.position, records[0].offset
        if position is None:
            return records
        if records[-1].offset < position:
            return ()
        if first < position:
            return [r for r in records if r.offset >= position]
        if base is not None and base > position:
            raise Gap(feed.tp, position)
        if base is None and first > position and feed.doubted != (position, first):
            # A hole right after a seek: either records were lost on the way, or offsets are missing in the log
            # itself (compaction, transaction markers). Reading from the position once more tells.
            feed.doubted = (position, first)
            raise Gap(feed.tp, position)
        return records

    def _apply_batch(self, feed: Feed, batch: Batch) -> None:
        tables = [cache.table for cache in feed.caches]
        careful = bool(batch.offsets) and batch.offsets[0] <= feed.careful_until
        columns = None if careful else fold_all(tables, batch.events, batch.ats)
        forwarded: Forwarded | None = []
        if columns is not None and feed.source.forward is not None:
            forwarded = forward_all(feed.source.forward, batch.events, batch.ats)
        self._set_aside(feed, batch.dead, "intake")
        if columns is None or forwarded is None:
            columns, forwarded = self._fold_each(feed, tables, batch)
        elif batch.offsets:
            feed.poison_run = 0
        self._set_late_aside(feed, batch)
        feed.side += forwarded
        if not batch.offsets:
            return
        checked, width = batch.offsets[0] <= feed.highest, feed.source.time.slice_ms
        for cache, rows in zip(feed.caches, columns, strict=True):
            row = cache.table.row
            run = row.apply_checked if checked else row.apply
            windows = batch.windows if cache.slice_ms == width else cache.starts(batch.windows)
            run(batch.offsets, windows, rows, cache.windows, cache.load, cache.dirty)
        feed.highest = max(feed.highest, batch.offsets[-1])
        if feed.source.mark is not None:
            _raise_marks(feed.marks, map(feed.source.mark, batch.events))

    def _fold_each(self, feed: Feed, tables: list[Table], batch: Batch) -> tuple[list[list[Rows]], Forwarded]:
        """Fold event by event; what no fold can take becomes a dead letter, everything else stays."""
        good: list[int] = []
        poisoned: list[tuple[Record, str]] = []
        folded: list[list[Rows]] = []
        forwarded: Forwarded = []
        forward = feed.source.forward
        for i, event in enumerate(batch.events):
            try:
                rows = fold_one(tables, event, batch.ats[i])
                forwarded += forward_one(forward, event, batch.ats[i]) if forward is not None else ()
                folded.append(rows)
            except Poison as poison:
                poisoned.append((batch.records[i], str(poison)))
                feed.intake.aside.add(batch.offsets[i])
                self._count_poison(feed, batch.offsets[i], poison)
                continue
            good.append(i)
            feed.poison_run = 0
        batch.keep(good)
        self._set_aside(feed, poisoned, "fold")
        return [[rows[t] for rows in folded] for t in range(len(tables))], forwarded

    def _count_poison(self, feed: Feed, offset: int, poison: Poison) -> None:
        feed.poison_run += 1
        if feed.poison_run == 1:
            feed.poison_from = offset
        if feed.poison_run > POISON_LIMIT:
            raise TooMuchPoison(
                f"{POISON_LIMIT} events of {feed.tp.topic}[{feed.tp.partition}] in a row failed, the last at offset "
                f"{offset}: {poison}; {_skipped(feed)}: mend the cause and start again"
            )

    def _set_aside(self, feed: Feed, dead: list[tuple[Record, str]], stage: Stage) -> None:
        to = TP(feed.source.topic.dead_letters.name, feed.tp.partition)
        feed.side += [(to, dead_letter(feed.tp, record, reason, stage)) for record, reason in dead]
        feed.counters.dead += len(dead)

    def _set_late_aside(self, feed: Feed, batch: Batch) -> None:
        to = TP(feed.source.topic.late.name, feed.tp.partition)
        feed.side += [(to, late_entry(feed.tp, record)) for record in batch.late]
        feed.counters.late += len(batch.late)


def _skipped(feed: Feed) -> str:
    done = feed.durable.position if feed.durable is not None else -1
    if feed.poison_from >= done:
        return "none of them was skipped"
    return (
        f"those from {feed.poison_from} up to {done - 1} lie in {feed.source.topic.dead_letters.name} to be replayed, "
        "none after them was skipped"
    )


def _chunks(records: Sequence[Record], originals: Mapping[int, int]) -> Iterator[Sequence[Record]]:
    """Cut a batch so that no replay is in one chunk with its original: it may turn out there that no fold takes it."""
    start = 0
    for i, record in enumerate(records) if originals else ():
        if i > start and (i - start == CHUNK or originals.get(record.offset, -1) >= records[start].offset):
            yield records[start:i]
            start = i
    for i in range(start, len(records), CHUNK):
        yield records[i : i + CHUNK]


def _raise_marks(marks: dict[str, int], found: Iterable[tuple[str, int] | None]) -> None:
    for mark in found:
        if mark is not None and mark[1] > marks.get(mark[0], -1):
            marks[mark[0]] = mark[1]
