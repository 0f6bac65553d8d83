"""What the views of behaviour and recommendations answer over a simulated shop, and for what they do not know."""

from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from behaving import behaviour, booked, done, recommendations, simulated
from views_shop import follow, look, open_model
from whole_shop import compute_trends

from streams.events import UserActivity
from streams.log import TP
from tables.topic_copy import TopicCopy
from topologies.driver import Driver
from topologies.views.answers import Views
from topologies.views.freshness import Tracker
from topologies.views.server import attach, views_app

Client = TestClient[Any, Any]
NOW = 1_767_230_000.0


class Served:
    """Both topologies after the simulated shop, or after nothing, behind one application."""

    def __init__(self, directory: Path, *, empty: bool = False) -> None:
        first = done(behaviour(), [] if empty else simulated())
        second = done(recommendations(), [], first.log)
        second.publish()
        self.drivers = [first, second]
        self.copies: list[TopicCopy] = []
        self.views: list[Views] = []
        for number, driver in enumerate(self.drivers):
            copies = self.copied(driver, directory / f"copies-{number}")
            model = open_model(driver.topology, directory / f"model-{number}")
            tracker = Tracker(model, copies=copies)
            follow(model, driver)
            look(tracker, driver, NOW)
            self.views.append(Views(driver.topology, model, tracker, "KRW"))

    @property
    def client(self) -> Client:
        """A client of a server of its own: an application runs once."""
        app = views_app([driver.topology for driver in self.drivers])
        attach(app, *self.views)
        return TestClient(TestServer(app))

    def copied(self, driver: Driver, directory: Path) -> dict[str, TopicCopy]:
        found = {}
        for name, declared in driver.topology.copies.items():
            found[name] = copy = TopicCopy(declared, directory / name)
            self.copies.append(copy)
            for tp in copy.positions():
                copy.apply(TP(*tp), driver.log.records(tp))
        return found

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


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("served"))
    yield served
    served.close()


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Client]:
    async with served.client as client:
        yield client


async def get(client: Client, path: str, status: int = 200) -> Any:
    response = await client.get(path)
    body = orjson.loads(await response.read())
    assert response.status == status, body
    return body


async def test_a_users_sessions_are_those_of_the_ledger_newest_first(client: Client) -> None:
    expected = [session for session in booked(simulated()).sessions(all_over=True)]
    for user in {session.user_id for session in expected[:40]}:
        body = await get(client, f"/api/sessions/{user}")
        own = sorted((s for s in expected if s.user_id == user), key=lambda s: -s.start)
        rows = body["sessions"]
        assert [(row["events"], row["viewed"], row["carted"], row["bought"], row["checkout"]) for row in rows] == [
            (s.events, list(s.viewed), list(s.carted), list(s.bought), s.checkout) for s in own
        ]
        assert [row["open"] for row in rows] == sorted((row["open"] for row in rows), reverse=True)
        assert body["freshness"]["lagTotal"] == 0


async def test_the_funnel_is_that_of_the_ledger(client: Client) -> None:
    body = await get(client, "/api/funnel?hours=24")
    cells = booked(simulated()).funnel()
    for name, steps in [(None, body["total"]), *body["categories"].items()]:
        of = [cell for (_, category), cell in cells.items() if category == name]
        for step, key in zip(steps, ("viewed", "carted", "checkouts", "ordered", "paid"), strict=True):
            assert step["events"] == sum(cell.events[key] for cell in of)
            assert round(step["users"]) == len(set().union(*(cell.users[key] for cell in of)))
    one = await get(client, "/api/funnel?category=books")
    assert list(one["categories"]) == ["books"]
    assert "books" in (await get(client, "/api/funnel?category=nothing", 404))["detail"]


@pytest.mark.parametrize(("path", "time"), [("/api/carts/abandoned", "abandonedAt"), ("/api/alerts", "occurredAt")])
async def test_what_is_listed_comes_newest_first_page_by_page_and_each_once(
    client: Client, path: str, time: str
) -> None:
    rows, after = [], ""
    while True:
        page = await get(client, f"{path}?n=3{after}")
        rows += page["rows"]
        if page["next"] is None:
            break
        after = f"&before={page['next']}"
    assert all(a[time] >= b[time] for a, b in pairwise(rows))
    ledger = booked(simulated())
    expected = ledger.carts() if "carts" in path else ledger.alerts(all_over=True)
    assert len(rows) == len(expected) > 3
    one = rows[0]["userId"]
    own = (await get(client, f"{path}?userId={one}"))["rows"]
    assert own == [row for row in rows if row["userId"] == one]
    assert (await get(client, f"{path}?userId=nobody"))["rows"] == []
    assert (await get(client, f"{path}?before=x", 400))["parameter"] == "before"


async def test_a_products_neighbours_are_as_published(served: Served, client: Client) -> None:
    published = {row["productId"]: row for row in served.drivers[1].latest("product-recommendations").values()}
    for product, row in published.items():
        for by in ("seen", "bought"):
            body = await get(client, f"/api/recommendations/products/{product}?by={by}&n=50")
            expected = row[by]["neighbours"]
            assert [one["productId"] for one in body["rows"]] == [one["productId"] for one in expected]
            assert [one["score"] for one in body["rows"]] == [round(one["score"], 4) for one in expected]
            assert body["sharesLowBy"] == 0
            assert body["baskets"] == row[by]["baskets"]


async def test_a_user_gets_what_goes_with_what_they_did_and_a_stranger_what_trends(
    served: Served, client: Client
) -> None:
    await served.compute_trends()
    user = next(iter({session.user_id for session in booked(simulated()).sessions()}))
    body = await get(client, f"/api/recommendations/users/{user}?n=5")
    assert body["known"] is True
    assert body["favourite"]
    assert all(", often " in row["reason"] for row in body["rows"])
    assert len(body["rows"]) == 5
    stranger = await get(client, "/api/recommendations/users/nobody")
    assert (stranger["known"], stranger["favourite"]) == (False, None)
    trends = await get(client, "/api/trending?n=10")
    assert [row["productId"] for row in stranger["rows"]] == [row["key"] for row in trends["rows"]][:10]
    assert {row["reason"] for row in stranger["rows"]} <= {"trending"}


async def test_what_trends_is_told_by_category_and_of_searches(served: Served, client: Client) -> None:
    await served.compute_trends()
    products = {
        str(sent.event.product_id): sent.event.category
        for sent in simulated()
        if isinstance(sent.event, UserActivity) and sent.event.event_type == "product.viewed"
    }
    rows = (await get(client, "/api/trending?category=books"))["rows"]
    assert rows
    assert all(products[row["key"]] == "books" for row in rows)
    assert (await get(client, "/api/trending?kind=searches"))["kind"] == "searches"
    assert "books" in (await get(client, "/api/trending?category=nothing", 404))["detail"]
    assert (await get(client, "/api/trending?kind=nothing", 400))["parameter"] == "kind"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/api/sessions/nobody", "did nothing"),
        ("/api/recommendations/products/nothing", "in no session"),
        ("/api/sessions/%00", "did nothing"),
        ("/api/recommendations/products/%FF", "in no session"),
    ],
)
async def test_an_unknown_id_is_a_404_with_the_reason(client: Client, path: str, words: str) -> None:
    assert words in (await get(client, path, 404))["detail"]


@pytest.mark.parametrize(
    "path",
    ["/api/sessions/1?hours=100", "/api/funnel?hours=x", "/api/alerts?n=0", "/api/recommendations/users/1?n=51"],
)
async def test_a_parameter_that_is_not_right_is_named(client: Client, path: str) -> None:
    assert (await get(client, path, 400))["parameter"] in ("hours", "n")


async def test_over_nothing_every_view_answers_sensibly(tmp_path: Path) -> None:
    served = Served(tmp_path, empty=True)
    try:
        async with served.client as client:
            await get(client, "/api/trending", 503)
            assert (await get(client, "/api/recommendations/users/1"))["rows"] == []
            assert (await get(client, "/api/carts/abandoned"))["rows"] == []
            assert (await get(client, "/api/alerts"))["rows"] == []
            assert (await get(client, "/api/funnel"))["categories"] == {}
            await get(client, "/api/sessions/1", 404)
            await get(client, "/api/recommendations/products/1", 404)
            await served.compute_trends()
            assert (await get(client, "/api/trending"))["rows"] == []
    finally:
        served.close()
