"""Results kept up to date in a compacted topic, key by key, for those who want answers and not accumulators.

A *publication* computes one record for each key of one or more tables: the neighbours of a product, what to recommend
to a user. Keys that a flush has made durable are computed anew and upserted by the owner of their partition, so a key
has one writer. That is best effort in time and exact in the end: the record is a function of what is durable, so one
that was lost in a crash is found missing by the *pass* over all keys that follows every restore.

Where a result also depends on other keys' results (a cosine needs the popularity of both products), it reads them from
a local copy of the published topic, and another pass follows as long as one has changed anything: what is published
settles at the values that a computation over everything at once would give. A record that would say the same as the
one that is there is not written again. A key that retention has dropped from all tables gets a tombstone.

A result that reads another publication's copies without being read itself (what to recommend to a user) is as of the
time that its key was touched. It is not computed anew with every change of what it reads: a pass follows only where
that has doubled since the last one and has settled here, so that a start with nothing published does not last.

Work is done in short steps between batches, so that it delays no event for long; what has to wait is counted.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, TypeVar

from streams.errors import MillraceError
from streams.log import TP, Entry, Log
from streams.topics import Topic
from tables.accumulators import STATES, decode_key
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
    copies alone. `record_key` makes the record's key of a table's. The first of `tables` is the one whose keys a pass
    goes over; `settles` says that results depend on other results, so that passes follow until nothing changes.
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
    """

    publication: Publication
    shelf: Shelf
    log: Log
    copy: Copy | None = None
    after: Sequence["Publisher"] = ()
    waiting: dict[str, None] = field(default_factory=dict)
    published: int = 0
    failed: int = 0
    _pass: Iterator[str] | None = None
    _settled_at: int = -1

    @property
    def idle(self) -> bool:
        """Whether everything is published, as far as is known."""
        return not self.waiting and self._pass is None and not self._stale

    @property
    def _stale(self) -> bool:
        """Whether a pass is due."""
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

    async def step(self, budget_s: float) -> int:
        """Compute and publish for at most about `budget_s` of processor time; returns how many records were written.

        A key whose computation raises keeps what is published, until it changes or a pass comes to it: one that is
        poisoned must not hold up the others. Raises LogError, and MillraceError for copies that cannot be read; the
        keys of the step are not published then, and a new publisher's pass has to find them.
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
        if computed:
            await self._append(computed)
        return len(computed)

    async def _append(self, computed: Mapping[str, Entry]) -> None:
        partition = self.shelf.partition
        to = TP(self.publication.topic.name, partition.number % self.publication.topic.partitions)
        try:
            async with partition.lock:
                if partition.broken:
                    return
                await self.log.append({to: list(computed.values())})
        except BaseException:
            self.touch(computed)
            raise
        self.published += len(computed)

    def _next_keys(self) -> Iterator[str]:
        while self.waiting:
            key = next(iter(self.waiting))
            del self.waiting[key]
            yield key
        if self._pass is None and self._stale:
            self._settled_at = self._read
            self._pass = _distinct(_cache_of(self.shelf.partition, self.publication.tables[0]))
        if self._pass is not None:
            for key in self._pass:  # `yield from` would close the pass with this generator
                yield key
            self._pass = None

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
        value = self.publication.compute(self.shelf, key)
        record_key = self.publication.record_key(key)
        if value is None and any(self.shelf.cells(table, key) for table in self.publication.tables):
            return None
        if self.copy is not None and value == self.copy.get(record_key):
            return None
        return Entry(record_key, value)


def _distinct(cache: Cache) -> Iterator[str]:
    """Every key that is stored, once; what is only in memory has not been flushed, and is heard of when it is."""
    known = set[str]()
    start = b""
    while True:
        # In pages: a scan holds files open, and slices may be dropped between two steps.
        page = [key for key, _ in islice(cache.store.scan(cache.table.name, start, PAST_ALL), PAGE)]
        if not page:
            return
        start = page[-1] + b"\0"
        for raw in page:
            key = decode_key(raw)[1]
            if key not in known:
                known.add(key)
                yield key


def _bounds(cache: Cache) -> tuple[int, int]:
    """From the first slice that is kept to the end of the last one."""
    first = next(cache.store.scan(cache.table.name, b"", PAST_ALL), None)
    known = list(cache.windows)
    if first is not None:
        known += [decode_key(first[0])[0], cache.newest_stored]
    return (min(known), max(known) + 1) if known else (0, 0)


def _cache_of(partition: Partition, table: str) -> Cache:
    return next(c for feed in partition.feeds.values() for c in feed.caches if c.table.name == table)
