"""Questions to a read model: which windows of which table, and their rows. Pure, no HTTP.

A question without `from` and `to` is about the newest hour, up to the end of the slice that the newest event of any
partition is in. A row is *final* once every partition's watermark is past its window's end and the grace; others are
provisional. Windows that retention has cut into are left out: what is left of them would be wrong.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agents.sales import CURRENCY_MARK
from tables.read_model import ReadModel
from tables.windows import Hopping, Sliding, Window, slice_start
from topologies.views.freshness import iso
from topologies.views.parameters import Parameters
from topologies.views.problems import BadParameter

HOUR_MS = 3_600_000
MAX_WINDOWS = 5_000
MAX_ROWS = 20_000
# A day's windows of an hour, each minute, and a week's of a day, each hour, are well below.
MAX_READS = 250_000
# What /api/sales?by= and its tables are called.
SALES = {by: f"sales_by_{by}" for by in ("total", "category", "region", "product")}
MONEY = ("placed", "cancelled", "refunded")

Row = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """Windows of one table, of one key or of all; times in ms, None for the default."""

    table: str
    windows: Hopping
    from_ms: int | None = None
    to_ms: int | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        """Raise BadParameter for a range that ends before it begins."""
        if self.from_ms is not None and self.to_ms is not None and self.from_ms >= self.to_ms:
            raise BadParameter("from", "from must be before to")


def newest_end(model: ReadModel, table: str) -> int:
    """The end (ms) of the slice with the newest event of any partition; 0 before the first event."""
    source = model.group.source_of(table)
    marks = model.watermarks(source.topic.name).values()
    slice_ms = model.slice_ms(table)
    return slice_start(max(marks), slice_ms) + slice_ms if marks else 0


def time_range(model: ReadModel, question: Question) -> tuple[int, int]:
    """The times `[from, to)` that are asked for, in ms."""
    if question.to_ms is not None:
        to_ms = question.to_ms
    else:
        to_ms = newest_end(model, question.table)
        if question.from_ms is not None:
            to_ms = max(to_ms, question.from_ms)
    from_ms = question.from_ms if question.from_ms is not None else max(0, to_ms - HOUR_MS)
    return from_ms, to_ms


def longest_ms(model: ReadModel, table: str) -> int:
    """How long a window may be (ms): one longer than the table is kept would never be whole, and reads without end."""
    slice_ms = model.slice_ms(table)
    return max(slice_ms, round(model.tables[table].retention_s * 1000))


def windows_of(model: ReadModel, question: Question) -> list[Window]:
    """The windows that hold any time of the range and anything that is stored, earliest first.

    Raises BadParameter when there are too many.
    """
    from_ms, to_ms = time_range(model, question)
    stored = model.bounds(question.table)
    if stored is None:
        return []
    size, hop = question.windows.size_ms, question.windows.hop_ms
    begin, end = max(from_ms, stored.start_ms), min(to_ms, stored.end_ms)
    if end <= begin:
        return []
    # windows longer than their hop begin long before the range, those that are too early are not even counted
    starts = range(
        max(slice_start(begin - size, hop), slice_start(model.complete_from(question.table) - 1, hop)) + hop, end, hop
    )
    if len(starts) > MAX_WINDOWS:
        raise too_many(f"{len(starts):,} windows, {MAX_WINDOWS:,} are allowed")
    reads = len(starts) * size // model.slice_ms(question.table)
    if hop < size and reads > MAX_READS:
        raise BadParameter("hop", f"windows that overlap would be made of {reads:,} slices: ask for a longer hop")
    return [Window(start, start + size) for start in starts]


def too_many(what: str) -> BadParameter:
    """Say that an answer would be too large."""
    return BadParameter("from", f"the answer would have {what}: ask for longer windows, a shorter range or one key")


def results_of(model: ReadModel, question: Question, window: Window, mark: str = "") -> Mapping[str, Row]:
    """The merged results of a window by key, of the question's key only if it has one."""
    if question.key is None:
        return model.results(question.table, window)
    found = model.result(question.table, window, question.key + mark)
    return {} if found is None else {question.key + mark: found}


def times_of(window: Window, closed_ms: int) -> Row:
    """What each row of a window begins with."""
    return {
        "start": iso(window.start_ms),
        "end": iso(window.end_ms),
        "startMs": window.start_ms,
        "endMs": window.end_ms,
        "final": window.end_ms <= closed_ms,
    }


def table_rows(model: ReadModel, question: Question, window: Window) -> list[Row]:
    """A window's rows of any table, by key; the aggregates' results are under `values`."""
    times = times_of(window, model.closed_before(question.table))
    found = results_of(model, question, window)
    return [{**times, "key": key, "values": found[key]} for key in sorted(found)]


def currency_mark(currency: str | None, shop: str) -> str:
    """What keys of this currency's money end with; nothing for the shop's own."""
    return "" if currency is None or currency == shop else f"{CURRENCY_MARK}{currency}"


def sales_rows(model: ReadModel, question: Question, window: Window, mark: str = "") -> list[Row]:
    """A window's rows of a sales table, by key, of one currency; with `net = placed - cancelled - refunded`."""
    times = times_of(window, model.closed_before(question.table))
    found = in_currency(results_of(model, question, window, mark), mark)
    return [{**times, "key": key, **found[key], "net": net(found[key])} for key in sorted(found)]


def in_currency(found: Mapping[str, Row], mark: str) -> dict[str, Row]:
    """The rows of one currency, by the key without it."""
    if mark:
        return {key.removesuffix(mark): row for key, row in found.items() if key.endswith(mark)}
    return {key: row for key, row in found.items() if CURRENCY_MARK not in key}


def net(row: Row) -> int:
    """What was sold and kept, in minor units."""
    sold: int = row["placed"] - row["cancelled"] - row["refunded"]
    return sold


def top_window(model: ReadModel, table: str, size_ms: int, to_ms: int | None) -> Window:
    """The newest sliding window of that size, or the one that ends with the slice in which `to_ms` is or ends."""
    slice_ms = model.slice_ms(table)
    last_ms = (newest_end(model, table) if to_ms is None else to_ms) - 1
    window = Sliding(size_ms, slice_ms).window_to(max(0, last_ms))
    return window if window.start_ms >= 0 else Window(0, window.end_ms)


def newest_window(model: ReadModel, table: str, size: str) -> Window:
    """The last `5m`, `1h` or so of a table, up to the end of the slice that its newest event is in: for custom views.

    `ReadModel.results` merges it. Raises BadParameter, which names `window`, for a size that is not a multiple of the
    table's slices.
    """
    slice_ms = model.slice_ms(table)
    return top_window(model, table, Parameters({"window": size}).windows(slice_ms).size_ms, None)


def top_rows(model: ReadModel, table: str, window: Window, metric: str, n: int, mark: str = "") -> list[Row]:
    """The n keys with the most of a metric, most first, ties by key; `revenue` is net."""
    found = in_currency(model.results(table, window), mark)
    measured = measure(found, metric)
    return ranked_rows(heapq.nsmallest(n, measured), found)


def measure(found: Mapping[str, Row], metric: str) -> list[tuple[int, str]]:
    """What keys are ranked by, lowest first: less the metric, then the key."""
    if metric == "revenue":
        return [(-net(row), key) for key, row in found.items()]
    return [(-row[metric], key) for key, row in found.items()]


def ranked_rows(ranked: Iterable[tuple[int, str]], found: Mapping[str, Row]) -> list[Row]:
    """The rows of what was measured and put in order."""
    return [
        {"rank": rank, "key": key, "value": -value, **found[key], "net": net(found[key])}
        for rank, (value, key) in enumerate(ranked, 1)
    ]


def describe(model: ReadModel, name: str) -> Row:
    """What a table keeps, from what, in which slices, for how long, and from when to when."""
    table, source = model.tables[name], model.group.source_of(name)
    stored = model.bounds(name)
    return {
        "name": name,
        "source": source.topic.name,
        "changelog": model.group.changelog(table).name,
        "partitions": source.topic.partitions,
        "aggregates": {key: aggregate.describe() for key, aggregate in table.aggregates.items()},
        "slice_s": model.slice_ms(name) / 1000,
        "grace_s": source.time.grace_ms / 1000,
        "retention_s": table.retention_s,
        "finals": table.finals.name if table.finals is not None else None,
        "stored": times_of(stored, model.closed_before(name)) if stored is not None else None,
    }
