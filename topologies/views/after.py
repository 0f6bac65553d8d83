"""`?after=<topic>:<partition>:<offset>`: an answer that contains what somebody has just produced.

A producer gets topic, partition and offset back; whoever asks with them, and gets an answer, sees that record in it.
It is waited for until the tables cover the offset, `wait` seconds at most; then it is a problem (504) that says how far
they are. Several, with commas between, are all waited for.

A view that answers with what a background function posted answers once that covers it, too: its `freshness` decides.
One that may answer from copies of derived topics waits until these are known to have what was derived up to the
question, which takes as long as two looks at the ends of topics (2 s).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import msgspec

from streams.topics import Topic
from topologies.views.answers import Views
from topologies.views.endpoints import AFTER, WAIT
from topologies.views.news import Bell
from topologies.views.problems import BadParameter, Problem


class _Freshness(msgspec.Struct):
    offsets: dict[str, int] = {}


class _Answer(msgspec.Struct):
    freshness: _Freshness = msgspec.field(default_factory=_Freshness)


_read = msgspec.json.Decoder(_Answer).decode


def _offsets(raw: bytes) -> dict[str, int]:
    """What an answer says that it covers; nothing, if it says it otherwise than the server's own."""
    try:
        return _read(raw).freshness.offsets
    except msgspec.ValidationError:
        return {}


@dataclass(frozen=True)
class Wanted:
    """A record that an answer has to contain."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}"

    def is_before(self, offsets: Mapping[str, int]) -> bool:
        """Whether it is below these offsets, by `topic:partition`, or they do not tell of its topic."""
        if str(self) in offsets:
            return self.offset < offsets[str(self)]
        return not any(name.rpartition(":")[0] == self.topic for name in offsets)


@dataclass(frozen=True)
class After:
    """What an answer has to contain, and until when it is waited for (of the event loop's clock); when it was asked."""

    wanted: tuple[Wanted, ...]
    deadline: float
    asked_at: float

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Self:
        """Read the two parameters. Raises BadParameter."""
        after, wait_s = AFTER.of(given), WAIT.of(given)
        wanted = tuple(map(_wanted, after.split(","))) if after is not None else ()
        return cls(wanted, asyncio.get_running_loop().time() + wait_s, time.time())

    async def covered(self, views: Sequence[Views], *, copies: bool) -> None:
        """Return once the tables, and the copies if asked for, cover everything that is wanted.

        Raises BadParameter for what these views are not made of, Problem (504) when it takes too long.
        """
        self._check(views)
        bell = Bell(one.tracker.news for one in views)
        await self.until(views, bell.wait, lambda: self._is_covered(views, copies=copies))

    async def answered(self, views: Sequence[Views], answer: Callable[[], Awaitable[bytes]]) -> bytes:
        """An answer that says of itself that it covers what is wanted. Raises Problem (504)."""
        bell, raw = Bell(one.tracker.news for one in views), await answer()

        async def again() -> None:
            nonlocal raw
            await bell.wait()
            raw = await answer()

        await self.until(views, again, lambda: self.is_in(raw))
        return raw

    async def until(
        self, views: Sequence[Views], news: Callable[[], Awaitable[None]], holds: Callable[[], bool]
    ) -> None:
        """Return once something holds, which is looked at whenever there is news. Raises Problem (504)."""
        try:
            async with asyncio.timeout_at(self.deadline) as limit:
                while not holds():
                    await news()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._late(views) from error

    def is_in(self, raw: bytes) -> bool:
        """Whether an answer's own freshness covers what is wanted; what it does not name is not asked for."""
        return not self.wanted or all(one.is_before(_offsets(raw)) for one in self.wanted)

    def _check(self, views: Sequence[Views]) -> None:
        topics = {topic.name: topic for one in views for topic in followed(one)}
        for one in self.wanted:
            if one.topic not in topics:
                known = ", ".join(sorted(topics)) or "no topic"
                raise BadParameter("after", f"after names {one.topic[:100]!r}, but this view is made of {known}")
            if one.partition >= topics[one.topic].partitions:
                raise BadParameter("after", f"{one.topic} has {topics[one.topic].partitions} partitions")

    def _is_covered(self, views: Sequence[Views], *, copies: bool) -> bool:
        if any(offset <= one.offset for one in self.wanted for offset in _covered(views, one)):
            return False
        return not copies or all(one.tracker.derived_since(self.asked_at) for one in views)

    def _late(self, views: Sequence[Views]) -> Problem:
        """The problem that says how far these views are."""
        covered = {str(one): min(_covered(views, one)) for one in self.wanted}
        lag = {str(one): max(0, one.offset + 1 - covered[str(one)]) for one in self.wanted}
        detail = "the view does not cover what was asked for yet: ask again, or give a longer wait"
        return Problem(
            504, "not-covered-yet", "Not covered yet", detail, headers={"Retry-After": "1"}, covered=covered, lag=lag
        )


def followed(views: Views) -> list[Topic]:
    """The topics whose offsets can be waited for: sources, and derived topics that are copied."""
    sources = [source.topic for source in views.model.group.sources]
    return sources + [copy.topic for copy in views.tracker.copies.values()]


def _covered(views: Sequence[Views], wanted: Wanted) -> list[int]:
    """Up to which offset each of the views that know the topic covers the partition."""
    found = []
    for one in views:
        tracker = one.tracker
        if wanted.topic in tracker.sources:
            found.append(tracker.model.covered(wanted.topic).get(wanted.partition, 0))
        if wanted.topic in tracker.copies:
            found.append(tracker.copies[wanted.topic].covered().get(wanted.partition, 0))
    return found


def _wanted(text: str) -> Wanted:
    topic, partition, offset = text.split(":")
    return Wanted(topic, int(partition), int(offset))
