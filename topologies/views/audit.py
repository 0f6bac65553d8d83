"""The self-audit: beside the server, random closed windows are counted again from the log, all the time and gently.

One window of one source at a time, all tables of that slice width, all keys and partitions, against what the server
holds. It is read with a consumer of its own and counted in a thread that takes a tenth of a core at the most and only
for some milliseconds at a time, so that answers are not held up. Only first-stage tables are kept here; what the log
does not tell any more is `unknown` with its reason, never `agree`. A cell that differs is looked at twice before it is
told: logged once, and listed until the server ends.
"""

import asyncio
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

from aiohttp import web
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.log import LogError
from tables.accumulators import UnknownFormat
from tables.read_model import ReadModel
from tables.recount import CannotRecount, Cell, Recount, Wanted, as_written, differing, recount
from tables.table import Table
from tables.windows import Window
from topologies.views import explained
from topologies.views.answers import SERVING, Served, Serving, Views, answer
from topologies.views.aside import aside
from topologies.views.explain import SAMPLING, OpenReader, Sampling, wanted_of
from topologies.views.freshness import iso
from topologies.views.metrics import METRICS
from topologies.views.queries import Row
from topologies.views.turns import give_way

logger = logging.getLogger(__name__)

# Of one core; and so many records at most of one partition for one window.
SHARE: Final = 0.1
LIMIT: Final = 2_000_000
# Shown of what differs, and of the reasons for what is unknown.
LISTED: Final = 100
REASONS: Final = 20
# How far to look for a slice that was not counted yet, and of how many that is remembered.
STEPS_MAX: Final = 200
VISITED_MAX: Final = 20_000
# Between two chances for others: cells read by the event loop, and cells compared by the thread.
CELLS_AT_A_TIME: Final = 100
COMPARED_AT_A_TIME: Final = 50

Stored = dict[str, dict[tuple[str, int], bytes]]


class Stopped(Exception):
    """The server ends."""


@dataclass
class Gently:
    """Called now and then by a thread, makes it wait so that it takes no more than `share` of a core."""

    stop: threading.Event
    share: float = SHARE
    _used: float = field(default_factory=time.thread_time)

    def __call__(self) -> None:
        """Wait as long as is fair. Raises `Stopped`."""
        used = time.thread_time() - self._used
        if self.stop.wait(used * (1 / self.share - 1)):
            raise Stopped
        self._used = time.thread_time()


@dataclass(frozen=True)
class Unit:
    """Tables of one source with slices of one width: what is counted again together."""

    model: ReadModel
    tables: tuple[str, ...]
    slice_ms: int


@dataclass(frozen=True)
class Differs:
    """A cell that is not what its source says: of one source partition, `what` names the columns."""

    table: str
    window: int
    key: str
    partition: int
    what: tuple[str, ...]
    stored: Row | None
    recounted: Row | None

    @property
    def place(self) -> tuple[str, int, str, int]:
        """Which cell it is."""
        return self.table, self.window, self.key, self.partition

    def shown(self) -> Row:
        """For people."""
        return {
            "table": self.table,
            "window": iso(self.window),
            "windowMs": self.window,
            "key": self.key,
            "partition": self.partition,
            "what": list(self.what),
            "stored": self.stored,
            "recounted": self.recounted,
        }


@dataclass
class Found:
    """What one window came to: (table, key) that agree, what differs, and why others are not known."""

    agree: int = 0
    differ: list[Differs] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    records: int = 0


@dataclass
class Audit:
    """The running audit of a server's read models. `every_s` between two windows; `limit` records for one window."""

    serving: Serving
    open_reader: OpenReader
    every_s: float
    limit: int = LIMIT
    running: bool = False
    agree: int = 0
    unknown: int = 0
    windows: int = 0
    records: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    differ: dict[tuple[str, int, str, int], Differs] = field(default_factory=dict)
    differing: int = 0
    last_at: float | None = None
    last: str | None = None
    last_error: str | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _visited: set[tuple[int, int]] = field(default_factory=set)
    _visited_of: Served | None = None
    _random: random.Random = field(default_factory=random.Random)

    async def run(self) -> None:
        """Audit until cancelled."""
        self.running = True
        try:
            while True:
                await asyncio.sleep(self.every_s)
                await self._try()
        finally:
            self.running = False
            self._stop.set()

    async def _try(self) -> None:
        try:
            if await self.step():
                self.last_error = None
        except LogError as error:
            self.last_error = str(error)
        except Exception as error:
            if self.last_error != repr(error):
                logger.exception("the audit failed, it is tried again")
            self.last_error = repr(error)

    async def step(self) -> bool:
        """Count one window again; returns whether there was one. Raises `LogError`."""
        with self.serving.held() as held:
            return await self._step(held.served)

    async def _step(self, served: Served) -> bool:
        picked = self._pick(served)
        if picked is None:
            return False
        unit, start = picked
        found = await self._count(unit, start)
        if found is not None and found.differ:  # the copy may have begun anew meanwhile: look twice
            first, found = {one.place for one in found.differ}, await self._count(unit, start)
            if found is not None:
                found.differ = [one for one in found.differ if one.place in first]
        if found is None:
            return False
        self._note(unit, start, found)
        return True

    def _note(self, unit: Unit, start: int, found: Found) -> None:
        self.windows += 1
        self.records += found.records
        self.agree += found.agree
        self.unknown += found.unknown.total()
        for reason, count in found.unknown.items():
            self.reasons[reason if reason in self.reasons or len(self.reasons) < REASONS else "others"] += count
        for one in found.differ:
            if one.place not in self.differ:
                self.differing += 1
                logger.error("the audit found a cell that its source does not explain: %s", one)
                if len(self.differ) < LISTED:
                    self.differ[one.place] = one
        self.last_at = time.time()
        self.last = f"{', '.join(unit.tables)} at {iso(start)}"

    def _pick(self, served: Served) -> tuple[Unit, int] | None:
        """A closed window with cells that was not counted yet, or, when all were, any."""
        units = list(units_of(served.all))
        if len(self._visited) > VISITED_MAX or served is not self._visited_of:
            self._visited.clear()
        self._visited_of = served
        for number in self._random.sample(range(len(units)), len(units)):
            start = self._pick_slice(units[number], number)
            if start is not None:
                self._visited.add((number, start))
                return units[number], start
        again = bool(self._visited)
        self._visited.clear()
        return self._pick(served) if again else None

    def _pick_slice(self, unit: Unit, number: int) -> int | None:
        table = self._random.choice(unit.tables)
        first, end = closed_slices(unit.model, table)
        if first >= end:
            return None
        width = unit.slice_ms
        at = self._random.randrange(first, end, width)
        wrapped = False
        for _ in range(STEPS_MAX):
            start = unit.model.stored_slice(table, at, end)
            if start is None:
                if wrapped:
                    return None
                wrapped, at = True, first
            elif (number, start) not in self._visited:
                return start
            else:
                at = start + width
        return None

    async def _count(self, unit: Unit, start: int) -> Found | None:
        window = Window(start, start + unit.slice_ms)
        stored = {table: await _stored(unit.model, table, start) for table in unit.tables}
        if start < max(unit.model.complete_from(table) for table in unit.tables):
            return None  # it expired while it was read
        wanted = list(wanted_of(unit.model, unit.tables, window))
        return await aside(self._compare, wanted, stored)

    def _compare(self, wanted: Sequence[Wanted], stored: Stored) -> Found:
        gently = Gently(self._stop)
        found = Found()
        cells = {(table, key) for table in stored for key, _ in stored[table]}
        reason: str | None = None
        with self.open_reader() as reader:
            for one in wanted:
                try:
                    counted = recount(reader, one, limit=self.limit, pace=gently)
                except CannotRecount as told:
                    reason = str(told)
                    continue
                found.records += counted.records
                cells |= _compare_partition(counted, stored, found, gently)
        cells -= {(one.table, one.key) for one in found.differ}
        if reason is None:
            found.agree = len(cells)
        else:  # of one partition: it may lack cells that nobody can tell of
            found.unknown.update(f"{table}: {reason}" for table, _ in cells)
        return found

    def shown(self) -> Row:
        """What `/api/audit` answers."""
        return {
            "running": self.running,
            "every_s": self.every_s,
            "checked": self.agree + self.differing,
            "agree": self.agree,
            "differ": [one.shown() for one in self.differ.values()],
            "differing": self.differing,
            "unknown": self.unknown,
            "reasons": dict(self.reasons),
            "windows": self.windows,
            "records": self.records,
            "lastAt": None if self.last_at is None else iso(round(self.last_at * 1000)),
            "last": self.last,
            "lastError": self.last_error,
        }


def units_of(served: Sequence[Views]) -> Iterator[Unit]:
    """What can be counted together, of every topology that is up to date."""
    for views in served:
        if not views.tracker.caught_up:
            continue
        for source in views.model.group.sources:
            widths: dict[int, list[str]] = {}
            for table in source.tables:
                widths.setdefault(source.slice_ms(table), []).append(table.name)
            for width, names in widths.items():
                yield Unit(views.model, tuple(names), width)


def closed_slices(model: ReadModel, table: str) -> tuple[int, int]:
    """The first slice that is whole, and the end of the last one that is closed (ms)."""
    stored = model.bounds(table)
    if stored is None:
        return 0, 0
    width = model.slice_ms(table)
    first = max(stored.start_ms, -(-model.complete_from(table) // width) * width)
    return first, min(stored.end_ms, model.closed_before(table))


async def _stored(model: ReadModel, table: str, start: int) -> dict[tuple[str, int], bytes]:
    found: dict[tuple[str, int], bytes] = {}
    for key, number, raw in model.stored(table, start):
        found[key, number] = raw
        if len(found) % CELLS_AT_A_TIME == 0:
            await give_way()
    return found


def _compare_partition(counted: Recount, stored: Stored, found: Found, gently: Gently) -> set[tuple[str, str]]:
    """Compare one source partition's cells; returns the (table, key) of those that were counted."""
    number, start = counted.wanted.number, counted.wanted.window.start_ms
    cells: set[tuple[str, str]] = set()
    for table in counted.wanted.tables:
        kept = {key: raw for (key, of), raw in stored[table.name].items() if of == number}
        keys = kept.keys() | counted.cells[table.name].get(start, {}).keys()
        cells |= {(table.name, key) for key in keys}
        for i, key in enumerate(keys):
            one = compare(table, counted, start, key, kept.get(key))
            if one is not None:
                found.differ.append(one)
            if i % COMPARED_AT_A_TIME == 0:
                gently()
    return cells


def compare(table: Table, counted: Recount, start: int, key: str, raw: bytes | None) -> Differs | None:
    """How a stored cell differs from the counted one; None if it does not."""
    cell = counted.cells[table.name].get(start, {}).get(key)
    again = None if cell is None else as_written(table, cell)
    number, since = counted.wanted.number, counted.wanted.since
    try:
        kept = None if raw is None else table.row.read(raw)
    except UnknownFormat:
        return Differs(table.name, start, key, number, ("bytes",), None, _results(table, again))
    what = differing(table, kept, again, since)
    if not what:
        return None
    return Differs(table.name, start, key, number, tuple(what), _results(table, kept), _results(table, again))


def _results(table: Table, cell: Cell | None) -> Row | None:
    return None if cell is None else table.row.results(table.row.merge([cell]))


AUDIT = web.AppKey("audit", Audit)


async def audited(request: web.Request) -> web.Response:
    """`GET /api/audit`: what counting again has come to since the server started."""
    explained.AUDIT.read(request.query)
    audit = request.app.get(AUDIT)
    return answer((audit or Audit(Serving(Served(())), _no_log, 0)).shown())


def _no_log() -> NoReturn:
    raise LogError("this server reads no log")


def let_read_log(app: web.Application, open_reader: OpenReader, every_s: float) -> Audit:
    """Give a server's pages the log, to explain and to audit by; the audit is for the caller to run."""
    audit = Audit(app[SERVING], open_reader, every_s)
    app[SAMPLING], app[AUDIT] = Sampling(open_reader), audit
    app[METRICS].registry.register(AuditCollector(audit))
    return audit


class AuditCollector(Collector):
    """Reads an audit when Prometheus asks."""

    def __init__(self, audit: Audit) -> None:
        """Keep what is to be read."""
        self._audit = audit

    def collect(self) -> Iterator[Metric]:
        """Cells by what came of them; when the last ones were counted."""
        audit = self._audit
        cells = CounterMetricFamily(
            "millrace_views_audit_cells", "Cells counted again from the log.", labels=["result"]
        )
        for result, count in (("agree", audit.agree), ("differ", audit.differing), ("unknown", audit.unknown)):
            cells.add_metric([result], count)
        records = CounterMetricFamily("millrace_views_audit_records", "Records read again by the audit.")
        records.add_metric([], audit.records)
        last = GaugeMetricFamily("millrace_views_audit_last_seconds", "When cells were counted last, as a Unix time.")
        if audit.last_at is not None:
            last.add_metric([], audit.last_at)
        yield from (cells, records, last)
