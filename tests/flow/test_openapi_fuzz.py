"""What the API's document promises holds for requests that nobody would think of: schemathesis makes them up."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import requests
from aiohttp import web
from fuzzing import hear, serving
from whole_shop import WholeShop

from topologies.recommendation_views import trending_in_background

EVENTS = 600
# A stream does not end: what it answers before it begins is that of the view, and has tests of its own.
ENDLESS = r"/live$"
HINTS = {
    "name": ["sales_by_total", "sales_by_category", "recent_by_user", "interest_by_product", "docs.js"],
    "userId": ["1", "12"],
    "id": ["1", "12"],
    "key": ["total", "books", "1", "\x1ftotal"],
    "category": ["books", "games"],
    "table": ["sales_by_total", "activity_by_user"],
    "window": ["1m", "5m", "1h", "1d"],
    "hop": ["1m", "5m"],
    "size": ["1m", "1h"],
    "from": ["2025-01-01T00:00:00Z", "1735689600000"],
    "to": ["2025-01-01T00:30:00Z", "1735693200000"],
    "view": [["/api/sales"], ["/api/funnel", "/api/tables/nothing"]],
}


@asynccontextmanager
async def opened(shop: WholeShop) -> AsyncIterator[web.Application]:
    trends = asyncio.create_task(trending_in_background(shop.views[1].reader))
    yield shop.app()
    trends.cancel()
    await asyncio.gather(trends, return_exceptions=True)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    shop = WholeShop(tmp_path_factory.mktemp("shop"), EVENTS)
    with serving(lambda: opened(shop)) as url:
        yield url
    shop.close()


def hinted(document: dict[str, Any]) -> dict[str, Any]:
    """The document with some values that there are, which one out of a text's form would hardly find.

    Without `after`: of a topic that is not there it is refused before anything else is looked at.
    """
    for item in document["paths"].values():
        operation = item["get"]
        operation["parameters"] = [one for one in operation["parameters"] if one["name"] != "after"]
        for parameter in operation["parameters"]:
            if parameter["name"] in HINTS:
                schema, hints = parameter["schema"], {"enum": HINTS[parameter["name"]]}
                schema["anyOf"] = [hints, *schema.get("anyOf", [{"type": schema.get("type")}])]
    return document


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("phase", ["fuzzing", "coverage"])
def test_no_request_gets_an_answer_that_is_not_documented(url: str, phase: str) -> None:
    document = requests.get(f"{url}/openapi.json", timeout=20).json()
    heard = hear(hinted(document), url, phase, unexpected={"POST", "QUERY"}, without=ENDLESS)
    assert not heard.failures, "\n".join(heard.failures[:20])
    assert len(heard.asked) >= 25
    assert sum(heard.asked.values()) >= 300
    assert heard.statuses[200] >= sum(heard.statuses.values()) // 6
    assert {200, 400, 404} <= heard.statuses.keys()
    assert max(heard.statuses) < 500


# Found by hand and by schemathesis while this was built: answered with 500, with text, or not at all.
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/sales?to=9007199254740991", 400),
        ("/api/sales?from=253402300799999", 400),
        ("/api/sales/top?to=253370764799999", 200),
        ("/api/funnel?to=9998-12-31T23:59:59Z", 200),
        ("/api/sales?from=0&hop=1m&window=104249991d&key=a", 400),
        ("/api/sales?from=0&hop=1m&window=1d&key=total", 400),
        ("/api/tables/sales_by_total/rows?window=104249991d", 400),
        ("/api/sales?wait=1_0", 400),
        ("/api/sales?wait=1e999", 400),
        ("/api/sales?after=order-events:0:0&after=order-events:0:1", 400),
        ("/api/plain/1?a=1&a=2", 400),
        ("/api/sales?key=%00", 200),
        ("/api/sales?key=%ed%a0%80%ff", 200),
        ("/api/alerts?before=9999999999999999:00", 200),
        ("/api/batch?view=//%5B/api", 400),
        ("/docs/" + "x" * 9_000, 400),
    ],
)
def test_what_was_found_is_answered(url: str, path: str, status: int) -> None:
    response = requests.get(url + path, timeout=20)
    assert response.status_code == status, response.text
    content = "application/json" if status == 200 else "application/problem+json"
    assert response.headers["Content-Type"].startswith(content)
