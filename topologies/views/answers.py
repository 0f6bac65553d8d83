"""What answering a request needs, as one value; and how a large answer is made without holding up the others."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tables.read_model import ReadModel
from tables.windows import Window
from topologies.topology import Topology
from topologies.views.freshness import Tracker
from topologies.views.problems import Problem, to_json
from topologies.views.queries import MAX_ROWS, Row, too_many

# A range that nobody has asked for since the start has to be merged first; what is done by then stays done.
MERGE_LIMIT_S = 10.0
# Rows between two chances for others.
ROWS_AT_A_TIME = 1_000


@dataclass(frozen=True)
class Views:
    """A server's topology, its read model, what is known of its freshness, and the shop's currency."""

    topology: Topology
    model: ReadModel
    tracker: Tracker
    currency: str

    def freshness(self, table: str | None = None) -> dict[str, Any]:
        """How fresh an answer from one table is, or from all of them.

        Ask before reading: what is read then is at least as fresh.
        """
        model = self.model
        topics = [model.group.source_of(table).topic.name] if table else list(self.tracker.sources)
        return self.tracker.freshness(topics, time.time())

    async def merge(self, table: str, window: Window) -> None:
        """Have a window merged, with others served in between. Raises Problem (503) when it takes too long."""
        deadline = time.monotonic() + MERGE_LIMIT_S
        for _ in self.model.steps(table, window):
            if time.monotonic() > deadline:
                detail = f"the range is still being merged after {MERGE_LIMIT_S:g} s: ask again, it goes on from there"
                raise Problem(503, "not-merged-yet", "Not merged yet", detail)
            await asyncio.sleep(0)

    async def collect(
        self, table: str, windows: Iterable[Window], rows_of: Callable[[Window], list[Row]], *, all_keys: bool
    ) -> list[Row]:
        """The rows of all windows. Raises BadParameter when there are more than `MAX_ROWS`."""
        rows: list[Row] = []
        breath = ROWS_AT_A_TIME
        for window in windows:
            if all_keys:
                await self.merge(table, window)
            rows += rows_of(window)
            if len(rows) > MAX_ROWS:
                raise too_many(f"more than {MAX_ROWS:,} rows")
            if len(rows) >= breath:
                breath = len(rows) + ROWS_AT_A_TIME
                await asyncio.sleep(0)
        return rows


VIEWS = web.AppKey("views", Views)


def answer(body: dict[str, Any], status: int = 200) -> web.Response:
    """A JSON answer."""
    raw = to_json(body)
    return web.Response(body=raw, status=status, content_type="application/json", headers={"Cache-Control": "no-store"})
