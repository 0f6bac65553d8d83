"""`after=`: an answer contains what its asker has just produced, or says how far it is."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from streaming import Shop, streamed
from views_shop import ORDERS, T0, order

from streams.topics import Topic
from tables.topic_copy import Copied, TopicCopy
from topologies.views import Reader

WITHIN_S = 5.0


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with Shop(tmp_path / "copy") as shop:
        yield shop


async def answer(shop: Shop, path: str, status: int = 200) -> dict[str, Any]:
    async with asyncio.timeout(WITHIN_S), shop.client.get(path) as response:
        body: dict[str, Any] = orjson.loads(await response.read())
        assert response.status == status, body
        return body


async def asked(shop: Shop, path: str) -> "asyncio.Task[dict[str, Any]]":
    """A request that waits."""
    task = asyncio.create_task(answer(shop, path))
    await asyncio.sleep(0.1)
    assert not task.done()
    return task


async def test_what_is_covered_is_answered_at_once(shop: Shop) -> None:
    shop.sell()
    body = await answer(shop, f"/api/sales?after={ORDERS}:0:0,{ORDERS}:1:0&wait=0")
    assert body["rows"][0]["orders"] == 2
    assert body["freshness"]["offsets"] == {f"{ORDERS}:0": 1, f"{ORDERS}:1": 1}


@pytest.mark.parametrize(
    "path", ["/api/sales?by=total&", "/api/tables/sales_by_total/rows?", "/api/sales/top?", "/api/tables?"]
)
async def test_an_answer_waits_until_it_has_what_was_produced(shop: Shop, path: str) -> None:
    shop.sell()
    waiting = await asked(shop, f"{path}after={ORDERS}:0:1")
    shop.look()
    await asyncio.sleep(0.05)
    assert not waiting.done()
    shop.sell(amount=5)
    assert (await waiting)["freshness"]["offsets"][f"{ORDERS}:0"] == 2


async def test_all_that_are_named_are_waited_for(shop: Shop) -> None:
    waiting = await asked(shop, f"/api/sales?after={ORDERS}:0:1,{ORDERS}:1:0")
    shop.sell()
    await asyncio.sleep(0.05)
    assert not waiting.done()
    shop.sell()
    assert (await waiting)["rows"][0]["orders"] == 4


async def test_what_does_not_come_in_time_is_a_504_that_says_how_far_it_is(shop: Shop) -> None:
    shop.sell()
    body = await answer(shop, f"/api/sales?after={ORDERS}:0:7,{ORDERS}:1:0&wait=0.05", 504)
    assert body["type"] == "urn:millrace:problem:not-covered-yet"
    assert body["covered"] == {f"{ORDERS}:0": 1, f"{ORDERS}:1": 1}
    assert body["lag"] == {f"{ORDERS}:0": 7, f"{ORDERS}:1": 0}


async def test_a_stream_begins_with_what_was_produced(shop: Shop) -> None:
    shop.sell()
    path = f"/api/sales/live?after={ORDERS}:0:1"
    async with shop.client.get(path + "&wait=0.05") as response:
        assert response.status == 504
    selling = asyncio.get_running_loop().call_later(0.1, shop.sell)
    async with streamed(shop.client, "/api/sales") as other, streamed(shop.client, path) as stream:
        await other.next()
        assert (await stream.next()).name == "snapshot"
        assert stream.body["rows"][0]["orders"] == 4
    selling.cancel()


@pytest.mark.parametrize(
    "query",
    ["after=", f"after={ORDERS}", f"after={ORDERS}:0", f"after={ORDERS}:x:1", f"after={ORDERS}:0:-1", "after=other:0:1",
     f"after={ORDERS}:2:0", f"after={ORDERS}:0:1,", f"after={ORDERS}:0:1&wait=31", f"after={ORDERS}:0:1&wait=-1",
     f"after={ORDERS}:0:1&wait=nan", f"after={ORDERS}:0:1&after={ORDERS}:0:2", f"after={ORDERS}:0:{'9' * 30}",
     "after=" + ",".join(f"{ORDERS}:0:{n}" for n in range(101))],
)  # fmt: skip
async def test_what_cannot_be_waited_for_is_a_bad_parameter(shop: Shop, query: str) -> None:
    body = await answer(shop, f"/api/sales?{query}", 400)
    assert body["parameter"] in ("after", "wait")


async def test_a_view_of_the_topology_waits_for_its_sources(shop: Shop) -> None:
    waiting = await asked(shop, f"/api/state?after={ORDERS}:0:0")
    shop.sell()
    assert (await waiting)["n"] == 0


async def test_a_posted_answer_waits_until_what_was_posted_has_it(tmp_path: Path) -> None:
    def view(reader: Reader, parameters: Mapping[str, str]) -> dict[str, Any]:
        posted = reader.posted("best")
        return {"best": posted.value, "freshness": posted.freshness}

    async with Shop(tmp_path / "copy", posted=view) as shop:
        shop.sell()
        shop.reader.post("best", "old", shop.reader.freshness())
        shop.sell()
        waiting = await asked(shop, f"/api/posted?after={ORDERS}:0:1")
        shop.reader.post("best", "new", shop.reader.freshness())
        assert (await waiting)["best"] == "new"


async def test_an_answer_from_copies_waits_until_they_are_known_to_have_what_was_derived(tmp_path: Path) -> None:
    copy = TopicCopy(Copied(Topic("things", partitions=1, cleanup="compact", retention_s=None)), tmp_path / "things")
    async with Shop(tmp_path / "copy", copies={"things": copy}) as shop:
        order(shop.driver, T0, partition=0)
        waiting = await asked(shop, f"/api/state?after={ORDERS}:0:0")
        shop.sell()
        await asyncio.sleep(0.05)
        assert not waiting.done()
        shop.look(at=2e9)  # the sources are complete as of then
        shop.tracker.look_at_copies(shop.tracker.complete_at(), {"things": {0: 0}})
        shop.tracker.news.tell()
        await waiting
        assert (await answer(shop, f"/api/sales?after={ORDERS}:0:0"))["rows"]
    copy.close()
