"""A flush: what was applied becomes durable, in an order that a crash cannot hurt anywhere.

1. Dirty accumulators are encoded at one moment, together with the position and watermark that they stand for.
2. Changelog records, expiry tombstones, late events, dead letters and partials of closed slices are appended; all
   acknowledgements are awaited (acks=all).
3. *Foreign writers.* Each changelog's acknowledgement must continue our own last offset. If it does not, somebody
   else (a zombie: a former owner that was paused) wrote in between. What it wrote is read, the state with the higher
   stamp is kept, and where that is ours it is appended again: compaction keeps a key's last record, so the last one
   must be the best one. Until then there is no progress and no local write.
4. The progress record is appended: everything below `position` is in the changelogs up to the named ends.
5. One WriteBatch takes the local store there, with the same bytes.
6. Only now may the position be committed.

Crash after 2: the accumulators are ahead of the progress; their stamps make the replay harmless. After 4: the store
is behind; it reads the changelog's tail. After 5: the committed offset is behind; records below the position are
skipped. On an error or a cancellation before 5 ends the cells are dirty again, and the next flush repeats it all.

*What was committed* is heard after the flush, and said by the next one's progress; where nothing else comes, one more
flush says that alone. Without it, offsets that an operator sets back behind the last flush would look like those of a
crash before its commit: after a single flush, all of them.

*Expiry.* A slice is dropped only when an earlier flush's progress covers its end plus the retention: were it dropped
in the flush that closes it, a replay from the progress before would start it anew from nothing.
"""

import time
from dataclasses import dataclass, field
from itertools import chain

import msgspec

from streams.log import TP, Entry, Span
from tables import put_aside
from tables.accumulators import DIRTY, STAMP, decode_key, encode_key, epoch_of, stamp_of
from tables.cache import SMALL_BYTES, Cache, Taken
from tables.deciding import decided_records, looked_at_from
from tables.finals import derived_records
from tables.horizon import horizon
from tables.lost import ChangelogLost
from tables.partition import Feed, Partition
from tables.points import reached
from tables.progress import Progress, encode
from tables.store import Change

Pairs = list[tuple[bytes, bytes]]


@dataclass
class TableFlush:
    """One table's part of a flush: `puts` and `drops` go to the changelog and, in the end, into the store."""

    feed: Feed
    cache: Cache
    tp: TP
    taken: Taken
    puts: Pairs = field(default_factory=list)
    drops: list[bytes] = field(default_factory=list)
    expire: tuple[int, int] | None = None
    end: int = 0
    settled: tuple[int, int] | None = None
    outdone: set[bytes] = field(default_factory=set)


@dataclass
class Pending:
    """Everything that one flush writes."""

    tables: list[TableFlush]
    progress: list[Progress]
    side: list[tuple[Feed, list[tuple[TP, Entry]]]]
    derived: list[tuple[TP, Entry]]
    seen: dict[str, bytes]
    aside: list[tuple[Feed, put_aside.Taken]]


async def flush(partition: Partition) -> bool:
    """Make all applied records durable. Returns whether there was anything to do.

    Raises `LogError` when the log cannot be written now; nothing is lost, the next flush tries again.
    """
    async with partition.lock:
        if not partition.changed:
            return False
        started = time.perf_counter()
        pending = take(partition)
        try:
            await _append(partition, pending)
            reached("changelog-sent")
            await _append_progress(partition, pending)
            reached("progress-sent")
            _write_store(partition, pending)
            reached("store-written")
        except BaseException:
            _give_back(pending)
            raise
        _finish(partition, pending, time.perf_counter() - started)
        return True


def take(partition: Partition) -> Pending:
    """Encode what is dirty and note what it stands for, in one uninterrupted step."""
    derived = decided_records(partition)  # first: it may raise, and nothing is taken yet
    tables, progress, side, aside = [], [], [], []
    for feed in partition.feeds.values():
        if feed.position is None:
            continue
        out, feed.side = feed.side, []
        for cache in feed.caches:
            derived += derived_records(partition, feed, cache)
            tables.append(_take_table(partition, feed, cache))
        if feed.changed:
            progress.append(_progress(partition, feed))
            aside.append((feed, put_aside.take(feed.intake.aside, feed.put_aside, feed.position)))
        side.append((feed, out))
    # Ids go with their feed's progress: one that does not move keeps those that it has read again from the source.
    moved = (feed for feed in partition.feeds.values() if feed.changed)
    seen = {feed.tp.topic: feed.intake.seen.drain() for feed in moved if feed.intake.seen is not None}
    return Pending(tables, progress, side, derived, seen, aside)


def _take_table(partition: Partition, feed: Feed, cache: Cache) -> TableFlush:
    taken = cache.take_dirty()
    encode_cell, epoch = cache.table.row.encode, partition.epoch
    puts = [(encode_key(window, key), encode_cell(cell, epoch)) for window, key, cell in taken]
    for (window, key, _), (_, raw) in zip(taken, puts, strict=True):
        if len(raw) > SMALL_BYTES:
            cache.weigh(window, key, raw)
    tp = TP(partition.group.changelog(cache.table).name, partition.number)
    table_flush = TableFlush(feed, cache, tp, taken, puts)
    edge = horizon(partition, feed, cache)
    start = partition.expired_before.get(cache.table.name, 0)
    # A second stage may get a partial again of a slice that it has dropped: that one goes too.
    start = min(start, cache.oldest(edge))
    if edge > start:
        table_flush.expire = (start, edge)
        first_kept = encode_key(edge, "")
        table_flush.puts = [pair for pair in puts if pair[0] >= first_kept]
        stored = dict.fromkeys(key for key, _ in cache.stored(start, edge))
        table_flush.drops = list(stored | dict.fromkeys(key for key, _ in puts if key < first_kept))
    return table_flush


def _progress(partition: Partition, feed: Feed) -> Progress:
    assert feed.position is not None
    seen = feed.intake.seen
    return Progress(
        topic=feed.tp.topic,
        partition=partition.number,
        position=feed.position,
        watermark=feed.intake.watermark,
        epoch=partition.epoch,
        generation=partition.generation,
        committed=feed.committed,
        topic_id=partition.topic_ids.get(feed.tp.topic, ""),
        read_back=seen.read_back_from if seen is not None else None,
        since=feed.since,
        schemas={cache.table.name: cache.table.row.fingerprint for cache in feed.caches},
        marks=dict(feed.marks),
        poison_run=feed.poison_run,
        poison_from=feed.poison_from,
        layouts={cache.table.name: cache.table.row.layout for cache in feed.caches},
        slices_ms={cache.table.name: cache.slice_ms for cache in feed.caches},
        changelogs=_changelog_ids(partition, feed),
        renewed=partition.renewed,
    )


def _changelog_ids(partition: Partition, feed: Feed) -> dict[str, str]:
    names = {cache.table.name: partition.group.changelog(cache.table).name for cache in feed.caches}
    return {table: partition.topic_ids[name] for table, name in names.items() if name in partition.topic_ids}


async def _append(partition: Partition, pending: Pending) -> None:
    appends: dict[TP, list[Entry]] = {}
    aside = [entry for _, taken in pending.aside for entry in taken.entries]
    if aside:
        appends[TP(partition.group.put_aside.name, partition.number)] = aside
    for table in pending.tables:
        table.end = partition.ends[table.cache.table.name]
        entries = [Entry(key, value) for key, value in table.puts] + [Entry(key, None) for key in table.drops]
        entries += _said_again(partition, table)
        if entries:
            appends[table.tp] = entries
    for tp, entry in chain(pending.derived, *(out for _, out in pending.side)):
        appends.setdefault(tp, []).append(entry)
    spans = await partition.log.append(appends) if appends else {}
    for table in pending.tables:
        known = partition.gaps.get(table.cache.table.name)
        gaps = [known] if known is not None else []
        gaps += _gaps(table, spans.get(table.tp, []))
        while gaps:
            again = await _absorb(partition, table, gaps)
            answered = await partition.log.append({table.tp: again}) if again else {}
            gaps = _gaps(table, answered.get(table.tp, []))
        table.settled = known


def _said_again(partition: Partition, table: TableFlush) -> list[Entry]:
    """What the store has of keys whose last record is not their best, where this flush does not say them anyway."""
    name = table.cache.table.name
    table.outdone = set(partition.outdone.get(name, ()))
    left = sorted(table.outdone - {key for key, _ in table.puts} - set(table.drops)) if table.outdone else []
    return [Entry(key, value) for key, value in zip(left, partition.store.get_many(name, left), strict=True)]


def _gaps(table: TableFlush, spans: list[Span]) -> list[tuple[int, int]]:
    """Offsets between our own records that are not ours."""
    gaps = []
    for span in spans:
        if span.base < table.end:
            # Nothing may be written on top of what is lost: local state would agree with no changelog any more.
            raise ChangelogLost(table.tp.topic)
        if span.base > table.end:
            gaps.append((table.end, span.base))
        table.end = max(table.end, span.end)
    return gaps


async def _absorb(partition: Partition, table: TableFlush, gaps: list[tuple[int, int]]) -> list[Entry]:
    """Read what somebody else wrote; adopt what is ahead of us, and return what is to be said again."""
    foreign: dict[bytes, bytes | None] = {}
    for gap in gaps:
        async for _, records in partition.log.read({table.tp: gap}):
            for record in records:
                if record.key is not None:
                    foreign[record.key] = _better(foreign.get(record.key), record.value)
        table.end = max(table.end, gap[1])
    written = dict(table.puts)
    settled = [_settle(partition, table, key, value, written.get(key)) for key, value in foreign.items()]
    return [entry for entry in settled if entry is not None]


def _better(a: bytes | None, b: bytes | None) -> bytes | None:
    if a is None or b is None:
        return a if b is None else b
    return a if stamp_of(a) >= stamp_of(b) else b


def _settle(
    partition: Partition, table: TableFlush, key: bytes, foreign: bytes | None, written: bytes | None
) -> Entry | None:
    window, name = decode_key(key)
    row = table.cache.table.row
    if window < max(partition.expired_before.get(table.cache.table.name, 0), (table.expire or (0, 0))[1]):
        return Entry(key, None) if foreign is not None else None
    cell = table.cache.peek(window, name)
    if cell is not None and cell[STAMP] >= 0:
        ours: bytes | None = row.encode(cell, partition.epoch)
    else:
        ours = written or partition.store.get(table.cache.table.name, key)
    if ours is not None and (foreign is None or stamp_of(ours) >= stamp_of(foreign)):
        table.puts.append((key, ours))
        return Entry(key, ours)
    if foreign is None:
        return None
    if epoch_of(foreign) < partition.renewed:
        return Entry(key, None)  # of tables that a replay in place has dropped
    _adopt(table, key, foreign)
    partition.agendas.clear()
    if (touched := partition.touched.get(table.cache.table.name)) is not None:
        touched[name] = None  # what comes of it again will be contained already, and touch nothing
    # Said again even though it is in the log: an older record of ours may have landed after it, and the last one of
    # a key is what compaction keeps.
    return Entry(key, foreign)


def _adopt(table: TableFlush, key: bytes, foreign: bytes) -> None:
    """Take over an accumulator that is ahead of ours: it was folded from the same records, only further."""
    window, name = decode_key(key)
    _, theirs = table.cache.table.row.decode(foreign)
    cell = table.cache.peek(window, name)
    if cell is not None:
        theirs[DIRTY] = cell[DIRTY]
        cell[:] = theirs
    else:
        # Into memory: until it is in the store, a batch that is applied meanwhile would start from what is there now.
        table.cache.windows.setdefault(window, {})[name] = theirs
    table.cache.weigh(window, name, foreign)
    table.puts.append((key, foreign))
    table.cache.stored_up_to(window)
    table.feed.highest = max(table.feed.highest, theirs[STAMP])


async def _append_progress(partition: Partition, pending: Pending) -> None:
    named: list[Progress] = []
    for progress in pending.progress:
        ends = {t.cache.table.name: t.end for t in pending.tables if t.feed.tp.topic == progress.topic}
        named.append(msgspec.structs.replace(progress, ends=ends))
    pending.progress = named
    tp = TP(partition.group.progress.name, partition.number)
    entries = [progress.entry() for progress in named]
    for progress in named:
        entries += [Entry(key, None) for key in partition.stale_progress.get(progress.topic, [])]
    if entries:
        await partition.log.append({tp: entries})
    for progress in named:
        partition.stale_progress.pop(progress.topic, None)


def _write_store(partition: Partition, pending: Pending) -> None:
    change = partition.store.change()
    for table in pending.tables:
        name = table.cache.table.name
        if table.expire is not None:
            change.delete_range(name, encode_key(table.expire[0], ""), encode_key(table.expire[1], ""))
        change.put_all(name, table.puts)
        change.meta(f"next:{name}", str(table.end).encode())
        if table.outdone:
            for noted, _ in partition.store.metas(f"outdone:{name}:"):
                change.drop_meta(noted)
        change.meta(f"schema:{name}", table.cache.table.row.fingerprint.encode())
    for feed in {table.feed.tp: table.feed for table in pending.tables}.values():
        # Also where no progress is said: cells settled with a zombie's are as they are now, ahead of the position.
        change.meta(f"highest:{feed.tp.topic}", str(feed.highest).encode())
    for progress in pending.progress:
        change.meta(f"progress:{progress.topic}", encode(progress))
        _write_seen(change, partition.feeds[progress.topic], progress, pending.seen.get(progress.topic, b""))
    change.write()


def _write_seen(change: Change, feed: Feed, progress: Progress, drained: bytes) -> None:
    """Keep the event ids learned since the last flush, and drop stretches that no longer count."""
    seen = feed.intake.seen
    if seen is None:
        return
    now = seen.now(progress.watermark, progress.position)
    for name in [n for n, newest in feed.seen_kept.items() if newest < now - seen.window]:
        change.drop_meta(name)
        del feed.seen_kept[name]
    if drained:
        name = f"seen:{progress.topic}:{progress.position:020d}"
        change.meta(name, drained)
        feed.seen_kept[name] = seen.edge(now)


def _finish(partition: Partition, pending: Pending, seconds: float) -> None:
    for progress in pending.progress:
        feed = partition.feeds[progress.topic]
        feed.durable, feed.grown = progress, False
        feed.counters.flushes += 1
        feed.counters.flush_s += seconds
    for feed, taken in pending.aside:
        put_aside.finish(feed.put_aside, taken)
    for agenda in partition.agendas.values():
        agenda.forget()
    for table in pending.tables:
        cache, name = table.cache, table.cache.table.name
        partition.ends[name] = table.end
        if partition.gaps.get(name) == table.settled:
            partition.gaps.pop(name, None)
        if table.outdone:
            partition.outdone.pop(name, None)
        if name in partition.touched:
            partition.touched[name].update(dict.fromkeys(key for _, key, _ in table.taken))
            partition.touched[name].update(dict.fromkeys(decode_key(dropped)[1] for dropped in table.drops))
        if table.puts:
            cache.stored_up_to(decode_key(max(key for key, _ in table.puts))[0])
        if table.expire is not None:
            partition.expired_before[name] = table.expire[1]
            cache.drop_before(table.expire[1])
        closed = table.feed.source.closed_before(cache.table, table.feed.intake.watermark)
        cache.evict(closed, looked_at_from(partition, cache))


def _give_back(pending: Pending) -> None:
    for table in pending.tables:
        table.cache.give_back(table.taken)
    for feed, out in pending.side:
        feed.side = out + feed.side
        if feed.intake.seen is not None:
            feed.intake.seen.undrain(pending.seen.get(feed.tp.topic, b""))
    for feed, aside in pending.aside:
        feed.intake.aside.undrain(aside.chunks)
