"""How long it takes from `POST /api/orders` until a dashboard that is open has the order.

The way: HTTP, one database transaction, outbox, relay, Kafka, worker, flush, changelog, read model, live delta. Every
200 ms a customer from a region of his own orders something, and one client follows sales by region live; an order is
there when the first frame that has its region is. The time runs from before the request is sent. Others order
meanwhile, as many as asked for.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp
from sqlalchemy import URL, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.customers import Crowd, Habits
from bench.freshness import GIVE_UP_S, REGION, quantile
from bench.shop_processes import Shop, shop
from bench.streams import Client, Frames
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.topics import ORDER_EVENTS, PAYMENT_NOTIFICATIONS, USER_ACTIVITY, ensure_topics
from topologies.orders import schema
from topologies.orders.database import Database
from topologies.orders.migrating import migrate
from topologies.orders.seeding import Stock, seed

EVERY_S: Final = 0.2
WARM_UP_S: Final = 3.0
FIRST_USER: Final = 10_000_000
LOOK_S: Final = 0.005


@dataclass(frozen=True)
class Questions:
    """How long to measure (s), beside so many customers who order without a break, with so many seconds to a flush."""

    seconds: float = 30.0
    customers: int = 0
    flush_s: float = 0.1
    payments: bool = True

    @property
    def orders(self) -> int:
        """How many orders are measured."""
        return max(1, round(self.seconds / EVERY_S))


def measure(database: URL, home: Path, questions: Questions) -> dict[str, Any]:
    """Figures of one run. Raises MillraceError when a process ends, or an order does not show within 30 s."""
    environment = {
        "MILLRACE_HOME": str(home),
        "MILLRACE_STATE": str(home / "state"),
        "MILLRACE_DATABASE": database.render_as_string(hide_password=False),
        "MILLRACE_FLUSH_S": str(questions.flush_s),
    }
    with shop(home, 1, environment) as running:
        asyncio.run(_prepared(database, running.broker.cluster(), questions))
        running.add("api", "orders")
        running.add("worker", "worker", "analytics", ready="/readyz")
        running.add("views", "views", "--topology", "analytics")
        if questions.payments:
            running.add("payments", "payments")
        running.start()
        answered, shown, beside = asyncio.run(_measured(running, questions))
    return {
        "database": database.get_backend_name(),
        "orders": len(shown),
        "beside_per_s": round(beside / (questions.seconds + WARM_UP_S), 1),
        "flush_s": questions.flush_s,
        **{f"answered_{name}": value for name, value in _ranks(answered).items()},
        **{f"shown_{name}": value for name, value in _ranks(shown).items()},
    }


def _ranks(times: list[float]) -> dict[str, float]:
    ordered, ranks = sorted(times), {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: round(1000 * quantile(ordered, rank), 1) for name, rank in ranks.items()}


async def _prepared(url: URL, cluster: Cluster | None, questions: Questions) -> None:
    assert cluster is not None
    await asyncio.to_thread(ensure_topics, cluster, (ORDER_EVENTS, PAYMENT_NOTIFICATIONS, USER_ACTIVITY))
    users = [
        {"id": FIRST_USER + number, "name": f"probe {number}", "region": f"probe-{number}", "points": 10**9}
        for number in range(questions.orders)
    ]

    async def add(connection: AsyncConnection) -> None:
        await connection.execute(insert(schema.users), users)

    async with Database.open(url) as database:
        await migrate(database)
        await seed(database, Stock(users=500, products=20, points=10**9, pieces=10**6))
        await database.write(add)


async def _measured(running: Shop, questions: Questions) -> tuple[list[float], list[float], int]:
    """Seconds until the answer and until the frame, of each order; and how many others were placed."""
    shown: dict[str, float] = {}

    def seen(frame: bytes) -> None:
        at = time.perf_counter()
        for region in REGION.findall(frame):
            shown.setdefault(region.decode(), at)

    views, api = running.client("views"), running.client("api")
    follower = Client(views.url, "/api/sales?by=region&window=1h", Frames(seen))
    crowd = Crowd(api.url, Habits(10**9, questions.customers), range(1_001, 1_501), range(1, 21))
    beside = [asyncio.create_task(follower.run())]
    if questions.customers:
        beside.append(asyncio.create_task(crowd.shop()))
    try:
        await asyncio.sleep(WARM_UP_S)
        answered, sent = await _ordered(api.url, questions.orders)
        await _until(lambda: shown.keys() >= sent.keys(), beside)
        return answered, [shown[region] - at for region, at in sent.items()], len(crowd.tally.accepted)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


async def _ordered(url: str, orders: int) -> tuple[list[float], dict[str, float]]:
    """Seconds until each was answered, and by region when it was sent (of perf_counter)."""
    sent: dict[str, float] = {}

    async def order(session: aiohttp.ClientSession, number: int) -> float:
        began = sent[f"probe-{number}"] = time.perf_counter()
        body = {"items": [{"productId": 1 + number % 20, "quantity": 1}]}
        headers = {"X-USER-ID": str(FIRST_USER + number)}
        async with session.post("/api/orders", json=body, headers=headers) as answer:
            if answer.status != 201:
                raise MillraceError(f"an order was answered with {answer.status}: {await answer.text()}")
        return time.perf_counter() - began

    async with aiohttp.ClientSession(url) as session:
        tasks, began = [], time.monotonic()
        for number in range(orders):
            await asyncio.sleep(max(0.0, began + number * EVERY_S - time.monotonic()))
            tasks.append(asyncio.create_task(order(session, number)))
        return await asyncio.gather(*tasks), sent


async def _until(holds: Callable[[], bool], beside: "list[asyncio.Task[None]]") -> None:
    for waited in count():
        for task in beside:
            if task.done():
                task.result()
        if holds():
            return
        if waited * LOOK_S > GIVE_UP_S:
            raise MillraceError(f"orders do not show after {GIVE_UP_S:g} s: see the processes' logs")
        await asyncio.sleep(LOOK_S)
