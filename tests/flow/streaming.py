"""A client of live views that keeps its copy of the answer by the patches alone: for the tests of streams."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jsonpatch
import orjson
from aiohttp.test_utils import TestClient

LIMIT_S = 10.0
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
        async for line in self.response.content:
            text = line.decode().rstrip("\n")
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
