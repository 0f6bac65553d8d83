"""`GET /api/explain`: what a number comes from, down to the very events."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aiohttp import web

from streams.log import LogError
from tables.accumulators import EVENTS, FIRST, STAMP
from tables.read_model import ReadModel, partitions_of
from tables.recount import Begin, CannotRecount, Carefully, Reader, Recount, Sample, Wanted
from tables.windows import Window
from topologies.views import explained
from topologies.views.answers import SERVED, Served, Views, answer
from topologies.views.aside import aside
from topologies.views.explained import BY, KEY, SAMPLE, SIZE, TABLE, WINDOW
from topologies.views.freshness import iso
from topologies.views.problems import BadParameter, NotFound
from topologies.views.queries import SALES, Row, times_of

SLICES_MAX: Final = 1_500
# Of each partition so many records are looked through for samples.
SAMPLED_RECORDS: Final = 5_000
Cell = list[Any]
OpenReader = Callable[[], AbstractContextManager[Reader]]


@dataclass(frozen=True)
class Sampling:
    """Reads events from the log for samples, two requests at a time. `open_reader` makes what reads."""

    open_reader: OpenReader
    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))

    async def sample(self, asked: Sequence[tuple[Wanted, int, int]], key: str, n: int) -> list[list[Sample]]:
        """Of each, the first `n` events of the key that were counted, from its first offset on. Raises `LogError`."""
        async with self.turn:
            return await aside(self._sample, asked, key, n)

    def _sample(self, asked: Sequence[tuple[Wanted, int, int]], key: str, n: int) -> list[list[Sample]]:
        with self.open_reader() as reader:
            return [samples_of(reader, wanted, first, last, key, n) for wanted, first, last in asked]


SAMPLING = web.AppKey("sampling", Sampling)


def samples_of(reader: Reader, wanted: Wanted, first: int, last: int, key: str, n: int) -> list[Sample]:
    """The first `n` events of the key, from the first that its cell counted.

    That one was not late, so the watermark before it had not closed the window: what is late after it follows from
    the records after it alone.
    """
    for careful in (False, True):
        counting = Recount(wanted, Begin(first), careful, key, n)
        try:
            for records in reader.read(wanted.tp, first, min(last + 1, first + SAMPLED_RECORDS)):
                counting.take(records)
                if len(counting.samples) >= n:
                    break
        except Carefully:
            continue
        except CannotRecount:
            pass
        return counting.samples
    return []


async def explain(request: web.Request) -> web.Response:
    """`GET /api/explain`: partials of a number, their offsets, and a sample of events."""
    served = request[SERVED]
    given = explained.EXPLAIN.read(request.query)
    name = _table(served, given)
    views = served.of_table(name)
    model = views.model
    window = _window(model, name, given)
    key, n = KEY.of(given), SAMPLE.of(given)
    if key is None:
        raise KEY.bad("is missing")
    fresh = views.freshness(name)
    parts = partials(model, name, window, key)
    if not parts:
        raise NotFound(f"table {name} has nothing of {key!r} from {iso(window.start_ms)} to {iso(window.end_ms)}")
    samples, problem = await _samples(request.app, wanted_of(model, [name], window), parts, key, n)
    row, topic = model.tables[name].row, model.group.source_of(name).topic.name
    times = times_of(window, model.closed_before(name))
    body = {
        "topology": views.topology.name,
        "table": name,
        "key": key,
        **times,
        "provisional": not times["final"],
        "results": row.results(row.merge([cell for cells in parts.values() for cell in cells])),
        "events": sum(cell[EVENTS] for cells in parts.values() for cell in cells),
        "partials": [
            {
                "topic": topic,
                "partition": number,
                "results": row.results(row.merge(cells)),
                **span_of(cells),
                "sample": [_shown(one) for one in samples.get(number, ())],
            }
            for number, cells in sorted(parts.items())
        ],
        "since": since_of(views, name),
        "sampleProblem": problem,
        "freshness": fresh,
    }
    return answer(body)


def partials(model: ReadModel, table: str, window: Window, key: str) -> dict[int, list[Cell]]:
    """By source partition, the key's cells of the window's slices."""
    found: dict[int, list[Cell]] = {}
    stored = model.bounds(table)
    first, end = (window.start_ms, window.end_ms) if stored is None else (stored.start_ms, stored.end_ms)
    for start in range(max(first, window.start_ms), min(end, window.end_ms), model.slice_ms(table)):
        for number, cell in model.partials(table, start, key).items():
            found.setdefault(number, []).append(cell)
    return found


def span_of(cells: Sequence[Cell]) -> Row:
    """Which offsets cells took, and how many events."""
    return {
        "firstOffset": min(cell[FIRST] for cell in cells),
        "lastOffset": max(cell[STAMP] for cell in cells),
        "events": sum(cell[EVENTS] for cell in cells),
    }


def since_of(views: Views, table: str) -> dict[str, dict[str, int]]:
    """By topic:partition, from which offsets the table, and those fed with it, are counted."""
    source, known = views.model.group.source_of(table), views.model.progress
    return {f"{tp.topic}:{tp.partition}": dict(known[tp].since) for tp in partitions_of(source) if tp in known}


def wanted_of(model: ReadModel, tables: Sequence[str], window: Window) -> Iterator[Wanted]:
    """What to count again for these tables of one source: of each partition that had events."""
    source = model.group.source_of(tables[0])
    for tp in partitions_of(source):
        progress = model.progress.get(tp)
        if progress is not None:
            declared = tuple(model.tables[name] for name in tables)
            yield Wanted(source, tp.partition, declared, window, progress.position, progress.since)


async def _samples(
    app: web.Application, wanted: Iterable[Wanted], parts: Mapping[int, list[Cell]], key: str, n: int
) -> tuple[dict[int, list[Sample]], str | None]:
    """Samples by source partition, and why there are none."""
    if n == 0:
        return {}, None
    if SAMPLING not in app:
        return {}, "this server reads no log"
    spans = [(one, span_of(parts[one.number])) for one in wanted if one.number in parts]
    asked = [(one, span["firstOffset"], span["lastOffset"]) for one, span in spans]
    try:
        found = await app[SAMPLING].sample(asked, key, n)
    except LogError as error:
        return {}, str(error)
    return {one.number: samples for (one, _, _), samples in zip(asked, found, strict=True)}, None


def _table(served: Served, given: Mapping[str, str]) -> str:
    if ("by" in given) == ("table" in given):
        raise BadParameter("by", "give either by or table")
    if "by" in given:
        name = SALES[BY.of(given, [by for by, table in SALES.items() if table in served.tables])]
    else:
        name = TABLE.of(given) or ""
    served.of_table(name)
    return name


def _window(model: ReadModel, table: str, given: Mapping[str, str]) -> Window:
    slice_ms, start = model.slice_ms(table), WINDOW.of(given)
    if start is None:
        raise WINDOW.bad("is missing")
    if start % slice_ms:
        whole = iso(start - start % slice_ms)
        raise WINDOW.bad(f"must begin with a slice of {slice_ms / 1000:g} s, such as {whole}")
    size = SIZE.multiple(given, slice_ms) or slice_ms
    if size > SLICES_MAX * slice_ms:
        raise SIZE.bad(f"must be at most {SLICES_MAX} slices of {slice_ms / 1000:g} s")
    return Window(start, start + size)


def _shown(one: Sample) -> Row:
    value = msgspec.to_builtins(one.event)
    shown = value if isinstance(value, dict) else {"value": value}
    return {"offset": one.offset, "time": iso(one.at_ms), "timeMs": one.at_ms, "value": shown}
