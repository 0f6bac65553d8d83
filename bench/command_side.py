"""A whole shop under customers, with everything killed meanwhile; then all of its books are compared.

customers -> order API -> database -> relay -> Kafka -> payments, saga -> database -> relay -> Kafka -> dashboard,
archive, notices. Each process is killed by SIGKILL and started again, at moments that go by how many orders were
accepted, so that kills are spread over the load however fast the machine is.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bench import shop_laws
from bench.customers import Crowd, Habits
from bench.freshness import quantile
from bench.shop_books import Books, read_books, read_topics, stock_and_points
from bench.shop_processes import BROKER, Shop, shop
from streams.admin.connection import Admin
from streams.admin.groups import describe_group
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.topics import ORDER_EVENTS, PAYMENT_NOTIFICATIONS, USER_ACTIVITY, ensure_topics
from topologies.demo.client import Client
from topologies.orders import schema
from topologies.orders.database import Database
from topologies.orders.migrating import migrate
from topologies.orders.seeding import Stock, seed

PARTITIONS: Final = 4
REST_S: Final = 180.0
TOPICS: Final = (ORDER_EVENTS, PAYMENT_NOTIFICATIONS, USER_ACTIVITY)
READERS: Final = ("order-notification-group", "data-platform-group")
NEEDED: Final = ("api", "relay", "payments", BROKER)
BESIDE: Final = ("worker", "views", "notify", "archive")


@dataclass(frozen=True)
class Trial:
    """How much, how many, and how often each of `victims` is killed; `also` is how often each of `BESIDE` is.

    `pieces` of each product and `points` of each user are so few that some orders are refused.
    """

    habits: Habits
    kills: int = 3
    also: int = 1
    nodes: int = 1
    users: int = 1_000
    products: int = 60
    points: int = 1_500_000
    pieces: int = 3_000
    seed: int = 1
    victims: Sequence[str] = NEEDED

    def __post_init__(self) -> None:
        """Raise MillraceError for a victim that is none."""
        if unknown := sorted(set(self.victims) - {*NEEDED, *BESIDE}):
            raise MillraceError(f"there is no {unknown[0]!r} to kill: give some of {', '.join([*NEEDED, *BESIDE])}")


def measure(database: URL, home: Path, trial: Trial, tell: Callable[[str], None]) -> dict[str, Any]:
    """Figures of one run; `wrong` is where the books contradict each other. Raises MillraceError when it cannot run."""
    with _shop(database, home, trial) as running:
        before = asyncio.run(_prepared(database, running.broker.cluster(), trial))
        running.start()
        tell(f"running: {', '.join([BROKER, *running.seats])}")
        client = running.client("api")
        users, products = sorted(before[1]), sorted(before[0])
        crowd = Crowd(client.url, trial.habits, users, products)
        began = time.monotonic()
        asyncio.run(_under_kills(crowd, running, trial, tell))
        took_s = time.monotonic() - began
        tell(f"{len(crowd.tally.accepted):,} orders in {took_s:.0f} s; waiting until all is at rest")
        asyncio.run(_at_rest(database, running))
        rest_s = time.monotonic() - began - took_s
        books, wrong, compared = _compared(database, home, running, before, crowd)
    tally, statuses = crowd.tally, [order["status"] for order in books.orders.values()]
    ordered = sorted(tally.took_ms) or [0.0]
    return {
        "database": database.get_backend_name(),
        "nodes": trial.nodes,
        "customers": trial.habits.customers,
        "orders": len(books.orders),
        "orders_per_s": round(len(books.orders) / took_s, 1),
        "p50_ms": round(quantile(ordered, 0.5), 1),
        "p99_ms": round(quantile(ordered, 0.99), 1),
        "answered_with_place": tally.published,
        "at_rest_after_s": round(rest_s, 1),
        "refused": dict(tally.refused),
        "steps": dict(tally.steps),
        "asked_again": tally.asked_again,
        **{status: statuses.count(status) for status in ("paid", "cancelled", "refunded", "placed")},
        "events": len(books.outbox),
        "events_again": shop_laws.repeats(books),
        "kills": {**{name: seat.kills for name, seat in running.seats.items()}, BROKER: running.broker_kills},
        "ready_s": running.ready_s,
        "compared": compared,
        "wrong": wrong,
    }


@contextmanager
def _shop(database: URL, home: Path, trial: Trial) -> Iterator[Shop]:
    environment = {
        "MILLRACE_HOME": str(home),
        "MILLRACE_STATE": str(home / "state"),
        "MILLRACE_DATABASE": database.render_as_string(hide_password=False),
    }
    with shop(home, trial.nodes, environment) as running:
        running.add("api", "orders")
        running.add("relay", "relay")
        running.add("payments", "payments", "--declines", "0.08", "--timeouts", "0.02")
        running.add("worker", "worker", "analytics", ready="/readyz")
        running.add("views", "views", "--topology", "analytics")
        running.add("notify", "notify", "run", more=("--log", str(home / "notices.jsonl")))
        running.add("archive", "archive", "run", more=("--to", str(home / "archive"), "--roll", "2"))
        yield running


async def _prepared(url: URL, cluster: Cluster | None, trial: Trial) -> tuple[dict[int, int], dict[int, int]]:
    assert cluster is not None
    await asyncio.to_thread(ensure_topics, cluster, TOPICS)
    async with Database.open(url) as database:
        await migrate(database)
        await seed(database, Stock(trial.users, trial.products, trial.points, trial.pieces))
        return await stock_and_points(database)


async def _under_kills(crowd: Crowd, running: Shop, trial: Trial, tell: Callable[[str], None]) -> None:
    """Let customers shop, and kill meanwhile. Raises what either raises."""
    shopping = asyncio.create_task(crowd.shop())
    killing = asyncio.create_task(_kill(crowd, running, trial, tell))
    try:
        await asyncio.gather(shopping, killing)
    finally:
        for task in (shopping, killing):
            task.cancel()
        await asyncio.gather(shopping, killing, return_exceptions=True)


async def _kill(crowd: Crowd, running: Shop, trial: Trial, tell: Callable[[str], None]) -> None:
    chance = random.Random(trial.seed)
    victims = [*list(trial.victims) * trial.kills, *BESIDE * trial.also]
    chance.shuffle(victims)
    for number, victim in enumerate(victims, 1):
        while crowd.progress < number / (len(victims) + 1):
            running.revive()
            await asyncio.sleep(0.02)
        await asyncio.to_thread(running.kill, victim, chance)
        tell(f"killed {victim} at {len(crowd.tally.accepted):,} orders; back after {running.ready_s[victim][-1]} s")


async def _at_rest(url: URL, running: Shop) -> None:
    """Return once nothing is left to do anywhere."""
    async with Database.open(url) as database:
        deadline = time.monotonic() + REST_S
        while left := await database.read(_left):
            running.revive()
            if time.monotonic() > deadline:
                raise MillraceError(f"still to be done after {REST_S:g} s: {left}; see {running.children.directory}")
            await asyncio.sleep(0.2)
    cluster = running.broker.cluster()
    assert cluster is not None
    views = running.client("views")
    await asyncio.to_thread(running.wait, lambda: _caught_up(views), REST_S, "the dashboard has not caught up")
    await asyncio.to_thread(running.wait, lambda: _all_read(cluster), REST_S, "archive or notices have not caught up")


async def _left(connection: AsyncConnection) -> dict[str, int]:
    """What has still to move, by name."""
    orders, payments, outbox = schema.orders.c, schema.payments.c, schema.outbox.c
    off = orders.status.in_(("cancelled", "refunded"))
    joined = schema.orders.outerjoin(schema.payments, payments.order_id == orders.id)
    asked = {
        "orders placed": select(func.count()).where(orders.status == "placed"),
        "events unsent": select(func.count()).where(outbox.sent_offset.is_(None)),
        "payments requested": select(func.count()).where(payments.status == "requested"),
        "payments to give back": select(func.count()).select_from(joined).where(off, payments.status == "completed"),
        "orders without payment": select(func.count()).select_from(joined).where(payments.status.is_(None)),
    }
    found = {name: await connection.scalar(wanted) or 0 for name, wanted in asked.items()}
    return {name: count for name, count in found.items() if count}


def _caught_up(views: Client) -> bool:
    fresh = views.get("/api/tables/sales_by_total")["freshness"]
    return bool(fresh["connected"]) and fresh["lagTotal"] == 0


def _all_read(cluster: Cluster) -> bool:
    return all(describe_group(Admin(cluster), name).lag == 0 for name in READERS)


def _compared(
    url: URL, home: Path, running: Shop, before: tuple[dict[int, int], dict[int, int]], crowd: Crowd
) -> tuple[Books, list[str], dict[str, int]]:
    """The books, what contradicts them, and how much was compared."""

    async def read() -> Books:
        async with Database.open(url) as database:
            books = await read_books(database, home / "gateway.db", before, crowd.tally)
        cluster = running.broker.cluster()
        assert cluster is not None
        books.published = await read_topics(cluster, [ORDER_EVENTS.name, PAYMENT_NOTIFICATIONS.name], PARTITIONS)
        return books

    books = asyncio.run(read())
    wrong = [f"{law.__name__}: {found}" for law in shop_laws.LAWS for found in law(books)]
    ledger, views = shop_laws.ledger_of(books, ORDER_EVENTS.name, PARTITIONS), running.client("views")
    values, different = shop_laws.dashboard_has_all(ledger, lambda table, start: views.rows(table, start, 60_000))
    wrong += [f"dashboard: {one}" for one in different]
    wrong += [f"notices: {one}" for one in shop_laws.notices_have_all(books, home / "notices.jsonl")]
    rows, different = archive_has_all(books, home / "archive")
    wrong += [f"archive: {one}" for one in different]
    return books, wrong, {"dashboard_values": values, "archived_records": rows, "records": len(books.published)}


def archive_has_all(books: Books, directory: Path) -> tuple[int, list[str]]:
    """Rows of the archive, and what is wrong with them: each offset of the two topics is there once, and the money."""
    from streams.intake import EventTime
    from topologies.archive.checking import check
    from topologies.archive.files import Files
    from topologies.archive.querying import Tables

    files, wrong, rows = Files(str(directory)), list[str](), 0
    for topic in (ORDER_EVENTS.name, PAYMENT_NOTIFICATIONS.name):
        for one in check(files, topic):
            wrong += one.faults
            rows += one.rows
            written = [record for record in books.published if (record.topic, record.partition) == one.tp]
            if (one.first, one.end, one.rows) != (0, len(written), len(written)):
                wrong.append(f"{one.tp}: {one.first} to {one.end}, {one.rows} rows, of {len(written)} records")
    placed = sum(order["amount"] for order in books.orders.values())
    with Tables(files, EventTime(slice_ms=60_000, grace_ms=60_000)) as tables:
        sql = "SELECT sum(amount) FROM order_events_counted WHERE event_type = 'order.placed'"
        found = int(tables.query(sql).rows[0][0])
    if found != placed:
        wrong.append(f"{found} was placed, and the database says {placed}")
    return rows, wrong
