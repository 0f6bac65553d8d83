"""What answering a request needs, as one value; and how a large answer is made without holding up the others."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tables.read_model import ReadModel
from tables.windows import Window
from topologies.topology import Topology
from topologies.views.freshness import Tracker, together
from topologies.views.page import Page
from topologies.views.problems import Handler, NotFound, to_json
from topologies.views.queries import MAX_ROWS, Row, too_many
from topologies.views.reader import Reader

# How long one answer may hold up the others: a row may take as long as a thousand, if its window is long.
BREATH_S = 0.005


class Holders:
    """Those who are answering from something, which has to stay open as long."""

    def __init__(self) -> None:
        """Nobody yet."""
        self.count = 0
        self._free = asyncio.Event()
        self._free.set()

    def enter(self) -> None:
        """One more."""
        self.count += 1
        self._free.clear()

    def leave(self) -> None:
        """One less."""
        self.count -= 1
        if not self.count:
            self._free.set()

    async def gone(self) -> None:
        """Return once there is nobody."""
        await self._free.wait()


@dataclass(frozen=True)
class Views:
    """One version of a topology: its read model, what is known of its freshness, and the shop's currency."""

    topology: Topology
    model: ReadModel
    tracker: Tracker
    currency: str
    reader: Reader = field(init=False)
    holders: Holders = field(default_factory=Holders, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the reader that the topology's own views and background functions share."""
        versions = {self.topology.family: self.topology.version}
        object.__setattr__(self, "reader", Reader(self.model, self.tracker, versions, self.topology.renamed))

    def freshness(self, table: str | None = None) -> dict[str, Any]:
        """How fresh an answer from one table is, or from everything of the topology. Ask before reading."""
        return self.reader.freshness(table)

    async def merge(self, table: str, window: Window) -> None:
        """Have a window merged, with others served in between. Raises Problem (503) when it takes too long."""
        await self.reader.merge(table, window)

    async def collect(
        self,
        table: str,
        windows: Sequence[Window],
        rows_of: Callable[[Window], list[Row]],
        page: Page,
        *,
        all_keys: bool,
    ) -> Row:
        """A page of the rows of all windows, as `rows`. Raises BadParameter when there are more than `MAX_ROWS`."""
        rows: list[Row] = []
        breath = time.monotonic() + BREATH_S
        for window in page.windows(windows):
            if all_keys:
                await self.merge(table, window)
            rows += page.rows(rows_of(window))
            if page.limit is not None and len(rows) > page.limit:
                break
            if len(rows) > MAX_ROWS:
                raise too_many(f"more than {MAX_ROWS:,} rows")
            if time.monotonic() >= breath:
                await asyncio.sleep(0)
                breath = time.monotonic() + BREATH_S
        return page.cut(rows)


@dataclass(frozen=True)
class Served:
    """All topologies of a server. Names of tables are unique among them."""

    all: tuple[Views, ...]

    def of(self, topology: str) -> Views:
        """What is served of the topology whose first version has that name."""
        return next(views for views in self.all if views.topology.family == topology)

    def of_table(self, table: str) -> Views:
        """What is served of the topology that keeps a table. Raises NotFound."""
        for views in self.all:
            if table in views.model.tables:
                return views
        raise NotFound(f"there is no table {table!r}; there are {', '.join(self.tables)}")

    @property
    def tables(self) -> list[str]:
        """The names of all tables."""
        return [name for views in self.all for name in views.model.tables]

    @property
    def ready(self) -> bool:
        """Whether everything that was there at the start is applied."""
        return all(views.tracker.caught_up for views in self.all)

    def freshness(self) -> Row:
        """How fresh an answer is that all topologies have a part in."""
        return together([views.freshness() for views in self.all])

    def freshness_of_each(self) -> Row:
        """The freshness of all together, and where there are several, of each by its name."""
        each = {views.topology.family: views.freshness() for views in self.all}
        found: Row = {"freshness": together(list(each.values()))}
        return found if len(each) == 1 else {**found, "topologies": each}


class Held:
    """What one request is answered from, whatever is served by others meanwhile."""

    def __init__(self, served: Served) -> None:
        """Keep it open until it is let go."""
        self.served = served
        self._held = True
        for views in served.all:
            views.holders.enter()

    def release(self) -> None:
        """Let it go; once is enough, and more does no harm."""
        if self._held:
            self._held = False
            for views in self.served.all:
                views.holders.leave()


class Serving:
    """What a server serves now. It may change between two requests, never for one."""

    def __init__(self, served: Served) -> None:
        """Begin with that."""
        self.now = served

    @contextmanager
    def held(self) -> Iterator[Held]:
        """What is served now, kept open at most until the end of the block."""
        held = Held(self.now)
        try:
            yield held
        finally:
            held.release()

    def swap(self, old: Views, new: Views) -> None:
        """Answer from another version from now on, and let who waits for news of the old one hear of it."""
        self.now = Served(tuple(new if views is old else views for views in self.now.all))
        old.tracker.news.hand_over(new.tracker.news)


SERVING = web.AppKey("serving", Serving)
# What the request is answered from, all of it.
SERVED = web.RequestKey("served", Served)
HELD = web.RequestKey("held", Held)


@web.middleware
async def from_one(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request from what is served when it comes."""
    with request.app[SERVING].held() as held:
        request[HELD], request[SERVED] = held, held.served
        return await handler(request)


def answer(body: dict[str, Any], status: int = 200) -> web.Response:
    """A JSON answer."""
    raw = to_json(body)
    return web.Response(body=raw, status=status, content_type="application/json", headers={"Cache-Control": "no-store"})
