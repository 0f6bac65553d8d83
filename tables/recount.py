"""Counting again: a stretch of a source, read once more and folded by the same rules, says what cells must hold.

What becomes of a record follows from the records of its partition before it (streams.intake): the watermark decides
what is late, the ids seen what is a duplicate, what was put aside which replay counts. To decide as the live run did
without reading everything, a recount begins where what it does not know cannot matter:

- *At the group's beginning*, if the topic still reaches back to it: then nothing is unknown.
- *At a record time*, as Kafka finds it (`offset_at`): every record before that offset is older than `t`, so no event
  before it has a time of `t + max_ahead` or more. With `t` early enough, no event of the window lies before the
  offset, and the unknown watermark is below everything that could make one late. An id that was seen before the offset
  no longer counts once the watermark is `dedupe` past `t + max_ahead`: from there on the recount is *settled*. An event
  of the window, or after it, that comes before that (the topic was quiet) sends the recount further back. So does a
  replay that might count and whose original lies before the offset.

Assumed is that an event which comes twice has the same time twice, or that its id counts as above. Read is up to where
the window is closed, or up to `end`. Where a topic does not reach back far enough, was compacted, or there is more to
read than allowed, `CannotRecount` says so: never a verdict.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from streams.codecs import decoder
from streams.dead_letters import replays
from streams.dedupe import seen_of
from streams.intake import Batch, Intake
from streams.log import TP, Record
from tables.accumulators import EVENTS, FIRST, STAMP, STATES, WindowsMap, encode_key
from tables.aggregates import Aggregate, Distinct, Tally
from tables.folding import Poison, Rows, fold_all, fold_one
from tables.forwarding import forward_all, forward_one
from tables.table import Source, Table
from tables.windows import Window

Cell = list[Any]
Pace = Callable[[], None]

CHUNK: Final = 250
# Before the window's start the watermark must be settled; the disorder of a topic is usually less than this.
SLACK_MS: Final = 60_000
# The second look begins four times as far back, the third sixteen times.
FURTHER: Final = 4
# A source that takes events from so far ahead of their records' times says nothing by them.
AHEAD_MS: Final = 86_400_000
UNSETTLED: Final = 2**63


class Reader(Protocol):
    """Reads source partitions once more, from a thread: nothing is awaited. Raises `LogError`."""

    def bounds(self, tp: TP) -> tuple[int, int]:
        """The first offset that can still be read, and the end offset."""
        ...

    def offset_at(self, tp: TP, at_ms: int) -> int:
        """The first offset whose record has a Kafka time of `at_ms` or later; the end offset if none has."""
        ...

    def read(self, tp: TP, start: int, end: int) -> Iterator[Sequence[Record]]:
        """The records of `[start, end)`, in order."""
        ...


class CannotRecount(Exception):
    """The log does not tell any more, or it would take too long; the text says why."""


class FurtherBack(Exception):
    """The recount has to begin before this offset, or just earlier (None)."""

    def __init__(self, offset: int | None = None) -> None:
        """Name the offset."""
        super().__init__()
        self.offset = offset


class Carefully(Exception):
    """Something was refused by an aggregate: every event has to be tried alone, as the live run did."""


@dataclass(frozen=True)
class Begin:
    """Where to begin. Event times before `offset` are all below `before_ms`; None: the group began there."""

    offset: int
    before_ms: int | None = None


@dataclass(frozen=True)
class Wanted:
    """Which cells: of these tables of one source partition, in the window's slices, from the events before `end`.

    `since`: the offsets from which tables (and `table.aggregate`) count, as their progress says.
    """

    source: Source
    number: int
    tables: tuple[Table, ...]
    window: Window
    end: int
    since: Mapping[str, int] = field(default_factory=dict)

    @property
    def tp(self) -> TP:
        """The source partition."""
        return TP(self.source.topic.name, self.number)

    @property
    def began(self) -> int:
        """The offset at which the group began to count here, with nothing known before."""
        return min(self.since.values(), default=0)

    @property
    def closed_at(self) -> int:
        """The watermark (ms) from which on no event counts in the window any more."""
        return self.window.end_ms + self.source.time.grace_ms


@dataclass(frozen=True)
class Sample:
    """One of the very events that a cell counted; its time in ms."""

    offset: int
    at_ms: int
    event: Any


@dataclass
class Recount:
    """The cells of one source partition, counted from consecutive records.

    `cells`: by table, slice start and key; whole only for the wanted tables.
    """

    wanted: Wanted
    begin: Begin
    careful: bool = False
    key: str | None = None
    keep: int = 0
    records: int = 0
    cells: dict[str, WindowsMap] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    _intake: Intake = field(init=False, repr=False)
    _settled_from: int = field(init=False)
    _put_aside: set[int] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        """Know nothing."""
        source = self.wanted.source
        decode = source.decode or decoder(source.topic.value)  # type: ignore[arg-type]  # one of them is there
        self._intake = Intake(decode, source.time_of, source.time, seen_of(source.topic))
        self._settled_from = 0 if self.begin.before_ms is None else UNSETTLED
        # of the other tables too: what one of them refuses counts in none
        self.cells = {table.name: {} for table in source.tables}

    @property
    def closed(self) -> bool:
        """Whether no event can count any more."""
        return self._intake.watermark >= self.wanted.closed_at

    def take(self, records: Sequence[Record]) -> None:
        """Count the next records. Raises `FurtherBack`, `Carefully`, `CannotRecount`."""
        originals = replays(self.wanted.tp, records)
        # a replay must not be decided on together with its original, which a fold may put aside
        size = 1 if originals else CHUNK
        for i in range(0, len(records), size):
            chunk = records[i : i + size]
            for record in chunk if originals else ():
                self._check_replay(record, originals.get(record.offset))
            batch = self._intake.take(chunk, originals)
            if self._intake.seen is not None:
                self._intake.seen.drain()  # what a worker would write down: of a long stretch, 100 bytes an event
            self._put_aside.update(record.offset for record, _ in batch.dead)
            self._settle(batch)
            self._fold(batch)
        self.records += len(records)

    def _check_replay(self, record: Record, original: int | None) -> None:
        if original is None or self._time_of(record) < (self.begin.before_ms or 0):
            return  # not one, or too old to count in the window or to close it
        if original < self._settled_from:
            raise FurtherBack(original)
        if not self.careful and original not in self._put_aside:
            raise Carefully  # an aggregate may have refused it, which shows only when each event is tried

    def _time_of(self, record: Record) -> int:
        try:
            return self._intake.time_of(self._intake.decode(record.value), record.timestamp)
        except Exception:
            return -1  # dead again

    def _settle(self, batch: Batch) -> None:
        if self._settled_from < UNSETTLED:
            return
        for offset, at in zip(batch.offsets, batch.ats, strict=True):
            if at >= self.wanted.window.start_ms:
                raise FurtherBack
            if at >= settled_ms(self.wanted.source, self.begin):
                self._settled_from = offset
                return

    def _fold(self, batch: Batch) -> None:
        source = self.wanted.source
        columns = None if self.careful else fold_all(source.tables, batch.events, batch.ats)
        if columns is not None and source.forward is not None:
            columns = None if forward_all(source.forward, batch.events, batch.ats) is None else columns
        if columns is None:
            columns = self._fold_each(batch)
        start, end = self.wanted.window.start_ms, self.wanted.window.end_ms
        places = [i for i, window in enumerate(batch.windows) if start <= window < end]
        for table, rows in zip(source.tables, columns, strict=True) if places else ():
            self._apply(table, rows, batch, places)

    def _fold_each(self, batch: Batch) -> list[list[Rows]]:
        tables, forward = self.wanted.source.tables, self.wanted.source.forward
        good: list[int] = []
        folded: list[list[Rows]] = []
        for i, event in enumerate(batch.events):
            try:
                rows = fold_one(tables, event, batch.ats[i])
                if forward is not None:
                    forward_one(forward, event, batch.ats[i])
            except Poison:
                self._intake.aside.add(batch.offsets[i])
                self._put_aside.add(batch.offsets[i])
                continue
            good.append(i)
            folded.append(rows)
        batch.keep(good)
        return [[rows[t] for rows in folded] for t in range(len(tables))]

    def _apply(self, table: Table, rows: list[Rows], batch: Batch, places: Sequence[int]) -> None:
        since, width = self.wanted.since.get(table.name, 0), self.wanted.source.slice_ms(table)
        mine = [i for i in places if batch.offsets[i] >= since]
        cells = self.cells[table.name]

        def load(window: int, key: str) -> Cell:
            encode_key(window, key)  # what no flush could write counts nowhere
            cell = cells.setdefault(window, {})[key] = table.row.new_cell()
            return cell

        offsets, windows = [batch.offsets[i] for i in mine], [batch.windows[i] for i in mine]
        try:
            table.row.apply(
                offsets, [w - w % width for w in windows], [rows[i] for i in mine], cells, load, []
            )  # fmt: skip
        except Exception as error:
            if self.careful:
                raise CannotRecount(f"table {table.name} cannot take an event: {error}") from error
            raise Carefully from error
        if table.name != self.wanted.tables[0].name:
            return
        for i in mine if len(self.samples) < self.keep else ():
            if len(self.samples) < self.keep and any(row[0] == self.key for row in rows[i]):
                self.samples.append(Sample(batch.offsets[i], batch.ats[i], batch.events[i]))


def settled_ms(source: Source, begin: Begin) -> int:
    """The watermark from which on nothing before the beginning matters."""
    return (begin.before_ms or 0) + round(source.topic.dedupe_s * 1000)


def begins(reader: Reader, wanted: Wanted) -> Iterator[Begin]:
    """Where a recount may begin, the latest first. Raises `CannotRecount` when the topic goes back no further."""
    source, tp = wanted.source, wanted.tp
    first, end = reader.bounds(tp)
    if end < wanted.end:
        raise CannotRecount(
            f"{tp.topic}[{tp.partition}] ends at {end}, the table contains everything before {wanted.end}"
        )
    ahead = source.time.max_ahead_ms
    before = ahead + round(source.topic.dedupe_s * 1000) + SLACK_MS
    back = before
    while ahead <= AHEAD_MS and not source.topic.dedupe_records and wanted.window.start_ms > back:
        at = wanted.window.start_ms - back
        offset = min(reader.offset_at(tp, at), wanted.end)
        if offset <= max(first, wanted.began):
            break
        yield Begin(offset, at + ahead)
        back *= FURTHER
    if first > wanted.began:
        raise CannotRecount(
            f"{tp.topic}[{tp.partition}] begins at {first} now, which is not far enough back to know what was late or "
            "seen before in this window"
        )
    yield Begin(wanted.began)


def recount(
    reader: Reader,
    wanted: Wanted,
    *,
    limit: int | None = None,
    pace: Pace | None = None,
    key: str | None = None,
    keep: int = 0,
) -> Recount:
    """Count the wanted cells again. `limit` is how many records may be read; `pace` is called now and then.

    With `keep`, so many of the first events of `key` are kept as samples. Raises `CannotRecount`, `LogError`.
    """
    needed: int | None = None
    careful, read = False, 0
    for begin in begins(reader, wanted):
        if needed is not None and begin.before_ms is not None and begin.offset > needed:
            continue
        again = True
        while again:
            again = False
            counting = Recount(wanted, begin, careful, key, keep)
            try:
                _read(reader, counting, None if limit is None else limit - read, pace)
                return counting
            except FurtherBack as back:
                needed = back.offset
            except Carefully:
                careful = again = True
            finally:
                read += counting.records
    raise CannotRecount("the group's beginning was read, and it still is not clear what counts")


def _read(reader: Reader, counting: Recount, limit: int | None, pace: Pace | None) -> None:
    tp, start, end = counting.wanted.tp, counting.begin.offset, counting.wanted.end
    expected = start
    for records in reader.read(tp, start, end) if start < end else ():
        if counting.wanted.source.topic.cleanup == "compact" and records[-1].offset + 1 - expected != len(records):
            raise CannotRecount(f"{tp.topic} is compacted, and records of this stretch are gone")
        expected = records[-1].offset + 1
        counting.take(records)
        if counting.closed:
            return
        if limit is not None and counting.records >= limit:
            raise CannotRecount(f"more than {limit:,} records of {tp.topic}[{tp.partition}] would have to be read")
        if pace is not None:
            pace()


def as_written(table: Table, cell: Cell) -> Cell:
    """A counted cell as it is after a way through its bytes, to be compared with a stored one."""
    return table.row.read(table.row.encode(cell, 0))


def compared_by(aggregate: Aggregate[Any]) -> str:
    """How an aggregate is compared: its `state`, its `estimate` (equal results), or counts in their `error`."""
    if isinstance(aggregate, Distinct):  # a state's bytes depend on the order of merges, its result does not
        return "estimate"
    return "error" if isinstance(aggregate, Tally) else "state"


def differing(
    table: Table, stored: Cell | None, counted: Cell | None, since: Mapping[str, int] | None = None
) -> list[str]:
    """What of a stored partial is not as counted again: names of aggregates, `first`, `last`, `events`, or `cell`.

    Both as read from bytes. An aggregate that was appended after the cell's first event is passed over.
    """
    if stored is None or counted is None:
        return [] if stored is counted else ["cell"]
    heads = {"first": FIRST, "last": STAMP, "events": EVENTS}
    found = [name for name, at in heads.items() if stored[at] != counted[at]]
    for at, (name, aggregate) in enumerate(table.aggregates.items(), STATES):
        if (since or {}).get(f"{table.name}.{name}", 0) > counted[FIRST]:
            continue
        if not _same(aggregate, stored[at], counted[at]):
            found.append(name)
    return found


def _same(aggregate: Aggregate[Any], stored: Any, counted: Any) -> bool:
    how = compared_by(aggregate)
    if how == "estimate":
        return bool(aggregate.result(stored) == aggregate.result(counted))
    if how == "error":
        error = max(stored[1], counted[1])
        keys = stored[0].keys() | counted[0].keys()
        return all(abs(stored[0].get(k, 0) - counted[0].get(k, 0)) <= error for k in keys)
    return bool(aggregate.dump(stored) == aggregate.dump(counted))
