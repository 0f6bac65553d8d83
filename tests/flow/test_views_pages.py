"""Long answers: a page at a time, compressed; and who may read them from another origin."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from streaming import Shop, streamed
from views_shop import shop_settings

from streams.errors import MillraceError
from topologies.views.server import attach, views_app

ORIGIN = "https://shop.example"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with Shop(tmp_path / "copy") as shop:
        for minute in range(7):
            shop.sell(minute)
        yield shop


@pytest.mark.parametrize(
    "path", ["/api/sales?by=category", "/api/tables/sales_by_product/rows?", "/api/sales?hop=1m&window=2m"]
)
@pytest.mark.parametrize("limit", [1, 3, 14, 100])
async def test_pages_together_are_the_whole(shop: Shop, path: str, limit: int) -> None:
    whole = await shop.get(path)
    assert "next" not in whole
    rows: list[Any] = []
    page = await shop.get(f"{path}&limit={limit}")
    while page["next"] is not None:
        assert len(page["rows"]) == limit
        rows += page["rows"]
        page = await shop.get(f"{path}&limit={limit}&cursor={page['next']}")
    assert rows + page["rows"] == whole["rows"]
    assert len(page["rows"]) > 0


async def test_a_page_begins_after_its_row_whatever_came_before_it(shop: Shop) -> None:
    first = await shop.get("/api/sales?by=category&limit=3")
    assert [row["key"] for row in first["rows"]] == ["books", "games", "books"]
    shop.sell(0, region="x")
    second = await shop.get(f"/api/sales?by=category&limit=3&cursor={first['next']}")
    assert [(row["startMs"], row["key"]) for row in second["rows"]] == [
        (first["rows"][2]["startMs"], "games"),
        *((first["rows"][2]["startMs"] + 60_000, key) for key in ("books", "games")),
    ]


async def test_pages_are_the_way_through_more_than_an_answer_may_have(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topologies.views.answers.MAX_ROWS", 10)
    assert (await shop.client.get("/api/sales?by=category")).status == 400
    page = await shop.get("/api/sales?by=category&limit=9")
    assert len((await shop.get(f"/api/sales?by=category&limit=9&cursor={page['next']}"))["rows"]) == 5


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=20001", "cursor=", "cursor=%25", "cursor=YWJj", "cursor=_w"]
)
async def test_what_is_no_page_is_a_bad_parameter(shop: Shop, query: str) -> None:
    async with shop.client.get(f"/api/sales?{query}") as response:
        assert response.status == 400
        assert orjson.loads(await response.read())["parameter"] == query.partition("=")[0]


async def test_a_page_is_live_too(shop: Shop) -> None:
    async with streamed(shop.client, "/api/sales?limit=2") as stream:
        await stream.next()
        assert len(stream.body["rows"]) == 2


async def test_answers_of_some_size_are_compressed_for_who_accepts_it(shop: Shop) -> None:
    path = "/api/sales?by=category"
    async with shop.client.get(path, headers={"Accept-Encoding": "gzip"}, auto_decompress=False) as response:
        raw = await response.read()
        assert (response.headers["Content-Encoding"], response.headers["Vary"]) == ("gzip", "Accept-Encoding")
        assert int(response.headers["Content-Length"]) == len(raw)
    async with shop.client.get(path, headers={"Accept-Encoding": "gzip;q=0, br"}, auto_decompress=False) as response:
        plain = await response.read()
        assert "Content-Encoding" not in response.headers
        assert response.headers["Vary"] == "Accept-Encoding"
    assert orjson.loads(gzip.decompress(raw))["rows"] == orjson.loads(plain)["rows"]
    assert len(raw) < len(plain) / 3


@pytest.mark.parametrize("path", ["/api/state", "/healthz"])
async def test_small_answers_are_sent_as_they_are(shop: Shop, path: str) -> None:
    async with shop.client.get(path, headers={"Accept-Encoding": "gzip"}) as response:
        assert "Content-Encoding" not in response.headers


async def test_no_other_origin_may_read_by_default(shop: Shop) -> None:
    async with shop.client.get("/api/sales", headers={"Origin": ORIGIN}) as response:
        assert not [name for name in response.headers if name.startswith("Access-Control")]
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    async with shop.client.options("/api/sales", headers=asks) as response:
        assert response.status == 405


@pytest.fixture
async def open_to_origin(shop: Shop) -> AsyncIterator[TestClient[Any, Any]]:
    app = views_app([shop.driver.topology], origin=ORIGIN)
    attach(app, shop.views)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_one_origin_may_be_let_in(open_to_origin: TestClient[Any, Any]) -> None:
    for path, status in (("/api/sales", 200), ("/api/sales?by=x", 400), ("/api/sales/live", 200)):
        async with open_to_origin.get(path, headers={"Origin": ORIGIN}) as response:
            assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (status, ORIGIN)
            assert "Origin" in response.headers.getall("Vary")
    async with open_to_origin.get("/api/sales", headers={"Origin": "https://other.example"}) as response:
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Origin" in response.headers.getall("Vary")
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    async with open_to_origin.options("/api/sales", headers=asks) as response:
        assert response.status == 204
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
    async with open_to_origin.options("/api/sales", headers={**asks, "Origin": "https://other.example"}) as response:
        assert response.status == 405


@pytest.mark.parametrize(
    "origin", ["*", "null", "shop.example", "https://shop.example/", "https://a.example,https://b.example"]
)
def test_an_origin_is_one_scheme_and_host(origin: str) -> None:
    with pytest.raises(MillraceError, match="cors_origin"):
        shop_settings(cors_origin=origin)
    assert shop_settings(cors_origin="http://localhost:3000").cors_origin == "http://localhost:3000"
