"""Explaining a number over HTTP, and the audit: on a read model fed by the driver, and the driver's own log."""

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from recounting import MemoryReader
from views_shop import MINUTE, ORDERS, T0, follow, line, open_model, order, sales

from streams.log import TP, LogError
from tables.accumulators import encode_key
from tables.read_model import ReadModel
from tables.recount import recount
from topologies.cli.explain import told, told_again
from topologies.driver import Driver
from topologies.recounting import how, overall, verdicts
from topologies.topology import Topology
from topologies.views.answers import Views
from topologies.views.audit import AUDIT, Audit, let_read_log
from topologies.views.freshness import Tracker
from topologies.views.hosting import read_group
from topologies.views.server import attach, views_app

Client = TestClient[Any, Any]
MINUTES = 12


class OpenReader:
    """Opens the driver's log, unless it is `away`."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.away, self.first = driver, False, 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[MemoryReader]:
        if self.away:
            raise LogError("nobody answers")
        yield MemoryReader(self.driver.log, self.first)


def fill(driver: Driver) -> None:
    """Each minute two orders of books in partition 0, one of them twice, one in 1, and one that is late in the end."""
    for minute in range(MINUTES):
        at = T0 + minute * MINUTE
        books = [line(1, "books", 100, 2), line(2, "books", 50)]
        for second in (1, 1, 30):
            event_id = f"{minute}-{second}"
            order(driver, at + second * 1_000, 250, second, partition=0, region="seoul", items=books, eventId=event_id)
        order(driver, at, 70, 2, partition=1, region="busan", items=[line(3, "games", 70)], eventId=f"{minute}")
    order(driver, T0, 1, 9, partition=0, items=[line(1, "books", 1)], eventId="late")
    driver.flush()


@pytest.fixture
def topology() -> Topology:
    return sales(partitions=2)


@pytest.fixture
def driver(topology: Topology) -> Iterator[Driver]:
    with Driver(topology) as driver:
        fill(driver)
        yield driver


@pytest.fixture
def model(driver: Driver, tmp_path: Path) -> Iterator[ReadModel]:
    model = open_model(driver.topology, tmp_path / "copy")
    follow(model, driver)
    yield model
    model.close()


@pytest.fixture
def reader(driver: Driver) -> OpenReader:
    return OpenReader(driver)


@pytest.fixture
async def client(topology: Topology, model: ReadModel, reader: OpenReader) -> AsyncIterator[Client]:
    app = views_app([topology])
    views = Views(topology, model, Tracker(model, caught_up=True), "KRW")
    attach(app, views)
    let_read_log(app, reader, 0.001)
    async with TestClient(TestServer(app)) as client:
        yield client


async def get(client: Client, path: str, status: int = 200) -> dict[str, Any]:
    response = await client.get(path)
    found: dict[str, Any] = orjson.loads(await response.read())
    assert response.status == status, found
    return found


async def test_a_number_is_explained_by_its_partials_and_its_very_events(client: Client) -> None:
    found = await get(client, f"/api/explain?by=category&key=books&window={T0}")
    assert (found["table"], found["final"], found["provisional"]) == ("sales_by_category", True, False)
    assert (found["results"]["placed"], found["events"]) == (500, 2)
    (part,) = found["partials"]
    assert (part["topic"], part["partition"], part["firstOffset"], part["lastOffset"]) == (ORDERS, 0, 0, 2)
    assert [(one["offset"], one["timeMs"] - T0) for one in part["sample"]] == [(0, 1_000), (2, 30_000)]
    assert part["sample"][0]["value"]["items"][1] == {"productId": 2, "category": "books", "quantity": 1, "price": 50}
    assert found["since"][f"{ORDERS}:0"]["sales_by_category"] == 0
    assert found["sampleProblem"] is None


async def test_a_longer_window_is_explained_by_the_slices_of_each_partition(client: Client) -> None:
    found = await get(client, f"/api/explain?by=total&key=total&window={T0}&size=5m&sample=3")
    assert (found["results"]["placed"], found["results"]["orders"]) == (5 * (2 * 250 + 70), 15)
    assert [(part["partition"], part["events"], len(part["sample"])) for part in found["partials"]] == [
        (0, 10, 3),
        (1, 5, 3),
    ]


async def test_an_open_window_is_provisional(client: Client) -> None:
    found = await get(client, f"/api/explain?table=sales_by_total&key=total&window={T0 + (MINUTES - 1) * MINUTE}")
    assert (found["final"], found["provisional"]) == (False, True)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        (f"key=books&window={T0}", "by"),
        (f"by=category&table=sales_by_total&key=books&window={T0}", "by"),
        (f"by=weekday&key=books&window={T0}", "by"),
        (f"by=category&window={T0}", "key"),
        ("by=category&key=books", "window"),
        (f"by=category&key=books&window={T0 + 1}", "window"),
        (f"by=category&key=books&window={T0}&size=90s", "size"),
        (f"by=category&key=books&window={T0}&size=30d", "size"),
        (f"by=category&key=books&window={T0}&sample=101", "sample"),
    ],
)
async def test_what_cannot_be_asked_is_said(client: Client, query: str, parameter: str) -> None:
    found = await get(client, f"/api/explain?{query}", 400)
    assert found["parameter"] == parameter


async def test_what_is_not_there_is_a_404(client: Client) -> None:
    await get(client, f"/api/explain?by=category&key=tents&window={T0}", 404)
    await get(client, f"/api/explain?table=nothing&key=tents&window={T0}", 404)


async def test_without_the_log_the_partials_are_told_all_the_same(client: Client, reader: OpenReader) -> None:
    reader.away = True
    found = await get(client, f"/api/explain?by=category&key=books&window={T0}")
    assert (found["results"]["placed"], found["sampleProblem"]) == (500, "nobody answers")
    assert found["partials"][0]["sample"] == []


async def audit_all(client: Client) -> dict[str, Any]:
    audit = auditing(client)
    for _ in range(MINUTES):
        assert await audit.step()
    return await get(client, "/api/audit")


def auditing(client: Client) -> Audit:
    assert client.app is not None
    audit: Audit = client.app[AUDIT]
    return audit


async def test_the_audit_counts_every_closed_window_again_before_any_twice(client: Client) -> None:
    closed = MINUTES - 2  # the newest event closes what ended a minute before it
    audit = auditing(client)
    for _ in range(closed):
        assert await audit.step()
    found = await get(client, "/api/audit")
    assert found["windows"] == len(audit._visited) == closed
    # total, two categories, two regions, three products
    assert (found["checked"], found["agree"], found["differing"], found["unknown"]) == (closed * 8, closed * 8, 0, 0)
    assert (found["differ"], found["reasons"]) == ([], {})


async def test_a_cell_that_was_tampered_with_is_found_told_once_and_counted(
    client: Client, model: ReadModel, caplog: pytest.LogCaptureFixture
) -> None:
    tamper(model, T0 + 3 * MINUTE)
    with caplog.at_level(logging.ERROR):
        await audit_all(client)
        found = await audit_all(client)
    (one,) = found["differ"]
    assert (one["table"], one["windowMs"], one["key"], one["partition"], one["what"]) == (
        "sales_by_category", T0 + 3 * MINUTE, "books", 0, ["placed"],
    )  # fmt: skip
    assert (one["stored"]["placed"], one["recounted"]["placed"]) == (501, 500)
    assert (found["differing"], found["unknown"]) == (1, 0)
    assert found["agree"] == found["checked"] - 1
    assert len(caplog.records) == 1
    metrics = await (await client.get("/metrics")).text()
    assert 'millrace_views_audit_cells_total{result="differ"} 1.0' in metrics
    assert "millrace_views_audit_last_seconds" in metrics


def tamper(model: ReadModel, start: int) -> None:
    """One won more than was sold."""
    row = model.tables["sales_by_category"].row
    cell = model.partials("sales_by_category", start, "books")[0]
    cell[4] += 1
    change = model.store.change()
    change.put_all("sales_by_category", [(encode_key(start, "books") + b"\x00\x00", row.encode(cell, 0))])
    change.write()


async def test_what_the_log_does_not_tell_any_more_is_unknown(client: Client, reader: OpenReader) -> None:
    reader.first = 20
    found = await audit_all(client)
    assert found["unknown"] > 0
    assert (found["agree"], found["differing"]) == (found["checked"], 0)
    assert any("begins at 20 now" in reason for reason in found["reasons"])


async def test_a_log_that_does_not_answer_is_told_and_asked_again(client: Client, reader: OpenReader) -> None:
    reader.away = True
    audit = auditing(client)
    with pytest.raises(LogError):
        await audit.step()
    await audit._try()
    assert (await get(client, "/api/audit"))["lastError"] == "nobody answers"
    reader.away = False
    await audit._try()
    found = await get(client, "/api/audit")
    assert (found["lastError"], found["windows"]) == (None, 1)


async def test_what_a_partition_lost_is_missed(client: Client, driver: Driver, model: ReadModel) -> None:
    change = model.store.change()
    change.delete_all("sales_by_region", [encode_key(T0 + MINUTE, "busan") + b"\x00\x01"])
    change.write()
    (one,) = (await audit_all(client))["differ"]
    assert (one["table"], one["key"], one["partition"], one["what"]) == ("sales_by_region", "busan", 1, ["cell"])
    assert (one["stored"], one["recounted"]["placed"]) == (None, 70)
    assert TP(ORDERS, 1) in model.progress


@pytest.mark.parametrize(
    "asked",
    [
        f"by=category&key=books&window={T0 + 3 * MINUTE}",
        f"by=total&key=total&window={T0 + 2 * MINUTE}&size=5m",
        f"by=region&key=busan&window={T0 + (MINUTES - 1) * MINUTE}",
    ],
)
async def test_an_explained_number_is_counted_again_as_it_was_served(
    client: Client, driver: Driver, asked: str
) -> None:
    found = await get(client, f"/api/explain?{asked}")
    said = verdicts(read_group(driver.topology), found, lambda wanted: recount(MemoryReader(driver.log), wanted))
    assert overall(said) == "agree"
    assert [one.partition for one in said] == [0, 1]
    assert sum(one.counted["events"] for one in said if one.counted) == found["events"]


async def test_a_number_that_is_not_what_the_log_says_is_told_for_people(
    client: Client, driver: Driver, model: ReadModel
) -> None:
    tamper(model, T0 + 3 * MINUTE)
    group = read_group(driver.topology)
    found = await get(client, f"/api/explain?by=category&key=books&window={T0 + 3 * MINUTE}&sample=1")
    said = verdicts(group, found, lambda wanted: recount(MemoryReader(driver.log), wanted))
    assert [one.verdict for one in said] == ["differ", "agree"]
    assert said[0].counted is not None
    assert (found["results"]["placed"], said[0].counted["results"]["placed"]) == (501, 500)
    lines = told(found)
    assert lines[1].startswith("  placed 501, cancelled 0")
    assert '"category":"books"' in lines[3]
    result = {"verdict": overall(said), "compared": how(group, found["table"]), "seconds": 0.1}
    lines = told_again(said, result)
    assert lines[0].startswith("recounted [0]: DIFFERS in placed, counted placed 500")
    assert lines[2] == "recount: differ (0.1 s; exact, but customers equal estimates)"


async def test_a_number_that_the_log_does_not_tell_any_more_is_unknown(client: Client, driver: Driver) -> None:
    found = await get(client, f"/api/explain?by=category&key=books&window={T0 + 3 * MINUTE}")
    said = verdicts(read_group(driver.topology), found, lambda wanted: recount(MemoryReader(driver.log, 20), wanted))
    assert overall(said) == "unknown"
    assert "begins at 20 now" in (said[0].reason or "")
