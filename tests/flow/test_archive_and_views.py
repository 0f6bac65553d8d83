"""What the archive's SQL says of orders is what the views say of them, to the last coin, whatever the records are."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import malformed
import pytest
from aiohttp.test_utils import TestClient, TestServer
from views_shop import follow, look, open_model, sales

from streams.intake import EventTime
from streams.log import TP, Entry
from streams.simulator.emission import emitted
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS
from topologies.archive.archiving import Archive
from topologies.archive.checking import check
from topologies.archive.files import Files
from topologies.archive.querying import Tables
from topologies.driver import Driver
from topologies.views.answers import Views
from topologies.views.freshness import Tracker
from topologies.views.server import attach, views_app

Feed = Callable[[Driver], None]
SHOP = "currency IS NULL OR currency = 'KRW'"
OF = f"FROM order_events_counted WHERE ({SHOP})"
SQL = {
    "total": f"SELECT slice, 'total' AS key, event_type, amount AS money {OF}",
    "region": f"SELECT slice, region AS key, event_type, amount AS money {OF}",
    "category": "SELECT slice, item.category AS key, event_type, item.price::HUGEINT * item.quantity AS money "
    f"FROM (SELECT slice, event_type, unnest(items) AS item {OF} AND len(items) > 0) UNION ALL "
    f"SELECT slice, 'unknown', event_type, amount {OF} AND len(items) = 0",
}
SUMS = """SELECT epoch_ms(slice) AS slice, key,
    coalesce(sum(money) FILTER (event_type = 'order.placed'), 0),
    coalesce(sum(money) FILTER (event_type = 'order.cancelled'), 0),
    coalesce(sum(money) FILTER (event_type = 'order.refunded'), 0)
FROM ({sql}) GROUP BY ALL"""
Sums = dict[tuple[int, str], tuple[int, int, int]]


def simulated(driver: Driver) -> None:
    """A shop's orders, with late ones, ones out of order and copies."""
    shop = ShopSettings(topics=("order-events",), events_per_s=20.0, daily_swing=0.0, seed=11)
    for topic, key, value, event in islice(emitted(shop), 6_000):
        at_ms = event.occurred_at
        assert isinstance(at_ms, int)
        driver.feed(topic, value, key, timestamp_ms=at_ms)


def broken(driver: Driver) -> None:
    """Records malformed in every way among whole ones."""
    for one in malformed.made(3_000, share=0.05):
        driver.log.put(TP("order-events", one.partition), Entry(one.key, one.value), one.at_ms)


async def archived(driver: Driver, files: Files) -> None:
    """Every record, by archivers that die between a file and its commit, and by two at a time."""
    chance = Random(5)
    for number in range(ORDER_EVENTS.partitions):
        tp = TP("order-events", number)
        records = driver.log.records(tp)
        archives = [Archive(files, [ORDER_EVENTS]) for _ in range(2)]
        at = [await archive.starts(tp, 0, len(records)) for archive in archives]
        while min(at) < len(records):
            who = at.index(min(at)) if chance.random() < 0.7 else chance.randrange(2)
            some = records[at[who] : at[who] + chance.randint(1, 900)]
            if chance.random() < 0.2:  # killed, and back at what the files say
                at[who] = await archives[who].starts(tp, 0, len(records))
            elif some:
                await archives[who](tp, some)
                at[who] += len(some)


@asynccontextmanager
async def served(driver: Driver, directory: Path) -> AsyncIterator[TestClient[Any, Any]]:
    topology = driver.topology
    model = open_model(topology, directory)
    tracker = Tracker(model)
    follow(model, driver)
    look(tracker, driver, 1.0)
    app = views_app([topology])
    attach(app, Views(topology, model, tracker, "KRW"))
    async with TestClient(TestServer(app)) as client:
        yield client
    model.close()


async def viewed(client: TestClient[Any, Any], by: str, first: int, last: int) -> Sums:
    found: Sums = {}
    for start in range(first, last + 60_000, 3_600_000):
        answer = await client.get(f"/api/sales?by={by}&window=1m&from={start}&to={start + 3_600_000}")
        assert answer.status == 200, await answer.text()
        for row in (await answer.json())["rows"]:
            found[row["startMs"], row["key"]] = (row["placed"], row["cancelled"], row["refunded"])
    return {cell: sums for cell, sums in found.items() if any(sums)}


@pytest.mark.parametrize("feed", [simulated, broken])
async def test_the_archives_sums_are_the_views_by_minute_region_and_category(feed: Feed, tmp_path: Path) -> None:
    with Driver(sales(), batch=2_000) as driver:
        feed(driver)
        driver.flush()
        files = Files(str(tmp_path / "lake"))
        await archived(driver, files)
        for number, found in enumerate(check(files, "order-events")):
            assert (found.faults, found.rows) == ([], len(driver.log.records(TP("order-events", number))))
        async with served(driver, tmp_path / "model") as client:
            for by, sql in SQL.items():
                with Tables(files, EventTime()) as tables:
                    rows = tables.query(SUMS.format(sql=sql)).rows
                sums: Sums = {(slice_, key): tuple(money) for slice_, key, *money in rows if any(money)}
                first, last = min(at for at, _ in sums), max(at for at, _ in sums)
                assert sums == await viewed(client, by, first, last)
                assert len(sums) >= 2
