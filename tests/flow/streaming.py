"""A view server over a driver, and a client that keeps its copy of an answer by patches: for the tests of streams."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import jsonpatch
import orjson
from aiohttp.test_utils import TestClient, TestServer
from views_shop import MINUTE, T0, follow, line, look, open_model, order, sales

from tables.topic_copy import TopicCopy
from topologies.driver import Driver
from topologies.topology import View
from topologies.views.answers import Views
from topologies.views.channels import Pace
from topologies.views.freshness import Tracker
from topologies.views.guard import Access
from topologies.views.live import CHANNELS
from topologies.views.server import attach, views_app

LIMIT_S = 10.0
NOW = 1_767_230_000.0
PACE = Pace(every_s=0.01, linger_s=0.2, beat_s=0.1, stuck_s=0.5)
BEAT = ""


@dataclass
class Event:
    """One event as it came; a sign of life has no name."""

    name: str = BEAT
    id: str = ""
    data: Any = None
    comments: list[str] = field(default_factory=list)


class Stream:
    """The events of one stream, and the answer as it is after them."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.body: Any = None
        self.id = ""
        self.retry_ms = 0

    async def next(self, limit_s: float = LIMIT_S) -> Event:
        """The next event, or sign of life; a delta is applied to the body."""
        event = await asyncio.wait_for(self._event(), limit_s)
        if event.name == "snapshot":
            self.body, self.id = event.data, event.id
        elif event.name == "delta":
            self.body, self.id = jsonpatch.apply_patch(self.body, event.data), event.id
        return event

    async def _event(self) -> Event:
        event = Event()
        async for read in self.response.content:
            text = read.decode().rstrip("\n")
            name, _, value = text.partition(": ")
            if name == "retry":
                self.retry_ms = int(value)
                assert await self.response.content.readline() == b"\n"
            elif not text:
                return event
            elif name == "event":
                event.name = value
            elif name == "id":
                event.id = value
            elif name == "data":
                event.data = orjson.loads(value)
            elif text.startswith(":"):
                event.comments.append(text[1:].strip())
            else:
                raise AssertionError(f"no line of an event: {text}")
        raise ConnectionError("the stream has ended")

    async def until(self, limit_s: float = LIMIT_S, **expected: Any) -> Any:
        """The body once its members are as expected."""
        async with asyncio.timeout(limit_s):
            while self.body is None or any(self.body.get(name) != value for name, value in expected.items()):
                await self.next()
        return self.body


@asynccontextmanager
async def streamed(
    client: TestClient[Any, Any], path: str, headers: Mapping[str, str] | None = None
) -> AsyncIterator[Stream]:
    """A stream of a view, ended with the block."""
    async with client.get(path, headers={"Accept": "text/event-stream", **(headers or {})}) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield Stream(response)


class Shop:
    """A server over a driver; `state` is what the topology's own view answers, or raises."""

    def __init__(
        self,
        directory: Path,
        pace: Pace = PACE,
        token: str | None = None,
        copies: Mapping[str, TopicCopy] | None = None,
        posted: View | None = None,
    ) -> None:
        topology = sales(partitions=2)
        self.state: Any = {"n": 0}
        self.asked = 0
        self.takes_s = 0.0
        topology.view("/api/state")(self.view)
        topology.view("/api/state/{id}")(self.view)
        if posted is not None:
            topology.view("/api/posted")(posted)
        self.driver = Driver(topology)
        self.model = open_model(topology, directory)
        self.tracker = Tracker(self.model, copies=copies or {})
        app = views_app([topology], Access(token), pace)
        self.views = Views(topology, self.model, self.tracker, "KRW")
        attach(app, self.views)
        self.reader = self.views.reader
        self.channels = app[CHANNELS]
        self.client: TestClient[Any, Any] = TestClient(TestServer(app))
        self.looks = 0

    async def __aenter__(self) -> "Shop":
        await self.client.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        self.model.close()
        self.driver.close()

    def view(self, reader: Any, parameters: Mapping[str, str]) -> Any:
        self.asked += 1
        time.sleep(self.takes_s)
        if isinstance(self.state, Exception):
            raise self.state
        return {"freshness": {}, **self.state}

    def set(self, state: Any) -> None:
        self.state = state
        self.tracker.news.tell()

    def sell(self, minute: int = 0, amount: int = 100, **fields: Any) -> None:
        order(self.driver, T0 + minute * MINUTE, amount, items=[line(1, "books", amount)], partition=0, **fields)
        order(self.driver, T0 + minute * MINUTE, 7, items=[line(2, "games", 7)], partition=1, **fields)
        self.driver.flush()
        self.tracker.news.tell(follow(self.model, self.driver))

    def look(self, at: float | None = None) -> None:
        self.looks += 1
        look(self.tracker, self.driver, at or NOW + self.looks)
        self.tracker.news.tell()

    async def get(self, path: str) -> dict[str, Any]:
        async with self.client.get(path) as response:
            assert response.status == 200
            body: dict[str, Any] = orjson.loads(await response.read())
            return body
