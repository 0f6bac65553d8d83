"""Which events of a partition have been seen before: input duplicates, which are another thing than re-delivery.

A producer that retries without idempotence, or an outbox that re-sends, puts the same `eventId` into the log twice.
An event is a duplicate if an earlier record of its partition carried the same id at an event time not older than
the watermark less the window. That is a function of the partition's prefix, so a replay decides alike.

A topic may count its window in records instead (`Topic.dedupe_records`): then offsets stand for event times here, and
the offset of the record that is decided on for the watermark.

Ids are kept as 64-bit xxh3 hashes (1M ids collide with probability 3e-8), in two generations that each span one
window: the older is dropped whole, so forgetting costs nothing per event.

What was learned since the last flush is drained into it as bytes, and kept locally beside the tables: a restart
takes it from there (600,000 ids in 0.1 s, where reading their records again takes 3 s), and reads the source again
only where local state is missing. Format: u64 hashes, then i64 event times, both little-endian, equally many.
"""

import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import xxhash

from streams.topics import Topic

_digest = xxhash.xxh3_64_intdigest


def id_hashes(ids: Iterable[str]) -> list[int]:
    """The 64-bit hashes of event ids, the same in every process.

    >>> id_hashes(["order-1"]) == id_hashes(["order-1"])
    True
    """
    return [_digest(i.encode()) for i in ids]


def seen_of(topic: Topic) -> "Seen | None":
    """What remembers the ids of a partition of the topic, if it is to drop any."""
    if topic.dedupe_records:
        return Seen(topic.dedupe_records, by_offset=True)
    return Seen(round(topic.dedupe_s * 1000)) if topic.dedupes else None


@dataclass
class Seen:
    """Ids of one partition with the newest event time (ms), or offset, that each was seen at.

    `window` is in ms; in records with `by_offset`.
    """

    window: int
    by_offset: bool = False
    _young: dict[int, int] = field(default_factory=dict)
    _old: dict[int, int] = field(default_factory=dict)
    _young_since: int | None = None
    _newest: int = -1
    _marks: list[tuple[int, int]] = field(default_factory=list)
    _fresh: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))

    def all_new(self, hashes: Sequence[int]) -> bool:
        """Whether no id occurs twice, here or among the remembered: then none is a duplicate."""
        unique = set(hashes)
        if len(unique) != len(hashes):
            return False
        # asked this way round Python walks through the batch; a set asked about a dict walks through the whole dict
        return self._young.keys().isdisjoint(unique) and self._old.keys().isdisjoint(unique)

    def is_duplicate(self, known: int, watermark: int) -> bool:
        """Whether the id was seen at an event time of at least `watermark - window`."""
        at = self._young.get(known)
        if at is None:
            at = self._old.get(known)
        return at is not None and at >= watermark - self.window

    def remember(self, known: int, at_ms: int) -> None:
        """Take in one id; its newest event time counts."""
        newest = max(self._young.get(known, -1), self._old.get(known, -1), at_ms)
        self._newest = max(self._newest, newest)
        self.remember_new([known], [newest])

    def remember_new(self, hashes: Iterable[int], ats: Iterable[int]) -> None:
        """Take in ids that `all_new` held for, at once."""
        self._fresh[0].extend(hashes)
        self._fresh[1].extend(ats)
        self._young.update(zip(hashes, ats, strict=True))

    def drain(self) -> bytes:
        """What was learned since the last drain, as bytes; empty if nothing was."""
        (hashes, ats), self._fresh = self._fresh, ([], [])
        return _little_endian(array("Q", hashes)) + _little_endian(array("q", ats))

    def undrain(self, drained: bytes) -> None:
        """Take back what could not be written."""
        hashes, ats = _parted(drained)
        self._fresh = ([*hashes, *self._fresh[0]], [*ats, *self._fresh[1]])

    def load(self, drained: bytes) -> int:
        """Know again what was drained in an earlier life; returns its newest event time (ms)."""
        hashes, ats = _parted(drained)
        for known, at in zip(hashes, ats, strict=True):
            if at > self._young.get(known, -1):
                self._young[known] = at
        newest = max(ats, default=-1)
        self._newest = max(self._newest, newest)
        return newest

    def advance(self, watermark: int, offset: int) -> None:
        """Forget what the watermark has left behind; `offset` is the record that brought it there.

        A mark is kept for each quarter of a window, so that a restart knows how far to read back.
        """
        edge = self.edge(watermark)
        if not self._marks or watermark >= self._marks[-1][0] + max(1, self.window // 4):
            self._marks.append((edge, offset))
            while len(self._marks) > 1 and self._marks[1][0] < watermark - self.window:
                del self._marks[0]
        if self._young_since is None:
            self._young_since = edge
        elif watermark - self._young_since > self.window:
            self._old, self._young, self._young_since = self._young, {}, edge

    def edge(self, watermark: int) -> int:
        """The newest event time that is remembered by now: a repeat's may be ahead of the watermark."""
        return max(watermark, self._newest)

    def now(self, watermark: int, position: int) -> int:
        """The one of the two that the window goes by."""
        return position if self.by_offset else watermark

    @property
    def read_back_from(self) -> int | None:
        """An offset from which re-reading finds every id that still counts; None if nothing was seen."""
        return self._marks[0][1] if self._marks else None

    def __len__(self) -> int:
        return len(self._young) + len(self._old)


def _little_endian(numbers: "array[int]") -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _parted(drained: bytes) -> tuple["array[int]", "array[int]"]:
    hashes, ats = array("Q"), array("q")
    half = len(drained) // 2
    hashes.frombytes(drained[:half])
    ats.frombytes(drained[half:])
    if sys.byteorder == "big":
        hashes.byteswap()
        ats.byteswap()
    return hashes, ats
