"""Live views and `after=` with a worker, a view server and Apache Kafka: nothing is fed by hand."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import confluent_kafka
import orjson
import pytest
from own import Running, running
from streaming import Stream

from streams.cluster import Cluster
from streams.topics import ORDER_EVENTS

LIMIT_S = 30.0
SALES = "/api/sales?by=region&window=1h"


class Shop:
    """The sales topology under names of its own, and a producer that knows where each order went."""

    def __init__(self, running: Running, prefix: str) -> None:
        self.running = running
        self.topic = prefix + ORDER_EVENTS.name
        self.sold = 0
        self._producer = confluent_kafka.Producer(running.cluster.librdkafka(**{"linger.ms": 1}))

    async def order(self, amount: int = 100) -> str:
        """Sell something in Seoul; returns the `topic:partition:offset` of the order."""
        self.sold += amount
        number = uuid4().hex
        event: dict[str, Any] = {"eventId": number, "eventType": "order.placed", "orderId": number, "userId": number}
        event |= {"amount": amount, "region": "seoul", "occurredAt": time.time_ns() // 1_000_000}
        told: list[confluent_kafka.Message] = []
        self._producer.produce(self.topic, orjson.dumps(event), number, on_delivery=lambda _, sent: told.append(sent))
        await asyncio.to_thread(self._producer.flush, 20)
        return f"{told[0].topic()}:{told[0].partition()}:{told[0].offset()}"

    @asynccontextmanager
    async def streamed(self, path: str, last_id: str = "") -> AsyncIterator[Stream]:
        """A stream of a view, from the view server that runs now."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": last_id}
        async with aiohttp.ClientSession(self.running.views.url) as session, session.get(path, headers=headers) as got:
            assert got.status == 200
            yield Stream(got)

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        async with aiohttp.ClientSession(self.running.views.url) as session, session.get(path) as got:
            return got.status, orjson.loads(await got.read())

    def kill_views(self) -> None:
        """End the view server as a crash does."""
        children = self.running.children
        child = next(child for child in children.running if child.name == "views")
        child.process.kill()
        child.process.wait(10)
        children.running.remove(child)

    def start_views(self) -> None:
        """Start it again where it was."""
        port = self.running.views.url.rpartition(":")[2]
        self.running.children.start("views", ["views", "--topology", "analytics", "--port", port])
        self.running.wait(lambda: self.running.views.get("/healthz"))


@pytest.fixture
def shop(kafka: Cluster, tmp_path: Path) -> Iterator[Shop]:
    prefix = f"live-{uuid4().hex[:8]}-"
    with running(kafka, tmp_path, "analytics", MILLRACE_PREFIX=prefix, MILLRACE_FLUSH_S="0.1") as found:
        yield Shop(found, prefix)


def placed(body: Any) -> int:
    return sum(row["placed"] for row in (body or {"rows": []})["rows"])


async def until_placed(stream: Stream, amount: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while placed(stream.body) != amount:
            await stream.next(LIMIT_S)


async def test_who_waits_for_what_was_sent_always_reads_it(shop: Shop) -> None:
    for _ in range(20):
        status, body = await shop.get(f"{SALES}&after={await shop.order()}&wait=20")
        assert status == 200
        assert placed(body) == shop.sold
    topic, partition, offset = (await shop.order()).split(":")
    status, body = await shop.get(f"{SALES}&after={topic}:{partition}:{int(offset) + 5}&wait=0.2")
    assert status == 504
    assert body["lag"][f"{topic}:{partition}"] >= 5


async def test_a_stream_shows_every_order_without_being_asked(shop: Shop) -> None:
    async with shop.streamed(SALES) as stream, shop.streamed("/api/sales/top?by=region") as top:
        await stream.next()
        for number in range(1, 11):
            await shop.order(number)
            await until_placed(stream, shop.sold)
        async with asyncio.timeout(LIMIT_S):
            while not top.body or not top.body["rows"] or top.body["rows"][0]["value"] != shop.sold:
                await top.next(LIMIT_S)
        assert (await shop.get(SALES))[1]["rows"] == stream.body["rows"]


async def test_a_killed_server_is_gone_on_from_after_it_is_back(shop: Shop) -> None:
    async with shop.streamed(SALES) as stream:
        await shop.order()
        await until_placed(stream, shop.sold)
        await asyncio.to_thread(shop.kill_views)
        with pytest.raises((ConnectionError, aiohttp.ClientError)):
            await until_placed(stream, -1)
    await shop.order()
    await asyncio.to_thread(shop.start_views)
    async with shop.streamed(SALES, stream.id) as again:
        first = await again.next()
        assert first.name == "snapshot"
        assert placed(again.body) >= shop.sold - 100  # what it had before, at once
        assert again.id.partition("-")[0] != stream.id.partition("-")[0]
        await until_placed(again, shop.sold)
        await again.until(LIMIT_S, rows=(await shop.get(SALES))[1]["rows"])


async def test_a_server_that_is_stopped_ends_its_streams_at_once(shop: Shop) -> None:
    async with shop.streamed(SALES) as stream:
        await stream.next()
        child = next(child for child in shop.running.children.running if child.name == "views")
        began = time.monotonic()
        await asyncio.to_thread(shop.running.children.end, child)
        assert time.monotonic() - began < 5
        with pytest.raises(ConnectionError):
            await until_placed(stream, -1)
