"""Which events of a partition have been seen before: input duplicates, which are another thing than re-delivery.

A producer that retries without idempotence, or an outbox that re-sends, puts the same `eventId` into the log twice.
An event is a duplicate if an earlier record of its partition carried the same id at an event time not older than
the watermark less `window_ms`. That is a function of the partition's prefix, so a replay decides alike.

Ids are kept as Python's 64-bit string hashes (1M ids collide with probability 3e-8), in two generations that each
span one window: the older is dropped whole, so forgetting costs nothing per event.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass
class Seen:
    """Ids of one partition with the newest event time (ms) that each was seen at."""

    window_ms: int
    _young: dict[int, int] = field(default_factory=dict)
    _old: dict[int, int] = field(default_factory=dict)
    _young_since: int | None = None
    _marks: list[tuple[int, int]] = field(default_factory=list)

    def all_new(self, hashes: Sequence[int]) -> bool:
        """Whether no id occurs twice, here or among the remembered: then none is a duplicate."""
        unique = set(hashes)
        if len(unique) != len(hashes):
            return False
        return unique.isdisjoint(self._young) and unique.isdisjoint(self._old)

    def is_duplicate(self, id_hash: int, watermark: int) -> bool:
        """Whether the id was seen at an event time of at least `watermark - window_ms`."""
        at = self._young.get(id_hash)
        if at is None:
            at = self._old.get(id_hash)
        return at is not None and at >= watermark - self.window_ms

    def remember(self, id_hash: int, at_ms: int) -> None:
        """Take in one id; its newest event time counts."""
        known = max(self._young.get(id_hash, -1), self._old.get(id_hash, -1))
        self._young[id_hash] = max(known, at_ms)

    def remember_new(self, hashes: Iterable[int], ats: Iterable[int]) -> None:
        """Take in ids that `all_new` held for, at once."""
        self._young.update(zip(hashes, ats, strict=True))

    def advance(self, watermark: int, offset: int) -> None:
        """Forget what the watermark has left behind; `offset` is the record that brought it there.

        A mark is kept for each quarter of a window, so that a restart knows how far to read back.
        """
        if not self._marks or watermark >= self._marks[-1][0] + max(1, self.window_ms // 4):
            self._marks.append((watermark, offset))
            while len(self._marks) > 1 and self._marks[1][0] <= watermark - self.window_ms:
                del self._marks[0]
        if self._young_since is None:
            self._young_since = watermark
        elif watermark - self._young_since > self.window_ms:
            self._old, self._young, self._young_since = self._young, {}, watermark

    @property
    def read_back_from(self) -> int | None:
        """An offset from which re-reading finds every id that still counts; None if nothing was seen."""
        return self._marks[0][1] if self._marks else None

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
