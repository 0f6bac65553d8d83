"""How fresh an answer is: what of the sources the local tables cover, and since when they are known to be complete.

The end offsets of the sources are looked at about once a second. Once the tables cover what a look saw, they are
known to have been complete at the time of that look; `age_s` counts from there. It is not the age of the newest
event (a quiet source is not a stale one), and it grows while brokers, workers or the follower stand still.

A copy of a derived topic is looked at in the same way, but its ends count for the time since when the tables were
known to be complete as its ends were asked for: what was derived up to then had been written by then. So an answer
from a copy is complete as of that time, if the topic is derived by the topology itself.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from tables.read_model import ReadModel
from tables.topic_copy import TopicCopy
from topologies.views.news import News

# Looks that the tables do not cover yet. When there are more, every other one is forgotten: coarser, never wrong.
LOOKS_KEPT = 512
# The calendar repeats itself after 400 years; Python's ends with the year 9999.
CALENDAR_MS = 146_097 * 86_400_000
YEAR_10000_MS = 253_402_300_800_000
SECONDS_CHARS = len("2026-01-01T00:00:00")
# Of an answer with many times most were in the one before as well: starts of windows, or what is listed.
TIMES_KEPT = 16_384


@dataclass
class Source:
    """What is known of one topic that is followed. Times are seconds since the epoch, offsets by partition."""

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
    copies: Mapping[str, TopicCopy] = field(default_factory=dict)
    sources: dict[str, Source] = field(init=False)
    derived: dict[str, Source] = field(init=False)
    news: News = field(default_factory=News, repr=False)
    _looks: int = field(default=0, repr=False)
    _said: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict, repr=False)
    _said_at: tuple[int, int] = field(default=(0, 0), repr=False)

    def __post_init__(self) -> None:
        """Know the model's sources, and the topics that are copied."""
        names = [source.topic.name for source in self.model.group.sources]
        self.sources = {name: Source(name) for name in names}
        self.derived = {name: Source(name) for name in self.copies}

    def look(self, at: float, ends: Mapping[str, Mapping[int, int]]) -> None:
        """Note every source's end offsets, asked for at a time."""
        for topic, found in ends.items():
            self.sources[topic].look(at, found)
        self._looks += 1
        self.connected = True
        self.settle()

    def complete_at(self) -> float | None:
        """Since when all tables are known to be complete; None: never yet."""
        return earliest(source.complete_at for source in self.sources.values())

    def look_at_copies(self, complete_at: float | None, ends: Mapping[str, Mapping[int, int]]) -> None:
        """Note the end offsets of the copied topics, and `complete_at` as it was when they were asked for."""
        for topic, found in ends.items():
            if complete_at is None:
                self.derived[topic].ends = dict(found)
            else:
                self.derived[topic].look(complete_at, found)
        self.settle()

    def settle(self) -> None:
        """Note that the model or a copy has moved on."""
        for topic, source in self.sources.items():
            source.settle(self.model.covered(topic))
        for topic, source in self.derived.items():
            source.settle(self.copies[topic].covered())

    def derived_since(self, at: float) -> bool:
        """Whether the copies have all that was derived from what was there at a time; true where there are none."""
        return all((source.complete_at or 0.0) >= at for source in self.derived.values())

    def age_s(self, topics: Iterable[str], now: float, *, copies: bool = False) -> float | None:
        """For how long these sources' tables, and the copies, have not been known to be complete; None: never yet."""
        followed = [self.sources[topic] for topic in topics] + (list(self.derived.values()) if copies else [])
        since = earliest(source.complete_at for source in followed)
        return None if since is None else round(max(0.0, now - since), 3)

    def copies_lag(self) -> dict[str, int | None]:
        """How many records of each copied topic are not in its copy, as of the last look; None before the first."""
        covered = {topic: self.copies[topic].covered() for topic in self.derived}
        lags = {topic: source.lag(covered[topic]) for topic, source in self.derived.items()}
        return {topic: sum(lag.values()) if lag else None for topic, lag in lags.items()}

    def freshness(self, topics: Iterable[str], now: float, *, copies: bool = False) -> dict[str, Any]:
        """What every answer says of its freshness; offsets, lags, watermarks by `topic:partition`.

        `watermark` is the lowest of the partitions that had events. `lag` is null before the first look. With
        `copies`, the answer comes from the copies as well: `copies` has the lag of each, and `age_s` counts them in.
        """
        named = tuple(sorted(topics))
        return {
            **self._offsets(named),
            "age_s": self.age_s(named, now, copies=copies),
            "connected": self.connected,
            "caughtUp": self.caught_up,
            **({"copies": self.copies_lag()} if copies and self.derived else {}),
        }

    def _offsets(self, topics: tuple[str, ...]) -> dict[str, Any]:
        """What every answer says until the tables move on, or there is another look. Not to be changed."""
        at = self.model.moved, self._looks
        if at != self._said_at:
            self._said.clear()
            self._said_at = at
        if topics not in self._said:
            self._said[topics] = self._offsets_now(topics)
        return self._said[topics]

    def _offsets_now(self, topics: Iterable[str]) -> dict[str, Any]:
        offsets, lags, marks = {}, {}, {}
        for topic in topics:
            covered = self.model.covered(topic)
            offsets.update({f"{topic}:{p}": offset for p, offset in sorted(covered.items())})
            lags.update({f"{topic}:{p}": lag for p, lag in sorted(self.sources[topic].lag(covered).items())})
            marks.update({f"{topic}:{p}": at for p, at in sorted(self.model.watermarks(topic).items())})
        return _of_partitions(marks, offsets, lags)


def earliest(times: Iterable[float | None]) -> float | None:
    """The first of the times; None if one is not known, or there are none."""
    found = list(times)
    known = [at for at in found if at is not None]
    return min(known) if known and len(known) == len(found) else None


def _of_partitions(marks: Mapping[str, int], offsets: Mapping[str, int], lags: Mapping[str, int]) -> dict[str, Any]:
    lowest = min(marks.values(), default=None)
    return {
        "watermark": None if lowest is None else iso(lowest),
        "watermarkMs": lowest,
        "watermarksMs": marks,
        "offsets": offsets,
        "lag": lags or None,
        "lagTotal": sum(lags.values()) if lags else None,
    }


def together(all_of: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The freshness of an answer that several topologies had a part in: of each, whatever is the least fresh."""
    if len(all_of) == 1:
        return dict(all_of[0])
    marks, offsets = (_merged(min, (one[name] for one in all_of)) for name in ("watermarksMs", "offsets"))
    lags = _merged(max, (one["lag"] or {} for one in all_of))
    ages = [one["age_s"] for one in all_of]
    return {
        **_of_partitions(marks, offsets, lags),
        "age_s": None if None in ages else max(ages, default=None),
        "connected": all(one["connected"] for one in all_of),
        "caughtUp": all(one["caughtUp"] for one in all_of),
        "versions": {name: version for one in all_of for name, version in one.get("versions", {}).items()},
    }


def _merged(choose: Callable[[int, int], int], found: Iterable[Mapping[str, int]]) -> dict[str, int]:
    merged: dict[str, int] = {}
    for one in found:
        for name, value in one.items():
            merged[name] = choose(merged[name], value) if name in merged else value
    return merged


@lru_cache(TIMES_KEPT)
def iso(at_ms: int) -> str:
    """A time as ISO-8601 in UTC.

    >>> iso(1_767_225_600_000)
    '2026-01-01T00:00:00.000Z'
    >>> iso(253_402_300_800_000)  # one record with such a timestamp must not leave the views without answers
    '+010000-01-01T00:00:00.000Z'
    """
    cycles, within_ms = divmod(at_ms, CALENDAR_MS) if at_ms >= YEAR_10000_MS else (0, at_ms)
    # isoformat takes a tenth of strftime's time, and an answer may have a thousand times in it
    told = datetime.fromtimestamp(within_ms // 1000, UTC).isoformat()[:SECONDS_CHARS]
    return f"{_far(told, cycles) if cycles else told}.{at_ms % 1000:03d}Z"


def _far(told: str, cycles: int) -> str:
    year, _, rest = told.partition("-")
    return f"+{int(year) + 400 * cycles:06d}-{rest}"
