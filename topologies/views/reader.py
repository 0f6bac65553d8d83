"""What a topology's own views and background functions are called with: everything that the server has of it.

A background function computes beside the server what would take a view too long, and posts it; a view answers with
what was posted last, as fresh as it was when the computing began:

    @shop.background
    async def trending(reader: Reader) -> None:
        while True:
            fresh = reader.freshness()
            now = await reader.merged("views_by_product", newest_window(reader.model, "views_by_product", "1h"))
            reader.post("trending", rank(now), fresh)
            await asyncio.sleep(2)

    @shop.view("/api/trending")
    def trending_now(reader: Reader, parameters: Mapping[str, str]) -> dict[str, Any]:
        posted = reader.posted("trending", within_s=30)
        return {"products": posted.value, "freshness": posted.freshness}
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tables.read_model import ReadModel
from tables.rollup import Results
from tables.topic_copy import TopicCopy
from tables.windows import Window
from topologies.views.freshness import Tracker
from topologies.views.problems import Problem
from topologies.views.turns import give_way

# A range that nobody has asked for since the start has to be merged first; what is done by then stays done.
MERGE_LIMIT_S = 10.0


@dataclass(frozen=True)
class Posted:
    """What a background function handed over, and how fresh it is now."""

    value: Any
    freshness: dict[str, Any]


@dataclass(frozen=True)
class Reader:
    """The read model of the topology's own tables, and the copies of derived topics by the topics' names.

    `versions` is the version that all this is of, by the topology's name. Whatever the read model can be asked, the
    reader can be asked too. In the `background` it lets answers go first.
    """

    model: ReadModel
    tracker: Tracker
    versions: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    background: bool = False
    _board: dict[str, tuple[Any, dict[str, Any], float]] = field(default_factory=dict, repr=False)

    @property
    def copies(self) -> Mapping[str, TopicCopy]:
        """The copies that the topology declares with `Topology.copy`, by the names that it declares them with."""
        copies = self.tracker.copies
        return {**copies, **{name: copies[own] for name, own in self.renamed.items() if own in copies}}

    def freshness(self, table: str | None = None) -> dict[str, Any]:
        """How fresh an answer from one table is; without one, from all tables and copies.

        Ask before reading: what is read then is at least as fresh.
        """
        topics = [self.model.group.source_of(table).topic.name] if table else list(self.tracker.sources)
        fresh = self.tracker.freshness(topics, time.time(), copies=table is None)
        return {**fresh, "versions": dict(self.versions)}

    async def merge(self, table: str, window: Window) -> None:
        """Have a window merged, with others served in between. Raises Problem (503) when it takes too long."""
        deadline = time.monotonic() + MERGE_LIMIT_S
        for _ in self.model.steps(table, window):
            if self.background:
                await give_way()
                continue
            if time.monotonic() > deadline:
                detail = f"the range is still being merged after {MERGE_LIMIT_S:g} s: ask again, it goes on from there"
                raise Problem(503, "not-merged-yet", "Not merged yet", detail)
            await asyncio.sleep(0)

    async def merged(self, table: str, window: Window) -> dict[str, Results]:
        """The merged results of every key in a window of whole slices, as `merge` comes to them. Not to be changed."""
        await self.merge(table, window)
        return self.model.results(table, window)

    async def give_way(self) -> None:
        """Let answers go first: for background functions, every few milliseconds of what they compute."""
        await give_way()

    def post(self, name: str, value: Any, freshness: dict[str, Any]) -> None:
        """Hand over what was computed. `freshness` is what the reader said before its tables were read."""
        self._board[name] = value, freshness, time.monotonic()
        self.tracker.news.tell()

    @property
    def board(self) -> set[str]:
        """The names of what was posted."""
        return set(self._board)

    def posted(self, name: str, within_s: float | None = None) -> Posted:
        """What was posted last. Raises Problem (503) when nothing was, or nothing in the last `within_s` seconds."""
        if name not in self._board:
            raise Problem(503, "not-computed-yet", "Not computed yet", f"{name} is still being computed: ask again")
        value, freshness, at = self._board[name]
        since = time.monotonic() - at
        if within_s is not None and since > within_s:
            detail = f"{name} was computed {since:.0f} s ago and not again since: the server's log says more"
            raise Problem(503, "not-computed", "Not computed", detail)
        age_s = freshness.get("age_s")
        return Posted(value, {**freshness, "age_s": None if age_s is None else round(age_s + since, 3)})

    if not TYPE_CHECKING:  # a view may be declared with `model: ReadModel`, and is then checked as such

        def __getattr__(self, name):
            return getattr(self.model, name)
