"""Which version of a topology a view server serves, and its move to another while requests come.

The register (topologies.versions.register) says which version is wanted. A server opens it beside the one that it
serves, follows it until its tables cover all that was there at the start, merges what the other has merged, and lets
its background functions compute. Then it stops the other where it is, for a second or a few, until the new one covers
every source offset that the old one does: then it swaps, between two requests. So no answer is older than the one
before it. The old version stays open, and goes on, until the last request that began with it is answered.

What a server serves is kept in a file beside its local copies, so that it answers from it after a restart at once; but
nothing is followed before the register is known, since following a version makes its topics where they are missing.
"""

import asyncio
import contextlib
import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from streams.errors import MillraceError
from tables.read_model import ReadModel
from tables.table import Group
from tables.topic_copy import TopicCopy
from tables.windows import Window
from topologies.settings import Settings
from topologies.topology import FIRST, Topology
from topologies.versions.loading import load_as, load_version
from topologies.versions.register import Register, Seen, Version
from topologies.views.answers import Serving, Views
from topologies.views.background import keep_running
from topologies.views.follower import Follower
from topologies.views.freshness import Tracker
from topologies.views.news import Bell
from topologies.views.problems import Problem
from topologies.views.watching import Watch

logger = logging.getLogger(__name__)

# The old version stands still for so long while the new one catches up with it; if it does not, both go on for as long,
# and the next time it stands still for twice as long, up to the longest.
STILL_S: Final = 1.0
LONGEST_STILL_S: Final = 5.0
# The new version is not worth waiting for before it was known to be complete so recently (s).
NEAR_S: Final = 3.0
# Background functions that have not posted by then may never do.
POSTED_S: Final = 30.0
LOOK_S: Final = 0.1
RETRY_S: Final = 5.0


class Kept(msgspec.Struct, frozen=True):
    """What a server remembers of the version that it serves."""

    name: str
    version: Version


@dataclass
class Open:
    """One version of a topology that is open in this server."""

    views: Views
    follower: Follower
    _stack: ExitStack
    following: "asyncio.Task[None] | None" = None
    _computing: list["asyncio.Task[None]"] = field(default_factory=list)

    @classmethod
    def of(cls, topology: Topology, settings: Settings) -> "Open":
        """Open the local copies. Raises StoreLocked, StoreDamaged."""
        with ExitStack() as opening:
            views = _views(topology, settings, opening)
            return cls(views, _follower(views, settings), opening.pop_all())

    @property
    def version(self) -> str:
        """Its version."""
        return self.views.topology.version

    def compute(self) -> None:
        """Run the background functions from now on."""
        functions = self.views.topology.backgrounds.items()
        self._computing = [asyncio.create_task(keep_running(name, f, self.views.reader)) for name, f in functions]

    def follow(self) -> None:
        """Follow the topics from now on."""
        if self.following is None:
            self.following = asyncio.create_task(self.follower.run())

    async def close(self) -> None:
        """Follow no more, and close."""
        tasks = [*self._computing, *([self.following] if self.following is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._stack.close()


def _views(topology: Topology, settings: Settings, opened: ExitStack) -> Views:
    directory = copy_directory(topology, settings)
    model = ReadModel(read_group(topology), directory)
    opened.callback(model.close)
    copies = {}
    for name, copied in topology.copies.items():
        copies[name] = TopicCopy(copied, directory.with_name(f"{directory.name}-{name}"))
        opened.callback(copies[name].close)
    return Views(topology, model, Tracker(model, copies=copies), settings.currency)


def _follower(views: Views, settings: Settings) -> Follower:
    copies = list(views.tracker.copies.values())
    topics = {topic.name: topic for topic in [*(copy.topic for copy in copies), *views.topology.topics()]}
    return Follower(views.model, views.tracker, settings.cluster, list(topics.values()), copies=copies)


def copy_directory(topology: Topology, settings: Settings) -> Path:
    """Where a server keeps a topology: one for each port, so that several servers of a host share a state directory.

    Copies of derived topics are beside it, with the topic's name after it.
    """
    return Path(settings.state_dir) / topology.name / f"views-{settings.views_port}"


def read_group(topology: Topology) -> Group:
    """The group without its second stages, whose tables are nobody's to read."""
    return Group(topology.name, tuple(topology.sources.values()))


def served_last(first: Topology, settings: Settings) -> Topology:
    """The version that a server of these settings served last; the first one where that is not known."""
    try:
        kept = msgspec.json.decode(_file(first, settings).read_bytes(), type=Kept)
        return load_as(first, kept.name, kept.version, settings)
    except FileNotFoundError:
        return first
    except (OSError, msgspec.DecodeError, MillraceError) as error:
        logger.warning("%s: the version served last cannot be loaded, it begins with v1: %s", first.name, error)
        return first


def _file(first: Topology, settings: Settings) -> Path:
    return Path(settings.state_dir) / "versions" / f"{first.name}-views-{settings.views_port}.json"


class Host:
    """One topology of a server: what it serves, and what it is moving to. `first` is its first version."""

    def __init__(self, first: Topology, settings: Settings) -> None:
        """Open what was served last, or the first version. Raises StoreLocked, StoreDamaged."""
        self.first = first
        self.settings = settings
        self.current = Open.of(served_last(first, settings), settings)
        self.said = Seen(self.current.version)
        self._routed = first.views.keys() | self.current.views.topology.views.keys()
        # Those that somebody still answers from, and those that are being closed.
        self._retiring: dict[str, tuple[Open, asyncio.Task[None]]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def family(self) -> str:
        """The topology's name."""
        return self.first.name

    def _remember(self, register: Register) -> None:
        name = self.current.version
        file = _file(self.first, self.settings)
        if name == FIRST:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(Kept(name, register.known(self.family)[name])))
        fresh.replace(file)

    async def run(self, serving: Serving, watch: Watch) -> None:
        """Serve what the register says, until cancelled.

        Raises MillraceError for what keeps the version that is served from being followed for good.
        """
        register, bell = watch.register, Bell([watch.news])
        moving: asyncio.Task[None] | None = None
        self.current.compute()
        try:
            await watch.known.wait()
            while True:
                wanted = register.served(self.family).version
                if wanted == self.current.version:
                    await _cancelled(moving)
                    moving = None
                    self.current.follow()
                    self.said = Seen(self.current.version)
                elif moving is None or moving.get_name() != wanted or moving.done():
                    await _cancelled(moving)
                    if self.current.version in register.known(self.family) and self.current.views.model.progress:
                        self.current.follow()
                    moving = asyncio.create_task(self._move(wanted, serving, watch), name=wanted)
                await self._something(bell, moving)
        finally:
            await _cancelled(moving)

    async def close(self) -> None:
        """Follow no more, and close everything."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        for old, task in list(self._retiring.values()):
            await _cancelled(task)
            await old.close()
        await self.current.close()

    async def _something(self, bell: Bell, moving: "asyncio.Task[None] | None") -> None:
        """Return when there is something new. Raises what ended the following of what is served."""
        following, ringing = self.current.following, asyncio.create_task(bell.wait())
        watched = {task for task in (ringing, moving, following) if task is not None}
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancelled(ringing)
        if following is not None and following.done() and following is self.current.following:
            following.result()

    async def _move(self, wanted: str, serving: Serving, watch: Watch) -> None:
        """Move to a version; what fails is tried again, and logged when it is something else than before."""
        warned = ""
        while True:
            try:
                await self._moved(wanted, serving, watch.register)
                watch.news.tell()
                return
            except Exception as error:  # what a version is made of may raise anything
                told = str(error) if isinstance(error, MillraceError) else repr(error)
                if told != warned:
                    logger.warning(
                        "%s stays at %s: %s cannot be served: %s", self.family, self.current.version, wanted, told
                    )
                warned = told
                self._say(wanted, f"it cannot be served: {told}")
            await asyncio.sleep(RETRY_S)

    def _say(self, moving: str, waiting: str) -> None:
        self.said = Seen(self.current.version, moving, waiting)

    async def _moved(self, wanted: str, serving: Serving, register: Register) -> None:
        self._say(wanted, "it is being opened")
        topology = await asyncio.to_thread(load_version, self.first, wanted, self.settings, register)
        self._refuse_alike(topology, serving)
        new, old = await self._opened(topology), self.current
        try:
            behind = register.served(self.family).behind
            await self._level(new, old, behind=behind)
        except BaseException:
            await new.close()
            raise
        # from here on nothing waits before the next request
        serving.swap(old.views, new.views)
        self.current = new
        old.follower.go_on()
        self._retire(old)
        self._remember(register)
        logger.info("%s: serving %s, no longer %s", self.family, new.version, old.version)
        if unrouted := sorted(topology.views.keys() - self._routed):
            logger.warning("%s: %s will be there when the server is started again", self.family, ", ".join(unrouted))

    def _refuse_alike(self, topology: Topology, serving: Serving) -> None:
        others = [views for views in serving.now.all if views.topology.family != self.family]
        taken = {name: views.topology.family for views in others for name in views.model.tables}
        for table in read_group(topology).tables:
            if table.name in taken:
                raise MillraceError(
                    f"its table {table.name!r} is in {taken[table.name]} too, which is served beside it"
                )

    async def _level(self, new: Open, old: Open, *, behind: bool) -> None:
        """Return when answers from the new version may follow on those of the old one, which then stands still."""
        bell = Bell([new.views.tracker.news])
        while not new.views.tracker.caught_up:
            self._say(new.version, _lag(new))
            await _rung(bell, new)
        await self._prepared(new, old, bell)
        still_s, still_until, wait_until = STILL_S, 0.0, 0.0
        try:
            while not (behind or covers(new.views, old.views)):
                now = time.monotonic()
                if now > still_until and now > wait_until and _is_near(new):
                    still_until, wait_until = now + still_s, now + 2 * still_s
                    still_s = min(LONGEST_STILL_S, 2 * still_s)
                    old.follower.stand_still()
                elif now > still_until:
                    old.follower.go_on()
                self._say(new.version, _lag(new))
                await _rung(bell, new)
        except BaseException:
            old.follower.go_on()
            raise

    async def _prepared(self, new: Open, old: Open, bell: Bell) -> None:
        """Have merged and posted what the old version has, so that the first answers take no longer than its last."""
        self._say(new.version, "it is being merged")
        for table, model in ((name, old.views.model) for name in new.views.model.tables):
            if table not in model.tables or model.slice_ms(table) != new.views.model.slice_ms(table):
                continue
            for start, end in model.merged(table):
                with contextlib.suppress(Problem):  # it takes long, and what is done stays done
                    await new.views.merge(table, Window(start, end))
        until = time.monotonic() + POSTED_S
        posted = old.views.reader.board if new.views.topology.backgrounds else set[str]()
        while not new.views.reader.board >= posted and time.monotonic() < until:
            self._say(new.version, "its background functions have not posted yet")
            await _rung(bell, new)

    async def _opened(self, topology: Topology) -> Open:
        """A version that follows and computes: one that is not closed yet is taken back."""
        if topology.version in self._retiring:
            found, retiring = self._retiring.pop(topology.version)
            await _cancelled(retiring)
            return found
        if self._closing:
            await asyncio.wait(self._closing)  # unlike gather it lets them end when this move is called off
        found = Open.of(topology, self.settings)
        found.follow()
        found.compute()
        return found

    def _retire(self, old: Open) -> None:
        """Close a version once nobody answers from it any more."""
        self._retiring[old.version] = old, asyncio.create_task(self._close_when_free(old))

    async def _close_when_free(self, old: Open) -> None:
        await old.views.holders.gone()
        del self._retiring[old.version]
        closing = asyncio.create_task(old.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def covers(new: Views, old: Views) -> bool:
    """Whether one version has everything that the other has of the sources that both read."""
    for topic in new.tracker.sources.keys() & old.tracker.sources.keys():
        covered = new.model.covered(topic)
        if any(covered.get(number, 0) < offset for number, offset in old.model.covered(topic).items()):
            return False
    return True


def _is_near(new: Open) -> bool:
    tracker = new.views.tracker
    age_s = tracker.age_s(tracker.sources, time.time())
    return age_s is not None and age_s < NEAR_S


def _lag(new: Open) -> str:
    tracker = new.views.tracker
    lags = [lag for t, source in tracker.sources.items() for lag in source.lag(tracker.model.covered(t)).values()]
    if not tracker.caught_up:
        return f"its copy is being read, {tracker.model.records:,} records so far"
    return f"it is {sum(lags):,} records behind the sources"


async def _rung(bell: Bell, new: Open) -> None:
    """Return when there is news, or soon anyway. Raises what ended the following."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK_S):
            await bell.wait()
    if new.following is not None and new.following.done():
        new.following.result()


async def _cancelled(task: "asyncio.Task[None] | None") -> None:
    if task is not None and not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
