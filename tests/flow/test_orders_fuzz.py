"""What the order API's document promises holds for requests that nobody would think of, and the books balance after."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from aiohttp import web
from fuzzing import hear, serving
from ordering import OTHER, PIECES, POINTS, USER, Bookkeeping, MemoryLine, bookkeeping, sqlite_url

from topologies.orders.api.activity import Teller
from topologies.orders.api.server import orders_app
from topologies.orders.api.shop import Shop
from topologies.orders.database import Database
from topologies.orders.places import Places
from topologies.orders.schema import FIRST_ORDER

# Without these hardly a request would get beyond "there is no such user".
HINTS: dict[str, list[Any]] = {
    "X-USER-ID": [USER, OTHER, OTHER + 1],
    "id": [FIRST_ORDER, FIRST_ORDER + 1, USER],
    "cursor": [1, 3],
}


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[web.Application]:
    async with bookkeeping(sqlite_url(directory)) as books:
        for _ in range(2):
            placed = await books.place({1: 1})
        await books.pay(placed.order.orderId)
        shop = Shop(books.database, books.counter, books.transitions, Places(books.database), 0)
        yield orders_app(shop, Teller(MemoryLine()))


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with serving(lambda: opened(tmp_path)) as url:
        yield url


def hinted(document: dict[str, Any], phase: str) -> dict[str, Any]:
    """The document with some users, orders and products that there are.

    Fuzzing has no others, so that most requests come far; what is beside them would not be refused as it thinks.
    """
    line = document["components"]["schemas"]["Line"]["properties"]
    hints = [(line["productId"], [1, 2, 3, 4, 5, 99]), (line["quantity"], [1, 2, PIECES + 1])]
    for item in document["paths"].values():
        for operation in item.values():
            named = [one for one in operation["parameters"] if one["name"] in HINTS]
            hints += [(parameter["schema"], HINTS[parameter["name"]]) for parameter in named]
    for schema, values in hints:
        schema.update({"enum": values} if phase == "fuzzing" else {"anyOf": [{"enum": values}, {"type": "integer"}]})
    return document


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("phase", ["fuzzing", "coverage"])
def test_no_request_gets_an_answer_that_is_not_documented(url: str, phase: str, tmp_path: Path) -> None:
    document = hinted(requests.get(f"{url}/openapi.json", timeout=20).json(), phase)
    heard = hear(document, url, phase, unexpected={"PUT", "DELETE", "QUERY"})
    assert not heard.failures, "\n".join(heard.failures[:20])
    assert len(heard.asked) == sum(len(item) for item in document["paths"].values())
    assert sum(heard.asked.values()) >= 150
    assert {200, 400, 404, 409} <= heard.statuses.keys()
    assert max(heard.statuses) < 500
    print(f"{phase}: {sum(heard.asked.values())} requests, {dict(sorted(heard.statuses.items()))}")

    async def orders_of_books_that_balance() -> int:
        async with Database.open(sqlite_url(tmp_path)) as database:
            books = Bookkeeping(database)
            await books.assert_conserved(PIECES, POINTS)
            return len((await books.everything())["orders"])

    assert asyncio.run(orders_of_books_that_balance()) >= (10 if phase == "fuzzing" else 3)
