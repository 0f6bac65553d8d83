"""A short hash of what a table says: two runs over the same log, however different, must come to the same one.

It is taken over *results*, never over bytes of state: a sketch's bytes depend on the order of its events, what it
answers does not. And only over *closed* windows that are whole, `[from_ms, until_ms)`: until where every source
partition's watermark has closed them, from where no partition has dropped anything. Both follow from the newest
progress alone, so the digest is a function of the log up to there. Batch sizes, workers, restarts and when flushes
happened do not show, nor do offsets, and duplicates that were dropped.

What is hashed (SHA-256, the first 32 hex digits are shown): for each slice and key, in the order of (slice start,
key), one line of JSON `[slice start in ms, key, {aggregate: result, ...}]`, the names sorted. The table's name is
not part of it, so a copy under another name compares equal.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from streams.log import TP, Log
from tables.read_model import ReadModel
from tables.windows import Window

HEX_DIGITS = 32

Row = tuple[int, str, Mapping[str, Any]]


@dataclass(frozen=True)
class Digest:
    """One table's digest over the slices of `[from_ms, until_ms)` that have cells. Equal if what they say is equal.

    `closed` says whether all of these slices are over for good.
    """

    digest: str
    windows: int
    cells: int
    from_ms: int
    until_ms: int
    closed: bool = True


def digest_rows(rows: Iterable[Row], from_ms: int, until_ms: int, *, closed: bool = True) -> Digest:
    """The digest of rows `(slice start, key, results)` in any order; those outside `[from_ms, until_ms)` are left out.

    >>> rows = [(60_000, "b", {"sum": 1}), (0, "a", {"sum": 2}), (120_000, "a", {"sum": 3})]
    >>> digest_rows(rows, 0, 120_000) == digest_rows(rows[1::-1], 0, 120_000)
    True
    """
    wanted = sorted((row for row in rows if from_ms <= row[0] < until_ms), key=lambda row: row[:2])
    return _digest(wanted, from_ms, until_ms, closed)


def digest_model(model: ReadModel, table: str, *, from_ms: int | None = None, until_ms: int | None = None) -> Digest:
    """The digest of a table of a read model, of all whole closed slices or of those that start in `[from, until)`.

    Slices before `from_ms` that are not whole any more, and after `until_ms` that may still change, are hashed as
    they are if they are asked for; the latter is said in `closed`.
    """
    closed_ms = model.closed_before(table)
    start = model.complete_from(table) if from_ms is None else from_ms
    end = closed_ms if until_ms is None else until_ms
    return _digest(_rows(model, table, start, end), start, max(start, end), end <= closed_ms)


def _rows(model: ReadModel, table: str, start: int, end: int) -> Iterator[Row]:
    stored = model.bounds(table)
    if stored is None:
        return
    slice_ms = model.slice_ms(table)
    first = -(-max(start, stored.start_ms) // slice_ms) * slice_ms
    for at in range(first, min(end, stored.end_ms), slice_ms):
        found = model.results(table, Window(at, at + slice_ms))
        yield from ((at, key, found[key]) for key in sorted(found))


def _digest(rows: Iterable[Row], from_ms: int, until_ms: int, closed: bool) -> Digest:
    sha, cells, windows = hashlib.sha256(), 0, set()
    for at, key, results in rows:
        # The standard library's JSON: sums may be wider than 64 bits, which faster ones refuse.
        sha.update(json.dumps([at, key, dict(results)], sort_keys=True, separators=(",", ":")).encode())
        sha.update(b"\n")
        windows.add(at)
        cells += 1
    return Digest(sha.hexdigest()[:HEX_DIGITS], len(windows), cells, from_ms, until_ms, closed)


async def read_up(model: ReadModel, log: Log) -> int:
    """Bring a read model up to what its topics hold now; returns how many records that took. Raises LogError.

    The progress is read first: what it names is then before the changelogs' ends.
    """
    before = model.records
    progress = [tp for tp in model.positions() if tp.topic == model.group.progress.name]
    for tps in (progress, [tp for tp in model.positions() if tp not in progress]):
        starts, ends = await log.start_offsets(tps), await log.end_offsets(tps)
        spans = {tp: (max(starts[tp], model.positions()[tp]), ends[tp]) for tp in tps}
        async for tp, records in log.read(spans):
            model.apply(TP(*tp), records)
    return model.records - before
