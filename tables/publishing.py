"""Results kept up to date in a compacted topic, key by key, for those who want answers and not accumulators.

A *publication* computes one record for each key of one or more tables: the neighbours of a product, what to recommend
to a user. Keys that a flush has made durable are computed anew and upserted by the owner of their partition, so a key
has one writer. That is best effort in time and exact in the end: the record is a function of what is durable, so one
that was lost in a crash is found missing by the *pass* that follows every restore. It goes over the keys of all tables,
and over those that are published: the partition of the topic is read back, and what no table has any more gets a
tombstone. So nothing need be remembered beside the topic, and losing local state changes nothing. What others write
there meanwhile (a zombie, an append of which no acknowledgement came) is read as well, and another pass follows. Tables
that are built anew have little at first: tombstones wait until all is in them that the sources held meanwhile
(tables.catching_up).

Where a result also depends on other keys' results (a cosine needs the popularity of both products), it reads them from
a local copy of the published topic, and another pass follows as long as one has changed anything: what is published
settles at the values that a computation over everything at once would give. A record that would say the same as the
one that is there is not written again.

A result that reads another publication's copies without being read itself (what to recommend to a user) is as of the
time that its key was touched. It is not computed anew with every change of what it reads: a pass follows only where
that has doubled since the last one and has settled here, so that a start with nothing published does not last.

Work is done in short steps between batches, so that it delays no event for long; what has to wait is counted.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from typing import Any, Protocol, TypeVar

from streams.errors import MillraceError
from streams.log import TP, Entry, Log, Record
from streams.topics import Topic
from tables.accumulators import STATES, decode_key, encode_key
from tables.cache import Cache
from tables.partition import Partition

logger = logging.getLogger(__name__)

T = TypeVar("T")
PAGE = 1_000
PAST_ALL = b"\xff" * 9


class Copy(Protocol):
    """A local copy of a compacted topic; `records` counts what was read into it."""

    records: int

    def get(self, key: bytes) -> bytes | None:
        """The newest value of a key, None if there is none."""

    def read(self, key: bytes, decode: Callable[[bytes], T]) -> T | None:
        """The same, decoded; `decode` is a function that lasts, for what it gives is kept until the value changes."""


@dataclass(frozen=True)
class Shelf:
    """What a computation may read: the accumulators of one partition, and local copies of topics by name."""

    partition: Partition
    copies: Mapping[str, Copy]

    def cells(self, table: str, key: str) -> list[tuple[int, Sequence[Any]]]:
        """The (slice start in ms, states) of a key in all slices that are kept, oldest first."""
        cache = _cache_of(self.partition, table)
        windows = range(*_bounds(cache), cache.slice_ms)
        return [(window, cell[STATES:]) for window in windows if (cell := cache.look(window, key)) is not None]


@dataclass(frozen=True)
class Publication:
    """One compacted topic of results, and what they are computed from.

    `compute(shelf, key)` gives a key's record value, None for no new one; it is a function of the accumulators and the
    copies alone. `record_key` makes the record's key of a table's. `settles` says that results depend on other results,
    so that passes follow until nothing changes. The topic is nobody else's: a record of a key that no table has is
    deleted.
    """

    topic: Topic
    tables: tuple[str, ...]
    compute: Callable[[Shelf, str], bytes | None]
    record_key: Callable[[str], bytes]
    copies: tuple[Topic, ...] = ()
    settles: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a publication of nothing."""
        if not self.tables:
            raise ValueError(f"publication {self.topic.name!r}: name the tables that it is computed from")

    @property
    def copied(self) -> tuple[Topic, ...]:
        """The topics that a worker keeps a copy of for this."""
        return (self.topic, *self.copies) if self.settles else self.copies


@dataclass
class Publisher:
    """Publishes what one partition's accumulators come to. Make a new one after every restore.

    `copy` is this worker's copy of the published topic, for publications that settle: what is there already. `after`:
    the publishers of the same partition whose topics this one reads.

    Of the topic's partition everything before `read_to` is known. `found` are the record keys that were read there and
    that the next pass begins with, `left` those that no pass has come to: about 100 bytes a key from a restore until
    the pass after it has come by. `deleted`: a tombstone was read since the last pass began; it may have taken away
    what a table has. `behind`: the tables do not hold yet all that was in their sources, so what is left may come.
    """

    publication: Publication
    shelf: Shelf
    log: Log
    copy: Copy | None = None
    after: Sequence["Publisher"] = ()
    waiting: dict[str, None] = field(default_factory=dict)
    published: int = 0
    failed: int = 0
    read_to: int = 0
    found: set[bytes] = field(default_factory=set)
    left: set[bytes] = field(default_factory=set)
    deleted: bool = False
    behind: bool = True
    _pass: Iterator[str] | None = None
    _settled_at: int = -1

    @property
    def to(self) -> TP:
        """Where this partition's records are: it is the only one that writes there."""
        return TP(self.publication.topic.name, self.shelf.partition.number)

    @property
    def idle(self) -> bool:
        """Whether everything is published, as far as is known."""
        return not self.busy and not self.left

    @property
    def busy(self) -> bool:
        """Whether there is something to do now."""
        return bool(self.waiting) or self._pass is not None or self._gone or self._stale

    @property
    def _gone(self) -> bool:
        """Whether what is left is gone for good, once nothing waits and no pass is under way."""
        return bool(self.left) and not self.behind

    @property
    def _stale(self) -> bool:
        """Whether a pass is due."""
        if self.found or self.deleted:
            return True
        if self.copy is not None or self._settled_at < 0:
            return self._settled_at != self._read
        return self._read > 2 * self._settled_at and all(publisher.idle for publisher in self.after)

    @property
    def _read(self) -> int:
        """How many records were read of what results depend on, by whomever."""
        if self.copy is not None:
            return self.copy.records
        return sum([self.shelf.copies[topic.name].records for topic in self.publication.copies])

    def touch(self, keys: Iterable[str]) -> None:
        """Hear of keys whose accumulators a flush has made durable."""
        self.waiting.update(dict.fromkeys(keys))

    def read(self, records: Sequence[Record]) -> None:
        """Hear of records that are published, by whomever, from `read_to` on."""
        for record in records:
            if record.key is None:
                continue
            if record.value is None:
                self.found.discard(record.key)
                self.left.discard(record.key)
                self.deleted = True
            else:
                self.found.add(record.key)
        self.read_to = records[-1].offset + 1

    async def step(self, budget_s: float) -> int:
        """Compute and publish for at most about `budget_s` of processor time; returns how many records were written.

        A key whose computation raises keeps what is published, until it changes or a pass comes to it: one that is
        poisoned must not hold up the others. Raises LogError, after which the keys of the step wait again, and
        MillraceError for copies that cannot be read: a new publisher's pass has to find its keys then.
        """
        if self.shelf.partition.broken:
            return 0  # its store is closed, or its accumulators are torn
        until = time.thread_time() + budget_s
        computed: dict[str, Entry] = {}
        for key in self._next_keys():
            entry = self._try(key)
            if entry is not None:
                computed[key] = entry
            if time.thread_time() >= until:
                break
        # what waits may be what is left, and is known only when it is computed
        gone = list(islice(self.left, PAGE)) if self._gone and not self.waiting and self._pass is None else []
        entries = [*computed.values(), *(Entry(key, None) for key in gone)]
        if entries:
            try:
                await self._append(entries)
            except BaseException:
                self.touch(computed)
                raise
            self.left.difference_update(gone)
        return len(entries)

    async def _append(self, entries: Sequence[Entry]) -> None:
        async with self.shelf.partition.lock:
            if self.shelf.partition.broken:
                return
            spans = await self.log.append({self.to: entries})
        self.published += len(entries)
        for span in spans[self.to]:
            if span.base == self.read_to:  # else somebody else wrote before it, which has to be read first
                self.read_to = span.end

    def _next_keys(self) -> Iterator[str]:
        while self.waiting:
            key = next(iter(self.waiting))
            del self.waiting[key]
            yield key
        if self._pass is None and not self._gone and self._stale:
            self._settled_at, self.deleted = self._read, False
            self.left, self.found = self.left | self.found, set()
            self._pass = _stored_keys([_cache_of(self.shelf.partition, table) for table in self.publication.tables])
        if self._pass is not None:
            for key in self._pass:  # `yield from` would close the pass with this generator
                yield key
            self._pass, self.left = None, set(self.left)  # a set that has shrunk keeps its room

    def _try(self, key: str) -> Entry | None:
        try:
            return self._entry(key)
        except MillraceError:
            raise
        except Exception:
            if not self.failed:
                logger.exception("%s of %r cannot be computed; others may follow", self.publication.topic.name, key)
            self.failed += 1
            return None

    def _entry(self, key: str) -> Entry | None:
        record_key = self.publication.record_key(key)
        self.left.discard(record_key)
        value = self.publication.compute(self.shelf, key)
        if value is None and any(self.shelf.cells(table, key) for table in self.publication.tables):
            return None
        if self.copy is not None and value == self.copy.get(record_key):
            return None
        return Entry(record_key, value)


def _stored_keys(caches: Sequence[Cache]) -> Iterator[str]:
    """Every key that one of the tables has stored, once; what is only in memory is heard of when it is flushed.

    In the order of the keys, for which their slices are read side by side: so no key has to be kept.
    """
    start = b""
    while True:
        # In pages: a scan keeps its store's files open and locked, and slices may be dropped between two steps.
        page = _page(caches, start)
        if not page:
            return
        start = page[-1] + b"\0"
        for key in dict.fromkeys(page):
            yield key.decode()


def _page(caches: Sequence[Cache], start: bytes) -> list[bytes]:
    """Up to so many stored keys from there on, those of several slices as often. No scan outlives this."""
    slices = [_keys(cache, window, start) for cache in caches for window in _stored_slices(cache)]
    return list(islice(merge(*slices), PAGE))


def _keys(cache: Cache, window: int, start: bytes) -> Iterator[bytes]:
    name, prefix = cache.table.name, encode_key(window, "")
    return (raw.removeprefix(prefix) for raw, _ in cache.store.scan(name, prefix + start, encode_key(window + 1, "")))


def _stored_slices(cache: Cache) -> Iterator[int]:
    start = b""
    while (first := next(cache.store.scan(cache.table.name, start, PAST_ALL), None)) is not None:
        window = decode_key(first[0])[0]
        yield window
        start = encode_key(window + 1, "")


def _bounds(cache: Cache) -> tuple[int, int]:
    """From the first slice that is kept to the end of the last one."""
    first = next(cache.store.scan(cache.table.name, b"", PAST_ALL), None)
    known = list(cache.windows)
    if first is not None:
        known += [decode_key(first[0])[0], cache.newest_stored]
    return (min(known), max(known) + 1) if known else (0, 0)


def _cache_of(partition: Partition, table: str) -> Cache:
    return next(c for feed in partition.feeds.values() for c in feed.caches if c.table.name == table)
