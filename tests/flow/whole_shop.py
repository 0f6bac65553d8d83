"""Sales, behaviour and recommendations of one simulated shop behind one view server: for the tests of the whole API."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from behaving import behaviour, done, recommendations, simulated
from views_shop import follow, look, open_model, sales

from streams.log import TP
from tables.topic_copy import TopicCopy
from topologies.driver import Driver
from topologies.recommendation_views import trending_in_background
from topologies.topology import Topology
from topologies.views import Problem, Reader
from topologies.views.answers import Views
from topologies.views.freshness import Tracker
from topologies.views.server import attach, views_app

NOW = 1_767_230_000.0


class WholeShop:
    """The three topologies after some thousand events, and a view that does not describe itself."""

    def __init__(self, directory: Path, events: int = 1_500) -> None:
        first = done(behaviour(), simulated()[:events])
        second = done(recommendations(), [], first.log)
        second.publish()
        self.drivers = [first, second, done(self.plain(sales(partitions=2)), [], first.log)]
        self.copies: list[TopicCopy] = []
        self.views = [self.followed(driver, directory / str(at)) for at, driver in enumerate(self.drivers)]

    @staticmethod
    def plain(topology: Topology) -> Topology:
        @topology.view("/api/plain/{id}")
        def plain(reader: Reader, given: Mapping[str, str]) -> dict[str, Any]:
            """What it was given."""
            return {"given": dict(given)}

        return topology

    def followed(self, driver: Driver, directory: Path) -> Views:
        copies = {name: TopicCopy(one, directory / name) for name, one in driver.topology.copies.items()}
        for copy in copies.values():
            self.copies.append(copy)
            for tp in copy.positions():
                copy.apply(TP(*tp), driver.log.records(tp))
        model = open_model(driver.topology, directory / "model")
        tracker = Tracker(model, copies=copies)
        follow(model, driver)
        look(tracker, driver, NOW)
        tracker.caught_up = True
        return Views(driver.topology, model, tracker, "KRW")

    def app(self, **options: Any) -> web.Application:
        """An application over it; each runs once."""
        app = views_app([driver.topology for driver in self.drivers], **options)
        attach(app, *self.views)
        return app

    async def compute_trends(self) -> None:
        """One round of the background function."""
        await compute_trends(self.views[1].reader)

    def close(self) -> None:
        for copy in self.copies:
            copy.close()
        for views in self.views:
            views.model.close()
        for driver in self.drivers:
            driver.close()


async def compute_trends(reader: Reader) -> None:
    """One round of the background function that finds what is trending."""
    task = asyncio.create_task(trending_in_background(reader))
    while not task.done():
        await asyncio.sleep(0.01)
        try:
            reader.posted("searches")
        except Problem:
            continue
        break
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
