"""One server for several topologies: whose freshness an answer tells, paths with parameters, copies, background."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from shop import SALES, sell, shop
from views_shop import ORDERS, T0, follow, look, open_model, order, sales

from streams.errors import MillraceError
from streams.log import TP
from streams.topics import Topic
from tables.topic_copy import TopicCopy
from topologies.driver import Driver
from topologies.sales import GROUP
from topologies.topology import Topology
from topologies.views import BadParameter, NotFound, Parameters, Reader
from topologies.views.answers import Views
from topologies.views.background import keep_running
from topologies.views.freshness import Tracker, together
from topologies.views.server import attach, refuse_alike, views_app

Client = TestClient[Any, Any]
NOW = 1_767_230_000.0
THINGS = Topic("things", partitions=1, cleanup="compact", retention_s=None)


class Sent:
    """A record as a consumer returns it."""

    timestamp = 0
    headers = ()

    def __init__(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        self.offset, self.key, self.value = offset, key, value


def things_shop() -> Topology:
    """The shop with a copy of `things`, and views that answer from it."""
    topology = shop().copy(THINGS, time_of=lambda key, value: int(value))

    @topology.view("/api/things/{id}")
    def thing(reader: Reader, parameters: Mapping[str, str]) -> dict[str, Any]:
        asked = Parameters.of(parameters, ("id", "n"))
        found = reader.copies["things"].get(parameters["id"].encode())
        if found is None:
            raise NotFound(f"there is no thing {parameters['id']!r}")
        return {"id": parameters["id"], "value": int(found), "n": asked.integer("n", 1, 1, 9)}

    @topology.view("/api/things")
    def things(reader: Reader, parameters: Mapping[str, str]) -> dict[str, Any]:
        return {"things": [found.key.decode() for found in reader.copies["things"].newest(2)]}

    @topology.view("/api/slowly")
    def slowly(reader: Reader, parameters: Mapping[str, str]) -> dict[str, Any]:
        posted = reader.posted("slow", within_s=60)
        return {"slow": posted.value, "freshness": posted.freshness}

    return topology


class Several:
    """The sales topology and the shop with its things, served by one application."""

    def __init__(self, directory: Path) -> None:
        self.sales, self.shop = Driver(sales(partitions=1)), Driver(things_shop())
        models = [open_model(driver.topology, directory / name) for name, driver in self.drivers.items()]
        self.copy = TopicCopy(self.shop.topology.copies["things"], directory / "things")
        self.trackers = [Tracker(models[0]), Tracker(models[1], copies={"things": self.copy})]
        topologies = [driver.topology for driver in self.drivers.values()]
        self.views = [Views(t, m, k, "KRW") for t, m, k in zip(topologies, models, self.trackers, strict=True)]
        self.app = views_app(topologies)
        attach(self.app, *self.views)

    @property
    def drivers(self) -> dict[str, Driver]:
        return {"sales": self.sales, "shop": self.shop}

    def put(self, *pairs: tuple[str, int]) -> None:
        first = self.copy.positions()[TP("things", 0)]
        records = [Sent(first + i, key.encode(), str(at).encode()) for i, (key, at) in enumerate(pairs)]
        self.copy.apply(TP("things", 0), records)

    def catch_up(self, at: float) -> None:
        for tracker, driver in zip(self.trackers, self.drivers.values(), strict=True):
            driver.flush()
            follow(tracker.model, driver)
            look(tracker, driver, at)

    def close(self) -> None:
        self.copy.close()
        for views in self.views:
            views.model.close()
        for driver in self.drivers.values():
            driver.__exit__(None, None, None)


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Several]:
    several = Several(tmp_path)
    yield several
    several.close()


@pytest.fixture
async def client(several: Several) -> AsyncIterator[Client]:
    async with TestClient(TestServer(several.app)) as client:
        yield client


async def get(client: Client, path: str, status: int = 200) -> dict[str, Any]:
    response = await client.get(path)
    body: dict[str, Any] = orjson.loads(await response.read())
    assert response.status == status, body
    assert response.content_type == ("application/json" if status in (200, 503) else "application/problem+json")
    return body


async def problem(client: Client, path: str, status: int) -> dict[str, Any]:
    response = await client.get(path)
    body: dict[str, Any] = orjson.loads(await response.read())
    assert (response.status, response.content_type) == (status, "application/problem+json"), body
    return body


async def test_an_answer_tells_the_freshness_of_the_group_it_comes_from(several: Several, client: Client) -> None:
    order(several.sales, T0)
    sell(several.shop, 10, 1)
    several.catch_up(NOW)
    order(several.sales, T0)
    look(several.trackers[0], several.sales, NOW + 1)
    behind = (await get(client, "/api/sales"))["freshness"]
    assert (behind["lag"], behind["offsets"]) == ({f"{ORDERS}:0": 1}, {f"{ORDERS}:0": 1})
    fresh = (await get(client, "/api/tables/takings/rows"))["freshness"]
    assert fresh["lagTotal"] == 0
    assert all(name.startswith(f"{SALES.name}:") for name in fresh["offsets"])
    for path in ("/api", "/healthz", "/api/tables"):
        assert (await get(client, path))["freshness"]["lagTotal"] == 1
    detail = await get(client, "/healthz")
    assert {name: one["lagTotal"] for name, one in detail["topologies"].items()} == {
        GROUP: 1,
        several.shop.topology.name: 0,
    }


async def test_every_table_of_every_topology_is_served(several: Several, client: Client) -> None:
    assert [t["name"] for t in (await get(client, "/api/tables"))["tables"]][-1] == "takings"
    assert (await get(client, "/api/tables/takings"))["source"] == SALES.name
    assert (await get(client, "/api/tables/sales_by_total"))["source"] == ORDERS
    detail = (await problem(client, "/api/tables/nothing", 404))["detail"]
    assert "takings" in detail
    assert "sales_by_total" in detail
    assert {"/api/things/{id}", "/api/sales"} <= set((await get(client, "/api"))["endpoints"])


async def test_ready_only_when_all_have_caught_up(several: Several, client: Client) -> None:
    for tracker in several.trackers:
        assert (await get(client, "/readyz", 503))["ready"] is False
        tracker.caught_up = True
    assert (await get(client, "/readyz"))["ready"] is True


async def test_metrics_tell_the_groups_apart(several: Several, client: Client) -> None:
    several.catch_up(NOW)
    several.trackers[1].look_at_copies(NOW, {"things": {0: 3}})
    text = await (await client.get("/metrics")).text()
    other = several.shop.topology.name
    for line in (
        f'millrace_views_connected{{group="{GROUP}"}} 1.0',
        f'millrace_views_connected{{group="{other}"}} 1.0',
        f'millrace_views_lag{{group="{GROUP}",partition="0",topic="{ORDERS}"}} 0.0',
        f'millrace_views_copy_lag{{group="{other}",topic="things"}} 3.0',
    ):
        assert line in text


@pytest.mark.parametrize(
    ("path", "id_"),
    [
        ("plain", "plain"),
        ("a%2Fb", "a/b"),
        ("a%20b", "a b"),
        ("%EC%B1%85", "책"),
        ("50%25", "50%"),
        ("%252F", "%2F"),
        ("a+b", "a+b"),
        ("%7Bid%7D", "{id}"),
        ("%3Cb%3E%26", "<b>&"),
        ("..%2F..", "../.."),
    ],
)
async def test_an_id_in_a_path_is_percent_decoded(several: Several, client: Client, path: str, id_: str) -> None:
    several.put((id_, 7))
    body = await get(client, f"/api/things/{path}")
    assert (body["id"], body["value"]) == (id_, 7)


@pytest.mark.parametrize("path", ["nothing", "%FF%FE", "%ED%A0%80", "%00", "x" * 3_000, "a%0D%0Ab"])
async def test_an_unknown_id_is_a_problem_that_says_so(several: Several, client: Client, path: str) -> None:
    body = await problem(client, f"/api/things/{path}", 404)
    assert "there is no thing" in body["detail"]


async def test_a_view_hears_path_and_query_together(several: Several, client: Client) -> None:
    several.put(("a", 1))
    assert (await get(client, "/api/things/a?n=3"))["n"] == 3
    assert (await problem(client, "/api/things/a?n=ten", 400))["parameter"] == "n"
    assert (await problem(client, "/api/things/a?m=1", 400))["parameter"] == "m"
    assert (await problem(client, "/api/things/a?id=b", 400))["parameter"] == "id"
    await problem(client, "/api/things/a/b", 404)
    await problem(client, "/api/things/", 404)


async def test_a_copy_is_as_fresh_as_the_tables_were_when_its_end_was_asked_for(
    several: Several, client: Client
) -> None:
    tracker = several.trackers[1]
    sell(several.shop, 10, 1)
    assert (await get(client, "/api/things"))["freshness"]["copies"] == {"things": None}
    several.catch_up(NOW)
    tracker.look_at_copies(tracker.complete_at(), {"things": {0: 2}})
    fresh = (await get(client, "/api/things"))["freshness"]
    assert (fresh["copies"], fresh["age_s"]) == ({"things": 2}, None)
    several.put(("a", 1), ("b", 2))
    several.catch_up(NOW + 100)
    assert tracker.freshness(tracker.sources, NOW + 101, copies=True)["age_s"] == 101
    assert tracker.freshness(tracker.sources, NOW + 101)["age_s"] == 1
    body = await get(client, "/api/things")
    assert (body["things"], body["freshness"]["copies"]) == (["b", "a"], {"things": 0})
    assert "copies" not in (await get(client, "/api/tables/takings/rows"))["freshness"]


def test_together_is_the_least_fresh_of_each() -> None:
    one = {"watermarksMs": {"t:0": 9}, "offsets": {"t:0": 5}, "lag": {"t:0": 1}, "age_s": 1.0}
    two = {"watermarksMs": {"t:0": 7, "u:0": 8}, "offsets": {"t:0": 4}, "lag": {"t:0": 2, "u:0": 1}, "age_s": 3.0}
    both = [{**one, "connected": True, "caughtUp": True}, {**two, "connected": True, "caughtUp": False}]
    found = together(both)
    assert (found["watermarkMs"], found["offsets"], found["lagTotal"]) == (7, {"t:0": 4}, 3)
    assert (found["age_s"], found["connected"], found["caughtUp"]) == (3.0, True, False)
    assert together([*both, {**both[0], "age_s": None}])["age_s"] is None


@pytest.mark.parametrize(
    ("topologies", "words"),
    [
        ([shop, lambda: Topology("other", dict(shop().sources))], "'takings' is in .* and in other"),
        ([shop, shop], "each once"),
        ([], "must be there"),
    ],
)
def test_topologies_that_cannot_be_told_apart_are_refused(topologies: list[Any], words: str) -> None:
    with pytest.raises(MillraceError, match=words):
        refuse_alike([topology() for topology in topologies])


@pytest.mark.parametrize("path", ["/api/things/{other}", "/api/things", "/api/tables/{x}", "/api/{", "/api/{1}"])
def test_a_path_is_one_views_only(path: str) -> None:
    other = sales()
    other.view(path)(lambda reader, parameters: {})
    with pytest.raises(MillraceError, match="cannot be served"):
        views_app([things_shop(), other])


def test_a_topic_is_copied_once() -> None:
    with pytest.raises(ValueError, match="copied already"):
        things_shop().copy(THINGS)


async def test_what_was_computed_in_the_background_is_as_old_as_when_it_began(several: Several, client: Client) -> None:
    await problem(client, "/api/slowly", 503)
    reader = several.views[1].reader
    several.catch_up(NOW)
    reader.post("slow", [1, 2], {"age_s": 5.0, "lag": None})
    await asyncio.sleep(0.02)
    body = await get(client, "/api/slowly")
    assert body["slow"] == [1, 2]
    assert 5.0 < body["freshness"]["age_s"] < 6.0
    with pytest.raises(Exception, match="not again since"):
        reader.posted("slow", within_s=0.01)
    with pytest.raises(Exception, match="still being computed"):
        reader.posted("other")


async def test_a_background_function_that_fails_is_tried_again_and_told_of_once(
    several: Several, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topologies.views.background.FIRST_RETRY_S", 0.001)
    tries = 0

    async def fickle(reader: Reader) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise RuntimeError("no luck")

    with caplog.at_level(logging.ERROR):
        await asyncio.wait_for(keep_running("fickle", fickle, several.views[0].reader), 5)
    assert tries == 4
    assert [record.getMessage() for record in caplog.records] == [
        "background function fickle failed, it is tried again"
    ]


def test_background_functions_have_names_of_their_own() -> None:
    topology = shop()

    @topology.background
    async def trending(reader: Reader) -> None: ...

    with pytest.raises(ValueError, match="two background functions"):
        topology.background(trending)


def test_a_reader_answers_whatever_the_read_model_does(several: Several) -> None:
    sell(several.shop, 10, 1)
    several.catch_up(NOW)
    reader = several.views[1].reader
    window = reader.model.bounds("takings")
    assert window is not None
    found: Any = reader
    assert found.results("takings", window) == reader.model.results("takings", window) != {}
    with pytest.raises(AttributeError):
        found.nothing  # noqa: B018  # that it is not there is what is asked


async def test_a_window_is_merged_with_others_served_in_between(several: Several) -> None:
    sell(several.shop, 10, 1)
    several.catch_up(NOW)
    reader = several.views[1].reader
    window = reader.model.bounds("takings")
    assert window is not None
    assert (await reader.merged("takings", window))["all"]["amount"] == 10


def test_parameters_of_a_view_are_named_where_they_are_wrong() -> None:
    with pytest.raises(BadParameter, match="there are none here"):
        Parameters.of({"x": "1"}, ())
