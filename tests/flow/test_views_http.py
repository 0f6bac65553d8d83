"""The view server's endpoints over HTTP, on a read model fed by the driver."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from shop import sell, shop
from views_shop import MINUTE, ORDERS, T0, follow, line, look, open_model, order, sales

from streams.errors import MillraceError
from tables.read_model import ReadModel
from topologies.driver import Driver
from topologies.sales import GROUP
from topologies.topology import Topology
from topologies.views import BadParameter
from topologies.views.answers import Views
from topologies.views.freshness import Tracker
from topologies.views.server import attach, views_app

Client = TestClient[Any, Any]
Get = Callable[[str], Awaitable[dict[str, Any]]]
NOW = 1_767_230_000.0


@pytest.fixture
def driver() -> Iterator[Driver]:
    topology = sales(partitions=2)

    @topology.view("/api/best")
    def best(model: ReadModel, query: Mapping[str, str]) -> dict[str, Any]:
        if "n" not in query:
            raise BadParameter("n", "n is missing")
        return {"best": query["n"], "rows": model.records}

    @topology.view("/api/list")
    async def listed(model: ReadModel, query: Mapping[str, str]) -> list[int]:
        return [1, 2]

    @topology.view("/api/broken")
    def broken(model: ReadModel, query: Mapping[str, str]) -> None:
        raise RuntimeError("secret detail")

    with Driver(topology) as driver:
        yield driver


@pytest.fixture
def tracker(driver: Driver, tmp_path: Path) -> Iterator[Tracker]:
    model = open_model(driver.topology, tmp_path / "copy")
    yield Tracker(model)
    model.close()


@pytest.fixture
async def client(driver: Driver, tracker: Tracker) -> AsyncIterator[Client]:
    fill(driver)
    follow(tracker.model, driver)
    look(tracker, driver, NOW)
    tracker.caught_up = True
    async with served(driver.topology, tracker) as client:
        yield client


def served(topology: Topology, tracker: Tracker) -> Client:
    app = views_app([topology])
    attach(app, Views(topology, tracker.model, tracker, "KRW"))
    return TestClient(TestServer(app))


def fill(driver: Driver) -> None:
    """Ten minutes: each an order of books and one of games, seen by both partitions."""
    for at in range(10):
        books = [line(1, "books", 100, 2), line(2, "books", 50)]
        order(driver, T0 + at * MINUTE, 250, 1, partition=0, region="seoul", items=books)
        games = [line(3, "games", 70)]
        order(driver, T0 + at * MINUTE, 70, 2, partition=1, region="busan", items=games)
    order(driver, T0 + 9 * MINUTE, 9, 2, partition=1, currency="USD")
    driver.flush()


async def get(client: Client, path: str, status: int = 200) -> dict[str, Any]:
    response = await client.get(path)
    body: dict[str, Any] = orjson.loads(await response.read())
    assert response.status == status, body
    if status < 400:
        assert response.content_type == "application/json"
        assert set(body["freshness"]) >= {"watermark", "watermarkMs", "offsets", "lag", "age_s", "connected"}
    return body


async def problem(client: Client, path: str, status: int = 400) -> dict[str, Any]:
    response = await client.get(path)
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = orjson.loads(await response.read())
    assert response.status == body["status"] == status, body
    assert body["type"].startswith("urn:millrace:problem:")
    assert body["title"]
    assert body["detail"]
    assert "Traceback" not in body["detail"]
    return body


async def test_sales_default_to_the_total_of_each_minute_of_the_newest_hour(client: Client) -> None:
    body = await get(client, "/api/sales")
    assert [row["placed"] for row in body["rows"]] == [320] * 10
    assert body["rows"][0] == {
        "start": "2026-01-01T00:00:00.000Z",
        "end": "2026-01-01T00:01:00.000Z",
        "startMs": T0,
        "endMs": T0 + MINUTE,
        "final": True,
        "key": "total",
        "placed": 320,
        "cancelled": 0,
        "refunded": 0,
        "orders": 2,
        "units": 4,
        "customers": 2,
        "order_value": body["rows"][0]["order_value"],
        "net": 320,
    }
    assert [row["final"] for row in body["rows"]] == [True] * 8 + [False] * 2
    assert (body["window_s"], body["to"], body["currency"]) == (60, "2026-01-01T00:10:00.000Z", "KRW")


@pytest.mark.parametrize("window", ["1m", "5m", "15m", "1h", "1d"])
@pytest.mark.parametrize(("by", "keys"), [("category", {"books": 2500, "games": 700}), ("product", None)])
async def test_windows_of_every_size_hold_the_same_money(
    client: Client, window: str, by: str, keys: dict[str, int] | None
) -> None:
    body = await get(client, f"/api/sales?by={by}&window={window}&from={T0}&to={T0 + 600_000}")
    sums: dict[str, int] = {}
    for row in body["rows"]:
        sums[row["key"]] = sums.get(row["key"], 0) + row["net"]
    sums.pop("unknown", None)
    assert sums == (keys or {"1": 2000, "2": 500, "3": 700})


async def test_ranges_take_iso_times_and_epochs_alike(client: Client) -> None:
    iso = await get(client, "/api/sales?by=region&from=2026-01-01T00:02:00Z&to=2026-01-01T09:04:00%2B09:00")
    epochs = await get(client, f"/api/sales?by=region&from={T0 + 2 * MINUTE}&to={T0 + 4 * MINUTE}")
    naive = await get(client, "/api/sales?by=region&from=2026-01-01T00:02&to=2026-01-01T00:04")
    assert iso["rows"] == epochs["rows"] == naive["rows"]
    assert [(row["key"], row["startMs"]) for row in iso["rows"]] == [
        ("busan", T0 + 2 * MINUTE),
        ("seoul", T0 + 2 * MINUTE),
        ("busan", T0 + 3 * MINUTE),
        ("seoul", T0 + 3 * MINUTE),
    ]


async def test_one_key_and_hopping_windows(client: Client) -> None:
    path = f"/api/sales?by=category&key=books&window=5m&hop=1m&from={T0 + 5 * MINUTE}&to={T0 + 6 * MINUTE}"
    body = await get(client, path)
    assert [(row["startMs"] - T0) // MINUTE for row in body["rows"]] == [1, 2, 3, 4, 5]
    assert {row["net"] for row in body["rows"]} == {1250}
    assert (await get(client, "/api/sales?by=category&key=nothing"))["rows"] == []


async def test_another_currency_is_asked_for_by_name(client: Client) -> None:
    body = await get(client, "/api/sales?currency=USD&window=1h")
    assert [(row["key"], row["net"]) for row in body["rows"]] == [("total", 9)]
    assert (await get(client, "/api/sales?currency=EUR"))["rows"] == []
    assert all(row["net"] == 320 for row in (await get(client, "/api/sales?currency=KRW"))["rows"])


async def test_top_ranks_what_sold_in_the_newest_window(client: Client) -> None:
    body = await get(client, "/api/sales/top?by=product&metric=revenue&window=5m&n=2")
    assert [(row["rank"], row["key"], row["value"]) for row in body["rows"]] == [(1, "1", 1000), (2, "3", 350)]
    assert (body["startMs"], body["endMs"], body["final"]) == (T0 + 5 * MINUTE, T0 + 10 * MINUTE, False)
    body = await get(client, f"/api/sales/top?by=category&metric=customers&to={T0 + 5 * MINUTE}&window=5m")
    assert [row["value"] for row in body["rows"]] == [1, 1]
    assert body["final"]
    default = await get(client, "/api/sales/top")
    assert (default["by"], default["metric"], default["rows"][0]["key"]) == ("product", "revenue", "1")


async def test_tables_say_what_they_keep(client: Client) -> None:
    body = await get(client, "/api/tables")
    assert [t["name"] for t in body["tables"]] == [f"sales_by_{b}" for b in ("total", "category", "region", "product")]
    one = await get(client, "/api/tables/sales_by_category")
    assert one["source"] == ORDERS
    assert one["aggregates"]["placed"] == "sum"
    assert (one["slice_s"], one["grace_s"], one["retention_s"]) == (60, 60, 172_800)
    assert one["stored"]["startMs"] == T0
    assert one["newest"]["keys"] == ["books", "games", "unknown\x1fUSD"]
    assert one["newest"]["keyCount"] == 3


async def test_rows_of_any_table(client: Client) -> None:
    body = await get(client, f"/api/tables/sales_by_product/rows?window=10m&from={T0}&key=3")
    assert [(row["key"], row["values"]["units"]) for row in body["rows"]] == [("3", 10)]
    body = await get(client, "/api/tables/sales_by_product/rows")
    assert len(body["rows"]) == 31


async def test_every_answer_says_how_fresh_it_is(client: Client, driver: Driver, tracker: Tracker) -> None:
    fresh = (await get(client, "/api/sales"))["freshness"]
    assert fresh["offsets"] == {f"{ORDERS}:0": 10, f"{ORDERS}:1": 11}
    assert fresh["lag"] == {f"{ORDERS}:0": 0, f"{ORDERS}:1": 0}
    assert fresh["lagTotal"] == 0
    assert (fresh["watermark"], fresh["watermarkMs"]) == ("2026-01-01T00:09:00.000Z", T0 + 9 * MINUTE)
    assert (fresh["connected"], fresh["caughtUp"]) == (True, True)
    order(driver, T0 + 20 * MINUTE, partition=0)
    look(tracker, driver, NOW + 1)
    tracker.connected = False
    for path in ("/api/sales", "/api/sales/top", "/api/tables", "/api/tables/sales_by_total", "/healthz", "/api"):
        fresh = (await get(client, path))["freshness"]
        assert (fresh["lagTotal"], fresh["connected"]) == (1, False)


async def test_views_of_the_topology_are_served(client: Client) -> None:
    body = await get(client, "/api/best?n=3")
    assert (body["best"], body["rows"] > 0) == ("3", True)
    assert (await get(client, "/api/list"))["result"] == [1, 2]
    assert (await problem(client, "/api/best"))["parameter"] == "n"


async def test_unexpected_errors_tell_nothing_of_the_inside(client: Client) -> None:
    body = await problem(client, "/api/broken", 500)
    assert "secret" not in orjson.dumps(body).decode()


async def test_ready_only_when_caught_up(client: Client, tracker: Tracker) -> None:
    assert (await get(client, "/readyz"))["ready"] is True
    tracker.caught_up = False
    response = await client.get("/readyz")
    assert response.status == 503
    assert orjson.loads(await response.read())["ready"] is False
    assert (await get(client, "/healthz"))["status"] == "ok"


async def test_the_index_names_every_endpoint(client: Client) -> None:
    body = await get(client, "/api")
    assert set(body["endpoints"]) >= {"/api/sales", "/api/tables/{name}/rows", "/api/best", "/metrics"}


async def test_a_batch_is_what_each_view_says_alone(client: Client) -> None:
    views = ["/api/sales?by=region", "/api/sales/top?by=region&window=1h", "/api/tables/nothing", "/api/sales?by=joy"]
    batch = await get(client, "/api/batch?" + "&".join(f"view={quote(view)}" for view in views))
    assert [part["view"] for part in batch["views"]] == views
    assert [part["status"] for part in batch["views"]] == [200, 200, 404, 400]
    for view, part in zip(views, batch["views"], strict=True):
        alone = orjson.loads(await (await client.get(view)).read())
        assert {**part["body"], "freshness": None} == {**alone, "freshness": None}


async def test_metrics_are_prometheus_text(client: Client) -> None:
    await get(client, "/api/sales")
    await problem(client, "/api/sales?by=nothing")
    await problem(client, "/nothing", 404)
    response = await client.get("/metrics")
    assert response.content_type == "text/plain"
    text = await response.text()
    for line_ in (
        f'millrace_views_lag{{group="{GROUP}",partition="0",topic="{ORDERS}"}} 0.0',
        'millrace_views_http_requests_total{method="GET",route="/api/sales",status="200"} 1.0',
        'millrace_views_http_requests_total{method="GET",route="/api/sales",status="400"} 1.0',
        'millrace_views_http_requests_total{method="GET",route="unknown",status="404"} 1.0',
        f'millrace_views_connected{{group="{GROUP}"}} 1.0',
    ):
        assert line_ in text
    for name in ("records_applied_total", "watermark_age_seconds", "freshness_seconds", "state_bytes"):
        assert f"\nmillrace_views_{name}" in text


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/api/sales?by=colour", "by"),
        ("/api/sales?by=", "by"),
        ("/api/sales?window=5", "window"),
        ("/api/sales?window=0m", "window"),
        ("/api/sales?window=90s", "window"),
        ("/api/sales?window=999999999d", "window"),
        ("/api/sales?hop=2m", "hop"),
        ("/api/sales?window=5m&hop=1s", "hop"),
        ("/api/sales?from=yesterday", "from"),
        ("/api/sales?from=2026-01-01T00:00:00+09:00", "from"),
        ("/api/sales?to=-1", "to"),
        ("/api/sales?to=99999999999999999", "to"),
        ("/api/sales?to=9999999999999999999999999", "to"),
        ("/api/sales?from=0001-01-01T00:00:00Z", "from"),
        ("/api/sales?from=2000&to=1000", "from"),
        ("/api/sales?key=", "key"),
        ("/api/sales?currency=", "currency"),
        ("/api/sales?currency=%1fUSD", "currency"),
        ("/api/sales?currency=AVERYLONGCURRENCY", "currency"),
        ("/api/sales?form=0", "form"),
        ("/api/sales?by=total&by=region", "by"),
        ("/api/sales/top?by=nothing", "by"),
        ("/api/batch", "view"),
        ("/api/batch?view=/metrics", "view"),
        ("/api/batch?view=/api/operations", "view"),
        ("/api/batch?view=https://example.org/api/sales", "view"),
        ("/api/batch?view=/api/batch?view=/api/sales", "view"),
        ("/api/batch?view=/api/sales&by=total", "by"),
        ("/api/sales/top?metric=joy", "metric"),
        ("/api/sales/top?by=product&metric=customers", "metric"),
        ("/api/sales/top?n=0", "n"),
        ("/api/sales/top?n=1001", "n"),
        ("/api/sales/top?n=ten", "n"),
        ("/api/sales/top?n=%C2%B2", "n"),
        ("/api/sales/top?window=1y", "window"),
        ("/api/sales/top?to=soon", "to"),
        ("/api/sales/top?from=0", "from"),
        ("/api/tables?x=1", "x"),
        ("/api/tables/sales_by_total?x=1", "x"),
        ("/api/tables/sales_by_total/rows?window=1.5m", "window"),
        ("/api/tables/sales_by_total/rows?by=total", "by"),
    ],
)
async def test_a_bad_parameter_is_named(client: Client, path: str, parameter: str) -> None:
    assert (await problem(client, path))["parameter"] == parameter


@pytest.mark.parametrize("path", ["/nothing", "/api/tables/nothing", "/api/tables/nothing/rows", "/page/x/app.js"])
async def test_what_is_not_there_is_a_problem_too(client: Client, path: str) -> None:
    await problem(client, path, 404)


async def test_other_methods_are_not_allowed(client: Client) -> None:
    response = await client.post("/api/sales")
    assert (response.status, response.content_type) == (405, "application/problem+json")
    assert "GET" in response.headers["Allow"]


async def test_too_large_an_answer_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topologies.views.answers.MAX_ROWS", 15)
    body = await problem(client, "/api/sales?by=product")
    assert body["parameter"] == "from"
    assert "15 rows" in body["detail"]
    assert len((await get(client, "/api/sales?by=product&window=1h"))["rows"]) == 3


async def test_a_merge_that_takes_too_long_asks_to_come_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topologies.views.reader.MERGE_LIMIT_S", -1.0)
    monkeypatch.setattr("tables.rollup.STEP_S", 0.0)
    await problem(client, "/api/sales?by=product&window=1h", 503)


async def test_any_topology_has_tables_and_no_sales(tmp_path: Path) -> None:
    with Driver(shop()) as driver:
        sell(driver, 10, 1, user=4)
        driver.flush()
        model = open_model(driver.topology, tmp_path / "copy")
        follow(model, driver)
        async with served(driver.topology, Tracker(model)) as client:
            body = await get(client, "/api/tables/takings/rows")
            assert [(row["key"], row["values"]) for row in body["rows"]] == [
                ("all", {"amount": 10, "users": 1}),
                ("user 4", {"amount": 10, "users": 1}),
            ]
            await problem(client, "/api/sales", 404)
            assert [t["name"] for t in (await get(client, "/api/tables"))["tables"]] == ["takings"]
        model.close()


async def test_an_empty_model_answers_with_no_rows(tmp_path: Path) -> None:
    topology = sales()
    model = open_model(topology, tmp_path / "copy")
    async with served(topology, Tracker(model)) as client:
        for path in ("/api/sales", "/api/sales/top", "/api/tables/sales_by_total/rows"):
            body = await get(client, path)
            assert body["rows"] == []
            assert body["freshness"]["lag"] is None
        assert (await get(client, "/api/tables/sales_by_total"))["newest"] is None
        assert (await client.get("/metrics")).status == 200
    model.close()


@pytest.mark.parametrize("path", ["api/x", "/api/tables", "/metrics"])
def test_a_view_needs_a_path_of_its_own(path: str) -> None:
    topology = sales()
    topology.view(path)(lambda model, query: {})
    with pytest.raises(MillraceError, match="another path"):
        views_app([topology])
