"""Final results: one merged record for each closed slice and key, by a two-phase aggregation.

*First stage.* When a slice closes in a source partition, its partials go to `<group>-<table>-partials`, keyed by
slice and key, all of a slice to one partition; after them a mark, to every partition: "source partition p has closed
everything before t". They are part of a flush, before its progress, so none is ever missing; repeats carry the same
stamps.

*Second stage.* The partials topic is a source like any other. Its table keeps, for each key and source partition,
the partial with the highest stamp. Once every source partition's mark has passed a slice, the partials are merged
and the result is upserted, with the slice and key as its key.

*Quiet streams.* A source partition without events closes nothing, however late it is by the wall clock. When the
marks have stood still for `IDLE_S`, what is known of slices that others have closed goes out as provisional
(`"final": false`), once. That decides neither lateness nor expiry, and the final result replaces it.

Once its final is durable a slice is dropped here: the second stage keeps only what is still open somewhere.

Wire format: `>IQH` = source partition, slice start (ms), length of the key; the key in UTF-8; then the changelog's
own value (tables.accumulators). A mark has no key and no value, and its slice start is the first one still open.
"""

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streams.codecs import Undecodable
from streams.intake import EventTime
from streams.log import TP, Entry
from streams.topics import Topic
from tables.accumulators import STATES, decode_key, encode_key
from tables.horizon import final_before
from tables.newest import NewestBySource
from tables.table import Group, Source, Table

if TYPE_CHECKING:
    from tables.cache import Cache
    from tables.partition import Feed, Partition

HEADER = struct.Struct(">IQH")
# Not orjson, which refuses integers beyond 64 bits: one order of a million pieces at the highest price is more.
_json = msgspec.json.Encoder().encode
CENTURY_MS = 100 * 365 * 86_400_000


class Partial(NamedTuple):
    """One source partition's accumulator of one closed slice, or (without value) its mark."""

    window: int
    key: str
    partition: int
    value: bytes


def partials_topic(group: Group, table: Table) -> Topic:
    """Where the first stage hands its closed slices over."""
    partitions = group.source_of(table.name).topic.partitions
    return Topic(f"{group.name}-{table.name}-partials", key="slice start, key", partitions=partitions)


def with_finals(group: Group) -> Group:
    """The group with a second-stage source for each table that declares `finals`."""
    stages = [_second_stage(group, s, t) for s in group.sources for t in s.tables if t.finals is not None]
    return replace(group, sources=(*group.sources, *stages))


def _second_stage(group: Group, source: Source, table: Table) -> Source:
    keeper = Table(
        f"{table.name}-finals",
        {"partial": NewestBySource()},
        fold=fold_partial,
        retention_s=table.retention_s,
    )
    # No partial is ever late: a partition that lags by days in event time still closes its slices.
    time = EventTime(source.slice_ms(table), grace_ms=CENTURY_MS, max_ahead_ms=CENTURY_MS)
    return Source(
        partials_topic(group, table),
        (keeper,),
        time,
        time_of=lambda partial, _: partial.window,
        decode=decode_partial,
        mark=mark_of,
        finals_of=table,
    )


def encode_partial(partial: Partial) -> bytes:
    """The bytes on the wire."""
    key = partial.key.encode()
    return HEADER.pack(partial.partition, partial.window, len(key)) + key + partial.value


def decode_partial(raw: bytes | None) -> Partial:
    """Read a partial. Raises `Undecodable`."""
    try:
        partition, window, length = HEADER.unpack_from(raw or b"")
        key = (raw or b"")[HEADER.size : HEADER.size + length].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise Undecodable(f"not a partial: {error}") from error
    return Partial(window, key, partition, (raw or b"")[HEADER.size + length :])


def fold_partial(partial: Partial) -> list[tuple[str, tuple[int, bytes]]]:
    """Second stage: keep the newest partial of each source partition."""
    return [(partial.key, (partial.partition, partial.value))] if partial.value else []


def mark_of(partial: Partial) -> tuple[str, int] | None:
    """How far a source partition has closed its slices."""
    return None if partial.value else (str(partial.partition), partial.window)


def derived_records(partition: "Partition", feed: "Feed", cache: "Cache") -> list[tuple[TP, Entry]]:
    """What a flush derives from slices that closed since the last durable progress."""
    if feed.source.finals_of is not None:
        return _finals(partition, feed, cache, feed.source.finals_of)
    if cache.table.finals is not None:
        return _partials(partition, feed, cache)
    return []


def _partials(partition: "Partition", feed: "Feed", cache: "Cache") -> list[tuple[TP, Entry]]:
    source, table = feed.source, cache.table
    closed = source.closed_before(table, feed.intake.watermark)
    start = source.closed_before(table, feed.durable.watermark) if feed.durable is not None else 0
    if closed <= start:
        return []
    topic = partials_topic(partition.group, cache.table)
    out: list[tuple[TP, Entry]] = []
    for key, raw in _cells(cache, start, closed, partition.epoch):
        window, name = decode_key(key)
        to = TP(topic.name, window // cache.slice_ms % topic.partitions)
        out.append((to, Entry(key, encode_partial(Partial(window, name, partition.number, raw)))))
    mark = encode_partial(Partial(closed, "", partition.number, b""))
    key = f"closed:{partition.number}".encode()
    return out + [(TP(topic.name, p), Entry(key, mark)) for p in range(topic.partitions)]


def _finals(partition: "Partition", feed: "Feed", cache: "Cache", table: Table) -> list[tuple[TP, Entry]]:
    assert table.finals is not None
    start = final_before(feed, feed.durable.marks) if feed.durable else 0
    return _results(partition, feed, cache, table, start, final_before(feed, feed.marks), final=True)


def provisional(partition: "Partition", feed: "Feed") -> list[tuple[TP, Entry]]:
    """What is known of slices that some source partitions have closed and others not, marked `"final": false`.

    For a stream that has gone quiet. It decides nothing: the final result replaces it, by the same key.
    """
    table = feed.source.finals_of
    if table is None or table.finals is None or not feed.marks:
        return []
    start, end = final_before(feed, feed.marks), max(feed.marks.values())
    return _results(partition, feed, feed.caches[0], table, start, end, final=False)


def _results(
    partition: "Partition", feed: "Feed", cache: "Cache", table: Table, start: int, end: int, *, final: bool
) -> list[tuple[TP, Entry]]:
    assert table.finals is not None
    to = TP(table.finals.name, partition.number % table.finals.partitions)
    out: list[tuple[TP, Entry]] = []
    for key, raw in _cells(cache, start, end, partition.epoch):
        partials = cache.table.row.decode(raw)[1][STATES]
        window, name = decode_key(key)
        value = final_result(table, cache.slice_ms, window, name, partials, final=final)
        out.append((to, Entry(_json([table.name, window, name]), value)))
    return out


def final_result(
    table: Table, slice_ms: int, window: int, key: str, partials: dict[int, bytes], *, final: bool
) -> bytes:
    """The merged result of one slice and key as JSON: times in ms, every aggregate's result by its name."""
    cells = [table.row.decode(raw)[1] for raw in partials.values()]
    fields: dict[str, Any] = {"table": table.name, "windowStart": window, "windowEnd": window + slice_ms, "key": key}
    return _json({**fields, **table.row.results(table.row.merge(cells)), "final": final})


def _cells(cache: "Cache", start: int, end: int, epoch: int) -> Iterator[tuple[bytes, bytes]]:
    """The cells of slices `[start, end)` as they are now: in memory where newer, else as stored; in key order."""
    found = dict(cache.stored(start, end)) if end > start else {}
    for window, cells in cache.windows.items():
        if start <= window < end:
            for name, cell in cells.items():
                found[encode_key(window, name)] = cache.table.row.encode(cell, epoch)
    yield from sorted(found.items())
