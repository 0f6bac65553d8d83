"""The channels of a server: one for each distinct question, whoever asks it, computed when there is something new.

A channel asks the view again when a topology that the answer is from has news, every 100 ms at most, a few channels
at a time: between their turns everybody else has one. An answer that takes long is asked for less often, so that no
channel takes more than a fifth of the time. What a follower brings while a channel is not due is in its next answer:
under load answers become fewer, they do not wait in line. A channel that nobody listens to any more goes on for some
seconds, for those who come back, and ends.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from topologies.views.channel import Channel
from topologies.views.news import Bell, News
from topologies.views.problems import Problem

logger = logging.getLogger(__name__)

# Each may be computed ten times a second: of more different ones than this a server would do nothing else.
CHANNELS_MAX: Final = 1_000
ANSWER_S: Final = 30.0
# Not one: a long range that is merged for the first time (10 s at most) would hold up all others.
AT_A_TIME: Final = 4
# A channel whose answer took so long rests this many times as long.
REST: Final = 4


class Computed(NamedTuple):
    """An answer, and of what it is: whatever compares equal for answers that follow on each other."""

    body: bytes
    of: object = None


Compute = Callable[[], Awaitable[Computed]]


@dataclass(frozen=True)
class Pace:
    """Times in seconds.

    A channel is computed every ``every_s`` at most, and ends ``linger_s`` after its last client. Who was sent nothing
    for ``beat_s`` is sent a sign of life, and who takes nothing for ``stuck_s`` is disconnected.
    """

    every_s: float = 0.1
    linger_s: float = 5.0
    beat_s: float = 15.0
    stuck_s: float = 60.0


@dataclass
class Counts:
    """What is told to Prometheus."""

    clients: int = 0
    frames: int = 0
    bytes: int = 0
    computed: int = 0
    stuck: int = 0


@dataclass
class Live:
    """A channel while somebody listens to it, and shortly after."""

    question: str
    compute: Compute
    bell: Bell
    channel: Channel = field(default_factory=Channel)
    listeners: int = 0
    beats: int = 0
    woken_at: float = 0.0
    ended: bool = False
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Let those who listen look again."""
        self.woken_at = time.monotonic()
        self._woken.set()
        self._woken.clear()

    async def woken(self) -> None:
        """Return when there is a new frame, or time for a sign of life."""
        await self._woken.wait()


class Channels:
    """All channels of a server. They end with it: `close`."""

    def __init__(self, pace: Pace | None = None) -> None:
        """None yet."""
        self.pace = pace or Pace()
        self.counts = Counts()
        self.closed = False
        self._live: dict[str, Live] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Semaphore(AT_A_TIME)

    def __len__(self) -> int:
        """How many channels there are."""
        return len(self._live)

    @contextmanager
    def joined(self, question: str, compute: Compute, news: Sequence[News]) -> Iterator[Live]:
        """The channel of a question, listened to meanwhile. Raises Problem (503) when there are too many."""
        live = self._live.get(question) or self._opened(question, compute, news)
        live.listeners += 1
        self.counts.clients += 1
        try:
            yield live
        finally:
            self.counts.clients -= 1
            live.listeners -= 1

    def _opened(self, question: str, compute: Compute, news: Sequence[News]) -> Live:
        if len(self._live) >= CHANNELS_MAX or self.closed:
            detail = "there are too many different live views: ask without, or another server"
            raise Problem(503, "too-many-live-views", "Too many live views", detail)
        live = self._live[question] = Live(question, compute, Bell(news))
        task = asyncio.create_task(self._run(live))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return live

    async def close(self) -> None:
        """End all channels, and with them the streams."""
        self.closed = True
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, live: Live) -> None:
        try:
            idle_since: float | None = None
            while True:
                began = time.monotonic()
                async with self._turn:
                    asked = time.monotonic()
                    await self._compute(live)
                    took_s = time.monotonic() - asked
                idle_since = None if live.listeners else idle_since or began
                if idle_since is not None and began - idle_since >= self._linger_s(live):
                    return
                await asyncio.sleep(max(began + self.pace.every_s - time.monotonic(), REST * took_s))
                await self._news(live)
        finally:
            # before anybody can join a channel that is computed no more
            if self._live.get(live.question) is live:
                del self._live[live.question]
            live.ended = True
            live.wake()

    async def _news(self, live: Live) -> None:
        """Return when there is news, or nobody listens any more; meanwhile, and without either, give signs of life."""
        while True:
            now = time.monotonic()
            due = live.woken_at + self.pace.beat_s if live.listeners else now + self._linger_s(live)
            try:
                async with asyncio.timeout(due - time.monotonic()):
                    await live.bell.wait()
            except TimeoutError:
                if not live.listeners:
                    return
                live.beats += 1
                live.wake()
            else:
                return

    def _linger_s(self, live: Live) -> float:
        # a question that cannot be answered is kept for nobody
        return self.pace.linger_s if live.channel.problem is None else 0.0

    async def _compute(self, live: Live) -> None:
        self.counts.computed += 1
        at_ms = time.time_ns() // 1_000_000
        try:
            async with asyncio.timeout(ANSWER_S):
                computed = await live.compute()
            new = live.channel.publish(computed.body, at_ms, computed.of)
        except Problem as problem:
            new = live.channel.fail(problem, at_ms)
        except Exception:
            if live.channel.problem is None:
                logger.exception("computing the live view %s failed", live.question[:200])
            detail = "the server could not answer this; its log says more"
            new = live.channel.fail(Problem(500, "internal", "Internal error", detail), at_ms)
        if new:
            live.wake()
