"""What the views of behaviour and recommendations answer over a simulated shop, and for what they do not know."""

from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from behaving import behaviour, booked, done, recommendations, simulated
from views_shop import HOUR, MINUTE, T0, follow, look, open_model, order, shop_settings
from whole_shop import compute_trends

from streams.events import UserActivity
from streams.log import TP
from streams.topics import USER_ACTIVITY
from tables.topic_copy import TopicCopy
from topologies.behaviour import behaviour_topology
from topologies.behaviour_views import funnel, sessions
from topologies.driver import Driver
from topologies.recommendation_views import Followed
from topologies.recommendations import recommendations_topology
from topologies.views import NotFound
from topologies.views.answers import Views
from topologies.views.freshness import Tracker, iso
from topologies.views.server import attach, views_app

Client = TestClient[Any, Any]
NOW = 1_767_230_000.0


def copied(driver: Driver, directory: Path) -> dict[str, TopicCopy]:
    found = {}
    for name, declared in driver.topology.copies.items():
        found[name] = copy = TopicCopy(declared, directory / name)
        for tp in copy.positions():
            copy.apply(TP(*tp), driver.log.records(tp))
    return found


def views_of(driver: Driver, directory: Path) -> Views:
    """What a view server that has read all of the driver's log answers from."""
    model = open_model(driver.topology, directory / "model")
    tracker = Tracker(model, copies=copied(driver, directory / "copies"))
    follow(model, driver)
    look(tracker, driver, NOW)
    return Views(driver.topology, model, tracker, "KRW")


class Served:
    """Both topologies after the simulated shop, or after nothing, behind one application."""

    def __init__(self, directory: Path, *, empty: bool = False) -> None:
        first = done(behaviour(), [] if empty else simulated())
        second = done(recommendations(), [], first.log)
        second.publish()
        self.drivers = [first, second]
        self.views = [views_of(driver, directory / f"{number}") for number, driver in enumerate(self.drivers)]

    @property
    def client(self) -> Client:
        """A client of a server of its own: an application runs once."""
        app = views_app([driver.topology for driver in self.drivers])
        attach(app, *self.views)
        return TestClient(TestServer(app))

    async def compute_trends(self) -> None:
        """One round of the background function."""
        await compute_trends(self.views[1].reader)

    def close(self) -> None:
        for views in self.views:
            end(views)
        for driver in self.drivers:
            driver.close()


def end(views: Views) -> None:
    for copy in views.reader.copies.values():
        copy.close()
    views.model.close()


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


def act(driver: Driver, at: int, user: int, product: str, category: str | None = None) -> None:
    event = {"eventType": "product.viewed", "productId": product, "userId": user, "occurredAt": at}
    if category is not None:
        event["category"] = category
    driver.feed(USER_ACTIVITY.name, event, f"user-{user}", timestamp_ms=at)


def sessions_of(driver: Driver, directory: Path, user: int, **asked: str) -> list[dict[str, Any]]:
    """As `/api/sessions/{userId}` tells them."""
    views = views_of(driver, directory)
    try:
        found = sessions(views.reader, {"userId": f"{user}", **asked}, gap_ms=30 * MINUTE)["sessions"]
    finally:
        end(views)
    return list(found)


def test_a_session_that_goes_on_into_the_hours_asked_for_is_whole(tmp_path: Path) -> None:
    with Driver(behaviour_topology(shop_settings(partitions=1))) as driver:
        for at, product in ((0, "a"), (20, "b"), (40, "c"), (60, "d")):
            act(driver, T0 + at * MINUTE, 1, product)
        act(driver, T0 + 10 * MINUTE, 3, "a")  # over before those hours
        order(driver, T0 + 5 * MINUTE, user=1, items=[{"productId": "x"}])
        newest = T0 + 24 * HOUR + 45 * MINUTE
        act(driver, newest, 2, "a")
        order(driver, newest, user=2)
        driver.flush()
        (derived,) = [session for session in driver.values("user-sessions") if session["userId"] == "1"]
        (told,) = sessions_of(driver, tmp_path, 1)
        assert told["start"] == "2026-01-01T00:00:00.000Z"
        assert (told["events"], list(told["viewed"]), list(told["bought"])) == (4, ["a", "b", "c", "d"], ["x"])
        assert (derived["start"], derived["events"], derived["bought"]) == (T0, 4, ["x"])
        with pytest.raises(NotFound):
            sessions_of(driver, tmp_path, 3)


def test_a_session_is_open_until_it_is_in_the_topic(tmp_path: Path) -> None:
    with Driver(behaviour_topology(shop_settings(partitions=1))) as driver:
        act(driver, T0 + MINUTE, 1, "a")
        for at in (1, 31, 32, 33, 58):
            act(driver, T0 + at * MINUTE, 2, "a")
            assert opens(driver, tmp_path) == [at < 33]
            order(driver, T0 + at * MINUTE, user=2)  # what one topic has closed may be open in the other
            assert opens(driver, tmp_path) == [at < 32]


def opens(driver: Driver, directory: Path) -> list[bool]:
    """Whether each session of the first user may go on: it may as long as it was not derived."""
    driver.flush()
    derived = {session["start"] for session in driver.values("user-sessions") if session["userId"] == "1"}
    rows = sessions_of(driver, directory, 1)
    assert [row["open"] for row in rows] == [row["start"] not in {iso(at) for at in derived} for row in rows]
    return [row["open"] for row in rows]


async def test_sessions_of_every_user_are_open_until_they_are_in_the_topic(served: Served) -> None:
    derived = {(one["userId"], one["start"]) for one in served.drivers[0].values("user-sessions")}
    for user in {session.user_id for session in booked(simulated()).sessions(all_over=True)}:
        rows = sessions(served.views[0].reader, {"userId": user}, gap_ms=10 * MINUTE)["sessions"]
        assert {row["start"] for row in rows if not row["open"]} == {iso(at) for of, at in derived if of == user}


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


async def test_the_funnel_says_from_when_it_is_where_its_tables_are_not_kept_for_so_long(tmp_path: Path) -> None:
    with Driver(behaviour_topology(shop_settings(partitions=1))) as driver:
        for hour in range(96):  # two days are kept
            act(driver, T0 + hour * HOUR, hour, "a")
            if hour < 90:  # orders stand still, and theirs are kept for longer
                order(driver, T0 + hour * HOUR, user=hour)
            driver.flush()
        views = views_of(driver, tmp_path)
        try:
            for hours, users in ((24, 24), (48, 48), (49, 49), (50, 49), (336, 49)):
                body = await funnel(views.reader, {"hours": f"{hours}"})
                assert (body["from"], body["to"]) == (iso(T0 + (96 - users) * HOUR), iso(T0 + 96 * HOUR))
                viewed, *_, ordered, _ = [step["users"] for step in body["total"]]
                assert (round(viewed), round(ordered)) == (users, users - 6)
            gone = await funnel(views.reader, {"hours": "24", "to": f"{T0 + 40 * HOUR}"})
            assert (gone["from"], gone["to"], gone["total"][0]["users"]) == (None, None, 0)
        finally:
            end(views)


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
    assert (await get(client, f"{path}?userId={one}&n=1"))["rows"] == own[:1]
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


def browse(driver: Driver, start: int, category: str) -> None:
    """Some hours of looks at five products of a category."""
    for at in range(start, start + 400 * MINUTE, MINUTE):
        act(driver, at, at // MINUTE % 80, f"{category}{at // MINUTE % 5}", category)
    driver.flush()


async def test_trends_begin_anew_with_the_read_model_that_they_are_made_of(tmp_path: Path) -> None:
    with (
        Driver(recommendations_topology(shop_settings(partitions=1))) as former,
        Driver(recommendations_topology(shop_settings(partitions=1))) as anew,
    ):
        browse(former, T0, "old")
        views, followed = views_of(former, tmp_path), Followed("interest_by_product")
        try:
            for driver, start, category in ((anew, T0 - 24 * HOUR, "new"), (anew, T0 + 24 * HOUR, "later")):
                browse(driver, start, category)
                await followed.look(views.reader)
                views.model.reset()  # as a follower does whose topics are others
                follow(views.model, driver)
                at, trends = await followed.look(views.reader)
                expected_at, expected = await Followed("interest_by_product").look(views.reader)
                assert (at, trends) == (expected_at, expected)
                assert {key[:-1] for key in trends.levels} == set(followed.categories.values()) <= {"new", "later"}
        finally:
            end(views)


async def test_a_product_that_is_new_keeps_its_category_while_others_are_forgotten(tmp_path: Path) -> None:
    with Driver(recommendations_topology(shop_settings(partitions=1))) as driver:
        views, followed = views_of(driver, tmp_path), Followed("interest_by_product")
        try:
            await followed.look(views.reader)
            followed.trends.add(T0 - 30 * 24 * HOUR, {"forgotten": 1})
            act(driver, T0, 1, "new", "books")  # in a slice that is open
            driver.flush()
            follow(views.model, driver)
            await followed.look(views.reader)
            assert (followed.trends.levels, followed.categories) == ({}, {"new": "books"})
        finally:
            end(views)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/api/sessions/nobody", "did nothing"),
        ("/api/recommendations/products/nothing", "in no session"),
        ("/api/sessions/%00", "did nothing"),
        ("/api/recommendations/products/%FF", "in no session"),
        ("/api/recommendations/products/" + "%EA%B0%80" * 161, "more than 480 bytes"),
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
