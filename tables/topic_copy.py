"""A view server's copy of one compacted derived topic: the last value of each key, and the newest records by a time.

Offsets are part of the same WriteBatch as the data, so a restart reads exactly the tail, and records that come again
change nothing. A tombstone deletes. A topic that was made anew under the same name begins a copy anew.

Store layout: column family `records`, key = the record's key, value = time u64 big-endian + the record's value, where
the time is `NO_TIME` for a record that has none; `by_time`, key = time u64 big-endian + the record's key, no value.
Meta: `next:<partition>` the offset to read on from, `listed` how many records are in `by_time`, `topic-id` whose copy
this is, `written` whether with times and how many: a copy that was written otherwise begins anew.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from streams.log import TP, Record
from streams.topics import Topic
from tables.store import Store, wipe

logger = logging.getLogger(__name__)

RECORDS: Final = "records"
BY_TIME: Final = "by_time"
TIME_BYTES: Final = 8
NO_TIME: Final = b"\xff" * TIME_BYTES
LATEST_MS: Final = 2**63

# Of each way to read them, so many records are kept decoded.
DECODED_KEPT: Final = 200_000

T = TypeVar("T")
TimeOf = Callable[[bytes, bytes], int | None]


class Dated(NamedTuple):
    """A record with its time (ms). `place` is where a list goes on after it."""

    at: int
    key: bytes
    value: bytes

    @property
    def place(self) -> tuple[int, bytes]:
        """Its place among all records: by time, then key."""
        return self.at, self.key


@dataclass(frozen=True)
class Copied:
    """Which topic is copied. `time_of(key, value)` is a record's time in ms, None for one that is not listed.

    With `keep`, only the newest so many records are kept, and none without a time. Not a function of the last values
    alone: what was dropped stays away when newer records are deleted.
    """

    topic: Topic
    time_of: TimeOf | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a topic that has no last values, and for `keep` without a time to go by."""
        if self.topic.cleanup != "compact":
            raise ValueError(f"topic {self.topic.name} is not compacted: a copy would lose what retention cuts off")
        if self.keep is not None and (self.time_of is None or self.keep < 1):
            raise ValueError(f"topic {self.topic.name}: keep needs time_of, and must be at least 1")


class TopicCopy:
    """The copy of one topic, all partitions. One writer (`apply`), many readers."""

    def __init__(self, copied: Copied, directory: Path) -> None:
        """Open or create the local copy. Raises StoreLocked, StoreDamaged, StoreFailed."""
        self.copied = copied
        self.topic = copied.topic
        self.directory = Path(directory)
        self.records = 0
        self._warned = False
        self._decoded: dict[Callable[[bytes], Any], dict[bytes, Any]] = {}
        self._open()

    def _open(self) -> None:
        self._decoded.clear()
        self.store = Store(self.directory, [RECORDS, BY_TIME])
        written = f"times={self.copied.time_of is not None} keep={self.copied.keep}".encode()
        if self.store.meta("written") not in (None, written):
            self.reset()
            return
        change = self.store.change()
        change.meta("written", written)
        change.write()
        self._next = {p: int(self.store.meta(f"next:{p}") or 0) for p in range(self.topic.partitions)}
        self.listed = int(self.store.meta("listed") or 0)

    def close(self) -> None:
        """Close the local copy."""
        self.store.close()

    def reset(self) -> None:
        """Begin anew from nothing."""
        self.store.close()
        wipe(self.directory)
        self._open()

    def bind(self, topic_ids: Mapping[str, str]) -> bool:
        """Hear the id of the topic that is followed now; returns False if the copy was another one's."""
        topic_id = topic_ids.get(self.topic.name)
        if topic_id is None:
            return True
        same = self.store.meta("topic-id") in (None, topic_id.encode())
        if not same:
            self.reset()
        change = self.store.change()
        change.meta("topic-id", topic_id.encode())
        change.write()
        return same

    def positions(self) -> dict[TP, int]:
        """Where to read each partition on from."""
        return {TP(self.topic.name, p): position for p, position in self._next.items()}

    def covered(self) -> dict[int, int]:
        """For each partition, the offset before which everything is contained."""
        return dict(self._next)

    def passed(self, tp: TP, position: int) -> None:
        """Hear that there is no record before an offset that has not been applied: compaction took the last ones."""
        self._next[tp.partition] = max(self._next[tp.partition], position)

    def apply(self, tp: TP, records: Sequence[Record]) -> set[bytes]:
        """Take consecutive records of a partition; returns the keys that changed."""
        position = self._next[tp.partition]
        if not records or records[-1].offset < position:
            return set()
        last = {r.key: r.value for r in records if r.offset >= position and r.key is not None}
        self._forget(last)
        self.records += len(records)
        self._replace(tp.partition, records[-1].offset + 1, last)
        if self.copied.keep is not None and self.listed > self.copied.keep:
            self._drop_oldest(self.listed - self.copied.keep)
        return set(last)

    def _replace(self, partition: int, position: int, last: Mapping[bytes, bytes | None]) -> None:
        change, listed = self.store.change(), self.listed
        stored = dict(zip(last, self.store.get_many(RECORDS, list(last)), strict=True))
        times = {key: self._time_of(key, value) for key, value in last.items() if value is not None}
        unlisted = [raw[:TIME_BYTES] + key for key, raw in stored.items() if raw and raw[:TIME_BYTES] != NO_TIME]
        kept = dict.fromkeys(key for key, at in times.items() if at != NO_TIME or self.copied.keep is None)
        relisted = [times[key] + key for key in kept if times[key] != NO_TIME]
        # deleted first: of one WriteBatch the later wins where a record keeps its time
        change.delete_all(BY_TIME, unlisted)
        change.put_all(BY_TIME, [(place, b"") for place in relisted])
        change.delete_all(RECORDS, [k for k, raw in stored.items() if raw is not None and k not in kept])
        change.put_all(RECORDS, [(key, times[key] + (last[key] or b"")) for key in kept])
        listed += len(relisted) - len(unlisted)
        change.meta("listed", str(listed).encode())
        change.meta(f"next:{partition}", str(position).encode())
        change.write()
        self.listed, self._next[partition] = listed, position

    def _time_of(self, key: bytes, value: bytes) -> bytes:
        if self.copied.time_of is None:
            return NO_TIME
        try:
            at = self.copied.time_of(key, value)
        except Exception as error:  # somebody else's record must not end the copy of all the others
            if not self._warned:
                logger.warning("%s has records whose time cannot be read: %r", self.topic.name, error)
            self._warned = True
            return NO_TIME
        return at.to_bytes(TIME_BYTES, "big") if at is not None and 0 <= at < LATEST_MS else NO_TIME

    def _drop_oldest(self, count: int) -> None:
        oldest = [place for place, _ in islice(self.store.scan(BY_TIME, b"", NO_TIME), count)]
        change = self.store.change()
        change.delete_all(BY_TIME, oldest)
        change.delete_all(RECORDS, [place[TIME_BYTES:] for place in oldest])
        self._forget(place[TIME_BYTES:] for place in oldest)
        change.meta("listed", str(self.listed - len(oldest)).encode())
        change.write()
        self.listed -= len(oldest)

    def get(self, key: bytes) -> bytes | None:
        """The last value of a key; None if there is none."""
        raw = self.store.get(RECORDS, key)
        return None if raw is None else raw[TIME_BYTES:]

    def read(self, key: bytes, decode: Callable[[bytes], T]) -> T | None:
        """The last value of a key, decoded once and then kept so until it changes; None if there is none."""
        known = self._decoded.setdefault(decode, {})
        try:
            found: T | None = known[key]
        except KeyError:
            if len(known) >= DECODED_KEPT:
                known.clear()
            raw = self.get(key)
            found = known[key] = None if raw is None else decode(raw)
        return found

    def _forget(self, keys: Iterable[bytes]) -> None:
        for key in keys if self._decoded else ():
            for known in self._decoded.values():
                known.pop(key, None)

    def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """The last values, in the order of the keys."""
        return [None if raw is None else raw[TIME_BYTES:] for raw in self.store.get_many(RECORDS, list(keys))]

    def newest(self, n: int, before: int | tuple[int, bytes] | None = None) -> list[Dated]:
        """The newest records that have a time, newest first, ties by key, last first.

        `before`: older than this time (ms), or than the place of the last one of the page before (`Dated.place`).
        """
        end = NO_TIME
        if before is not None:
            at, key = before if isinstance(before, tuple) else (before, b"")
            end = min(max(at, 0), LATEST_MS).to_bytes(TIME_BYTES, "big") + key
        places = [place for place, _ in islice(self.store.scan_back(BY_TIME, b"", end), n)]
        values = self.get_many(place[TIME_BYTES:] for place in places)
        pairs = zip(places, values, strict=True)
        return [Dated(int.from_bytes(p[:TIME_BYTES], "big"), p[TIME_BYTES:], v) for p, v in pairs if v is not None]

    def starting(self, prefix: bytes, *, last_first: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Key and last value of every key that begins so, in key order or against it. Take no more than you need."""
        scan = self.store.scan_back if last_first else self.store.scan
        for key, raw in scan(RECORDS, prefix, after(prefix)):
            yield key, raw[TIME_BYTES:]


def after(prefix: bytes) -> bytes:
    r"""The first key that is after all that begin so, for keys of at most a thousand bytes more.

    >>> after(b"a\xff")
    b'b'
    """
    cut = prefix.rstrip(b"\xff")
    return cut[:-1] + bytes([cut[-1] + 1]) if cut else b"\xff" * (len(prefix) + 1_000)
