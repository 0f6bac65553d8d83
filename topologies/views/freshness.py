"""How fresh an answer is: what of the sources the local tables cover, and since when they are known to be complete.

The end offsets of the sources are looked at about once a second. Once the tables cover what a look saw, they are
known to have been complete at the time of that look; `age_s` counts from there. It is not the age of the newest
event (a quiet source is not a stale one), and it grows while brokers, workers or the follower stand still.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tables.read_model import ReadModel

# Looks that the tables do not cover yet. When there are more, every other one is forgotten: coarser, never wrong.
LOOKS_KEPT = 512


@dataclass
class Source:
    """What is known of one source topic. Times are seconds since the epoch, offsets by partition."""

    topic: str
    ends: dict[int, int] = field(default_factory=dict)
    complete_at: float | None = None
    _looks: deque[tuple[float, dict[int, int]]] = field(default_factory=deque)

    def look(self, at: float, ends: Mapping[int, int]) -> None:
        """Note the end offsets as they were at a time (or later)."""
        self.ends = dict(ends)
        self._looks.append((at, self.ends))
        if len(self._looks) > LOOKS_KEPT:
            self._looks = deque(list(self._looks)[::2])

    def settle(self, covered: Mapping[int, int]) -> None:
        """Note what the tables cover."""
        while self._looks and all(covered.get(p, 0) >= end for p, end in self._looks[0][1].items()):
            self.complete_at = self._looks.popleft()[0]

    def lag(self, covered: Mapping[int, int]) -> dict[int, int]:
        """How many offsets of each partition are not covered, as of the last look."""
        return {p: max(0, end - covered.get(p, 0)) for p, end in self.ends.items()}


@dataclass
class Tracker:
    """What the follower knows, for everybody who answers. `caught_up`: what was there at the start is applied."""

    model: ReadModel
    connected: bool = False
    caught_up: bool = False
    sources: dict[str, Source] = field(init=False)

    def __post_init__(self) -> None:
        """Know the model's sources."""
        names = [source.topic.name for source in self.model.group.sources]
        self.sources = {name: Source(name) for name in names}

    def look(self, at: float, ends: Mapping[str, Mapping[int, int]]) -> None:
        """Note every source's end offsets, asked for at a time."""
        for topic, found in ends.items():
            self.sources[topic].look(at, found)
        self.connected = True
        self.settle()

    def settle(self) -> None:
        """Note that the model has moved on."""
        for topic, source in self.sources.items():
            source.settle(self.model.covered(topic))

    def age_s(self, topics: Iterable[str], now: float) -> float | None:
        """For how long these sources' tables have not been known to be complete; None: never yet."""
        times = [self.sources[topic].complete_at for topic in topics]
        known = [at for at in times if at is not None]
        return round(max(0.0, now - min(known)), 3) if known and len(known) == len(times) else None

    def freshness(self, topics: Iterable[str], now: float) -> dict[str, Any]:
        """What every answer says of its freshness; offsets, lags, watermarks by `topic:partition`.

        `watermark` is the lowest of the partitions that had events. `lag` is null before the first look.
        """
        topics = sorted(topics)
        offsets, lags, marks = {}, {}, {}
        for topic in topics:
            covered = self.model.covered(topic)
            offsets.update({f"{topic}:{p}": offset for p, offset in sorted(covered.items())})
            lags.update({f"{topic}:{p}": lag for p, lag in sorted(self.sources[topic].lag(covered).items())})
            marks.update({f"{topic}:{p}": at for p, at in sorted(self.model.watermarks(topic).items())})
        lowest = min(marks.values(), default=None)
        return {
            "watermark": None if lowest is None else iso(lowest),
            "watermarkMs": lowest,
            "watermarksMs": marks,
            "offsets": offsets,
            "lag": lags or None,
            "lagTotal": sum(lags.values()) if lags else None,
            "age_s": self.age_s(topics, now),
            "connected": self.connected,
            "caughtUp": self.caught_up,
        }


def iso(at_ms: int) -> str:
    """A time as ISO-8601 in UTC.

    >>> iso(1_767_225_600_000)
    '2026-01-01T00:00:00.000Z'
    """
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"
