"""Bringing partitions back: what is durable is read, and accumulators stand as of the newest progress or ahead of it.

Order matters. First the progress topic is read to its end, *then* the changelogs' ends are asked for and read up to:
a progress is written after its changelog records are acknowledged, so every end that a progress names has been read
(the ends of several topics cannot be read at one moment).

- Records of the source below the newest progress' position are skipped whole: their late events and dead letters
  were decided then, with an older watermark.
- Beyond it, accumulators of a torn flush may be ahead. `highest` is the highest stamp seen: batches that start at or
  below it are applied with the stamp check on.
- Of a key's changelog records the one with the highest stamp is kept, not the last: a zombie may have written late.
- Where a key's last record is not its best (a zombie wrote, and its successor died before it settled that), the key
  is noted, also in the store, and the next flush says the best one again: compaction keeps the last record.
- Keys of slices behind the retention horizon are taken like others, and dropped by the next flush with their
  tombstones: were they ignored, a put that nobody has dropped yet would stay in the changelog for ever.
- A source without progress is pinned to its start at once, before anything is applied: without a position a first
  batch that was lost on the way could not be missed. So a changelog that has records always has a progress.
- A table whose row has grown by aggregates at its end says so at once, too, with an epoch above all former ones
  (tables.layout); any other change of a row is refused.
- The local store only spares reading: where it is missing, everything is read from the changelogs.
- A store that a replay in place has outdated (tables.renewal), as on a host that it did not run on, is dropped, and
  of the changelogs a zombie's cells of an epoch before it: the next flush says what is right of their keys.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import cast

from streams.codecs import decoder
from streams.dedupe import seen_of
from streams.intake import Intake
from streams.log import TP, Log, Record
from tables import progress as progress_records
from tables import put_aside
from tables.accumulators import OFFSET_SLICE, STAMP_SLICE, encode_key, epoch_of
from tables.cache import Cache
from tables.flush import flush
from tables.layout import Fit, StateUnfit, fit, kept, refusal, sliced_otherwise
from tables.lost import ChangelogLost
from tables.partition import Feed, Partition
from tables.points import reached
from tables.progress import Progress
from tables.store import Store, StoreLocked, wipe
from tables.table import Group, Source, Table

LOCK_WAIT_S = 2.0
LOCK_POLL_S = 0.05


@dataclass(frozen=True)
class Restored:
    """A partition that is ready, and what it took."""

    partition: Partition
    changelog_records: int
    seconds: float
    private: bool


async def restore(
    group: Group,
    numbers: Sequence[int],
    directory: Path,
    log: Log,
    *,
    generation: int = 0,
    topic_ids: Mapping[str, str] | None = None,
    private_suffix: str = "private",
    lock_wait_s: float = LOCK_WAIT_S,
    starts: Mapping[TP, int | None] | None = None,
    on_records: Callable[[int], None] | None = None,
) -> list[Restored]:
    """Open and bring up to date the partitions of these numbers.

    Raises `StateUnfit`, `ChangelogLost`, `StoreDamaged`, `StoreFailed`, `LogError`. `starts` says where a source goes
    on that has no progress yet; without it, at its first record.
    """
    started = time.perf_counter()
    deadline = time.monotonic() + lock_wait_s
    stores: dict[int, tuple[Store, bool]] = {}
    try:
        for number in numbers:
            stores[number] = await _open(group, number, directory, private_suffix, deadline)
        progress, stale = await _read_progress(group, numbers, log, generation)
        for number in numbers:
            stores[number] = _of_these_tables(group, number, stores[number], progress[number])
        partitions = {}
        for number in numbers:
            store = stores[number][0]
            partitions[number] = _assemble(group, number, store, log, progress[number], generation, topic_ids or {})
            partitions[number].stale_progress = stale[number]
        await _check_sources(partitions, log)
        counts = await _read_changelogs(partitions, log, on_records)
        await _relearn(partitions, log)
        await _load_put_aside(group, partitions, log)
        await _begin(partitions, log, starts or {})
    except BaseException:
        for store, _ in stores.values():
            store.close()
        raise
    seconds = time.perf_counter() - started
    return [Restored(partitions[n], counts[n], seconds, stores[n][1]) for n in numbers]


async def _open(group: Group, number: int, directory: Path, suffix: str, deadline: float) -> tuple[Store, bool]:
    tables = [table.name for table in _of_partition(group, number)]
    path = directory / group.name / str(number)
    private = path.with_name(f"{number}.{suffix}")
    while True:
        try:
            store = Store(path, tables)
        except StoreLocked:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(LOCK_POLL_S)
            continue
        wipe(private)
        return store, False
    # The owner before us still holds the lock: paused, or slow to end. A stopped process keeps its lock for ever.
    with contextlib.suppress(StoreLocked):
        return Store(private, tables), True
    raise StoreLocked(f"{path} and {private} are both open in other processes: give --name or --state")


def _of_these_tables(
    group: Group, number: int, opened: tuple[Store, bool], progress: Mapping[str, Progress]
) -> tuple[Store, bool]:
    """The store, begun anew where a replay in place has dropped the tables that it is of."""
    store, private = opened
    renewed = max([known.renewed for known in progress.values()], default=0)
    if int(store.meta("renewed") or 0) >= renewed:
        return opened
    store.close()
    wipe(store.path)
    store = Store(store.path, [table.name for table in _of_partition(group, number)])
    change = store.change()
    change.meta("renewed", str(renewed).encode())
    change.write()
    return store, private


def _of_partition(group: Group, number: int) -> list[Table]:
    return [t for s in group.sources if number < s.topic.partitions for t in s.tables]


async def _read_progress(
    group: Group, numbers: Iterable[int], log: Log, generation: int
) -> tuple[dict[int, dict[str, Progress]], dict[int, dict[str, list[bytes]]]]:
    tps = {TP(group.progress.name, n): n for n in numbers}
    starts, ends = await log.start_offsets(tps), await log.end_offsets(tps)
    records: dict[int, list[Record]] = {n: [] for n in tps.values()}
    async for tp, batch in log.read({tp: (starts[tp], ends[tp]) for tp in tps}):
        records[tps[tp]] += batch
    newest = {n: progress_records.newest(found, n) for n, found in records.items()}
    return newest, {n: progress_records.stale_keys(found, generation) for n, found in records.items()}


def _assemble(
    group: Group,
    number: int,
    store: Store,
    log: Log,
    progress: dict[str, Progress],
    generation: int,
    topic_ids: Mapping[str, str],
) -> Partition:
    feeds = {}
    for source in group.sources:
        if number < source.topic.partitions:
            name = source.topic.name
            written = _newer(store, name, group.progress.name, progress.get(name))
            grown = _check_fit(group, source, written, topic_ids) if written is not None else []
            feeds[name] = _feed(source, number, store, written, grown)
    epoch = max([feed.durable.epoch for feed in feeds.values() if feed.durable] or [0])
    if any(feed.grown for feed in feeds.values()):
        epoch += 1  # cells of the former row, however far ahead, lose against those of this one
    renewed = max([feed.durable.renewed for feed in feeds.values() if feed.durable] or [0])
    names = [cache.table.name for feed in feeds.values() for cache in feed.caches]
    ends = {name: store.next_offset(name) for name in names}
    outdone = {name: keys for name in names if (keys := store.outdone(name))}
    return Partition(
        group, number, store, log, feeds, ends, generation, epoch, renewed, dict(topic_ids), outdone=outdone
    )


def _newer(store: Store, topic: str, progress_topic: str, written: Progress | None) -> Progress | None:
    raw = store.meta(f"progress:{topic}")
    local = progress_records.decode(raw) if raw is not None else None
    if local is not None and written is None:
        raise ChangelogLost(progress_topic)  # what is kept here was said there first
    if local is not None and written is not None:
        return local if local.order > written.order else written
    return written or local


def _feed(source: Source, number: int, store: Store, progress: Progress | None, grown: Sequence[str]) -> Feed:
    assert source.topic.value is not None or source.decode is not None
    decode = source.decode or decoder(source.topic.value)  # type: ignore[arg-type]  # one of them is there
    intake = Intake(decode, source.time_of, source.time, seen_of(source.topic))
    caches = [Cache(table, store, source.slice_ms(table)) for table in source.tables]
    feed = Feed(source, TP(source.topic.name, number), intake, caches)
    highest = store.meta(f"highest:{source.topic.name}")
    feed.highest = int(highest) if highest is not None else -1
    if progress is not None:
        feed.durable, feed.position, feed.committed = progress, progress.position, progress.committed
        feed.marks, intake.watermark = dict(progress.marks), progress.watermark
        feed.poison_run, feed.poison_from = progress.poison_run, progress.poison_from
    start = 0 if progress is None else progress.position
    known = {} if progress is None else progress.since
    feed.since = {table.name: known.get(table.name, start) for table in source.tables}
    feed.since |= {name: at for name, at in known.items() if "." in name and name.partition(".")[0] in feed.since}
    feed.since |= dict.fromkeys(grown, start)
    feed.grown = bool(grown)
    return feed


def _check_fit(group: Group, source: Source, progress: Progress, topic_ids: Mapping[str, str]) -> list[str]:
    """Which aggregates were appended since the progress was written, as `table.aggregate`.

    Raises `StateUnfit`, and `ChangelogLost` where a changelog is not the topic that it was.
    """
    name = source.topic.name
    topic_id = topic_ids.get(name, "")
    if topic_id and progress.topic_id and topic_id != progress.topic_id:
        raise StateUnfit(
            f"topic {name} was deleted and made anew since its tables were written: their offsets mean nothing now; "
            "replay the group from earliest (`millrace replay <topology>`), or give it another name"
        )
    grown: list[str] = []
    for table in source.tables:
        changelog = group.changelog(table).name
        if (now_id := topic_ids.get(changelog)) and progress.changelogs.get(table.name, now_id) != now_id:
            raise ChangelogLost(changelog)
        if table.name not in progress.schemas:
            continue
        width = source.slice_ms(table)
        if progress.slices_ms.get(table.name, width) != width:
            raise sliced_otherwise(table.name, group.name, width, progress.slices_ms[table.name])
        now = table.row.layout
        written = kept(now, progress.schemas[table.name], progress.layouts.get(table.name))
        if written is None or fit(now, written) in (Fit.OLDER, Fit.OTHER):
            raise refusal(table.name, group.name, now, written)
        grown += [f"{table.name}.{aggregate}" for aggregate, _ in now[len(written) :]]
    return grown


async def _check_sources(partitions: Mapping[int, Partition], log: Log) -> None:
    feeds = [feed for p in partitions.values() for feed in p.feeds.values() if feed.position is not None]
    ends = await log.end_offsets([feed.tp for feed in feeds])
    for feed in feeds:
        if feed.position is not None and feed.position > ends[feed.tp]:
            raise StateUnfit(
                f"{feed.tp.topic}[{feed.tp.partition}] ends at {ends[feed.tp]}, but its tables contain everything "
                f"before {feed.position}: records were lost or the topic was made anew; replay the group from earliest "
                "(`millrace replay <topology>`)"
            )


async def _read_changelogs(
    partitions: Mapping[int, Partition], log: Log, on_records: Callable[[int], None] | None
) -> dict[int, int]:
    targets = {
        TP(p.group.changelog(cache.table).name, p.number): (p, feed, cache)
        for p in partitions.values()
        for feed in p.feeds.values()
        for cache in feed.caches
    }
    starts, ends = await log.start_offsets(targets), await log.end_offsets(targets)
    spans = {}
    for tp, (partition, _, cache) in targets.items():
        name = cache.table.name
        if partition.ends[name] > ends[tp]:
            raise ChangelogLost(tp.topic)
        spans[tp] = (max(starts[tp], partition.ends[name]), ends[tp])
        partition.ends[name] = ends[tp]
    counts = dict.fromkeys(partitions, 0)
    async for tp, records in log.read(spans):
        partition, feed, cache = targets[tp]
        apply_changelog(partition, feed, cache, records)
        reached("recovering")
        counts[partition.number] += len(records)
        if on_records is not None:
            on_records(len(records))
    _check_named_ends(partitions)
    return counts


def _check_named_ends(partitions: Mapping[int, Partition]) -> None:
    for partition in partitions.values():
        for feed in partition.feeds.values():
            for name, end in (feed.durable.ends if feed.durable else {}).items():
                if end > partition.ends.get(name, end):
                    raise ChangelogLost(_changelog(partition, name))


def _changelog(partition: Partition, table: str) -> str:
    return next(partition.group.changelog(t).name for t in partition.group.tables if t.name == table)


def apply_changelog(partition: Partition, feed: Feed, cache: Cache, records: Sequence[Record]) -> None:
    """Take a stretch of a changelog into the store, and remember how far it was read."""
    name, end = cache.table.name, records[-1].offset + 1
    best, outdone = _best(records)
    outdone |= _drop_outdone(best, cache)
    if partition.renewed:
        outdone |= _drop_former(best, partition.renewed)
    change = partition.store.change()
    gone = [key for key, value in best.items() if value is None]
    change.delete_all(name, gone)
    for key in gone:
        del best[key]
    puts = cast(dict[bytes, bytes], best)
    change.put_all(name, puts.items())
    change.meta(f"next:{name}", str(end).encode())
    if outdone:
        partition.outdone.setdefault(name, set()).update(outdone)
        change.outdone(name, end, outdone)
    if puts:
        # Of all epochs: a zombie's cell of an older one may be the furthest.
        top = max(map(itemgetter(OFFSET_SLICE), puts.values()))
        feed.highest = max(feed.highest, int.from_bytes(top, "big"))
        cache.stored_up_to(int.from_bytes(max(puts)[:8], "big"))
    change.meta(f"highest:{feed.tp.topic}", str(feed.highest).encode())
    change.write()


def _best(records: Sequence[Record]) -> tuple[dict[bytes, bytes | None], set[bytes]]:
    """Each key's record with the highest stamp, a tombstone before what came earlier; and which keys are outdone.

    A key is outdone if its last record, which is what compaction keeps, is not its best. Runs for every record of a
    restore, so what does not need Python's own loop is left to `dict`.
    """
    keys, values = [record.key for record in records], [record.value for record in records]
    last = dict(zip(keys, values, strict=True))
    best: dict[bytes | None, bytes | None] = last
    outdone: set[bytes] = set()
    if len(last) < len(keys):
        best = {}
        for key, value in zip(keys, values, strict=True):
            known = best.get(key)
            if known is None or value is None or value[STAMP_SLICE] >= known[STAMP_SLICE]:
                best[key] = value
        outdone = {key for key, value in best.items() if key is not None and value is not last[key]}
    best.pop(None, None)
    return cast(dict[bytes, bytes | None], best), outdone


def _drop_outdone(best: dict[bytes, bytes | None], cache: Cache) -> set[bytes]:
    """Leave out what the store has with the same stamp or a higher one; returns the keys that have a higher one.

    A slice newer than any stored has nothing to compare with: most of a restore from nothing is spared the look.
    """
    first_new = encode_key(cache.newest_stored + 1, "")
    known = [key for key in best if key < first_new]
    higher: set[bytes] = set()
    for key, old in zip(known, cache.store.get_many(cache.table.name, known), strict=True):
        value = best[key]
        if value is not None and old is not None and value[STAMP_SLICE] <= old[STAMP_SLICE]:
            if value[STAMP_SLICE] < old[STAMP_SLICE]:
                higher.add(key)
            del best[key]
    return higher


def _drop_former(best: dict[bytes, bytes | None], renewed: int) -> set[bytes]:
    """Leave out what is of tables that a replay in place has dropped; returns its keys."""
    former = {key for key, value in best.items() if value is not None and epoch_of(value) < renewed}
    for key in former:
        del best[key]
    return former


async def _begin(partitions: Mapping[int, Partition], log: Log, starts: Mapping[TP, int | None]) -> None:
    new = [(p, feed) for p in partitions.values() for feed in p.feeds.values() if feed.durable is None]
    first = await log.start_offsets([feed.tp for _, feed in new])
    for partition, feed in new:
        if any(partition.ends[cache.table.name] for cache in feed.caches):
            raise ChangelogLost(partition.group.progress.name)
        start = starts.get(feed.tp)
        feed.position = first[feed.tp] if start is None else start
        feed.since = {cache.table.name: feed.position for cache in feed.caches}
    grown = [p for p in partitions.values() if any(feed.grown for feed in p.feeds.values())]
    for partition in {p.number: p for p in [*(p for p, _ in new), *grown]}.values():
        await flush(partition)


async def _relearn(partitions: Mapping[int, Partition], log: Log) -> None:
    """Know the recent event ids again: from the local store, and from the source where the store ends before."""
    spans: dict[TP, tuple[int, int]] = {}
    feeds: dict[TP, Feed] = {}
    for partition in partitions.values():
        for feed in partition.feeds.values():
            durable = feed.durable
            if feed.intake.seen is None or durable is None or durable.read_back is None:
                continue
            known = _load_seen(partition.store, feed)
            spans[feed.tp] = (max(durable.read_back, known or 0), durable.position)
            feeds[feed.tp] = feed
            feed.intake.seen.advance(feed.intake.seen.now(durable.watermark, durable.position), durable.read_back)
    starts = await log.start_offsets(spans)
    spans = {tp: (max(start, starts[tp]), end) for tp, (start, end) in spans.items()}
    async for tp, records in log.read(spans):
        feeds[tp].intake.relearn(records)


async def _load_put_aside(group: Group, partitions: Mapping[int, Partition], log: Log) -> None:
    feeds = [feed for partition in partitions.values() for feed in partition.feeds.values()]
    sources = {feed.tp: (feed.intake.aside, feed.put_aside, feed.position or 0) for feed in feeds}
    await put_aside.load(group, sources, log)


def _load_seen(store: Store, feed: Feed) -> int | None:
    """Load the stretches of event ids that the store has; returns the offset that they go up to, None without any."""
    topic, seen = feed.tp.topic, feed.intake.seen
    raw = store.meta(f"progress:{topic}")
    if raw is None or seen is None:
        return None
    for name, drained in store.metas(f"seen:{topic}:"):
        feed.seen_kept[name] = seen.load(drained)
    return progress_records.decode(raw).position


def forget(group: Group, number: int, directory: Path) -> None:
    """Delete the local state of one partition; the next restore reads the changelogs whole."""
    wipe(directory / group.name / str(number))
