"""What operators are told where the cluster tells nothing, how throughput is reckoned, and whom it is told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from views_shop import ORDERS, T0, follow, look, open_model, order, sales

from tables.read_model import ReadModel
from topologies.driver import Driver
from topologies.views.answers import Views
from topologies.views.freshness import Tracker
from topologies.views.guard import Access
from topologies.views.operations import UNSEEN, Pace
from topologies.views.server import attach, views_app

NOW = 1_767_230_000.0
Client = TestClient[Any, Any]


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver(sales(partitions=2)) as found:
        yield found


@pytest.fixture
def model(driver: Driver, tmp_path: Path) -> Iterator[ReadModel]:
    found = open_model(driver.topology, tmp_path)
    yield found
    found.close()


def client_of(driver: Driver, model: ReadModel, **tokens: str) -> Client:
    tracker = Tracker(model, caught_up=True)
    look(tracker, driver, NOW)
    app = views_app([driver.topology], Access(**tokens))
    attach(app, Views(driver.topology, model, tracker, "KRW"))
    return TestClient(TestServer(app))


async def test_partitions_are_told_with_how_far_their_tables_are(driver: Driver, model: ReadModel) -> None:
    for user in range(8):
        order(driver, T0, user=user, partition=user % 2)
    driver.flush()
    follow(model, driver)
    order(driver, T0, partition=1)
    async with client_of(driver, model) as client:
        found = await (await client.get("/api/operations")).json()
    (one,) = found["topologies"]
    assert (one["name"], one["state"], one["members"], one["problem"]) == (driver.topology.name, None, None, UNSEEN)
    assert [(p["topic"], p["partition"], p["end"], p["covered"], p["lag"]) for p in one["partitions"]] == [
        (ORDERS, 0, 4, 4, 0),
        (ORDERS, 1, 5, 4, 1),
    ]
    assert found["letters"] == [{"topic": ORDERS, "late": None, "deadLetters": None}]


async def test_operations_need_the_token_for_operations(driver: Driver, model: ReadModel) -> None:
    tokens = {"read_token": "token-for-reads", "ops_token": "token-for-operations"}
    async with client_of(driver, model, **tokens) as client:
        for token, status in ((None, 401), (tokens["read_token"], 401), (tokens["ops_token"], 200)):
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            assert (await client.get("/api/operations", headers=headers)).status == status
            if status == 200:
                continue
            batch = await client.get(
                "/api/batch?view=/api/operations", headers={"Authorization": "Bearer token-for-reads"}
            )
            assert batch.status == 400


def test_throughput_is_that_of_the_last_ten_seconds() -> None:
    pace, tp = Pace(), ("group topic", 0)
    assert pace.look(0, {tp: 1_000}) == {}
    assert pace.look(2, {tp: 1_100}) == {tp: 50}
    assert pace.look(4, {tp: 1_100}) == {tp: 25}
    for at in range(6, 30, 2):
        found = pace.look(at, {tp: 1_100})
    assert found == {tp: 0}


def test_throughput_is_not_that_of_a_time_when_nobody_looked() -> None:
    pace, tp = Pace(), ("group topic", 0)
    pace.look(0, {tp: 0})
    assert pace.look(3_600, {tp: 7_200}) == {}
    assert pace.look(3_602, {tp: 7_300}) == {tp: 50}


def test_a_topic_that_was_made_anew_has_no_negative_throughput() -> None:
    pace, tp = Pace(), ("group topic", 0)
    pace.look(0, {tp: 500})
    assert pace.look(2, {tp: 10}) == {tp: 0}
