"""A shop with a database and a gateway, without Kafka: orders are placed and paid for, and the books compared."""

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relaying import shop_database
from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from streams.consuming import Backoff
from streams.events import OrderEvent, PaymentNotification
from streams.log import TP
from streams.taking import Taken
from topologies.orders import schema
from topologies.orders.database import Database
from topologies.orders.order import Order
from topologies.orders.placing import Counter, Placing
from topologies.orders.saga import Saga
from topologies.orders.schema import OrderStatus, PaymentStatus
from topologies.orders.seeding import Stock, seed
from topologies.orders.transitions import Transitions
from topologies.payments.local_gateway import LocalGateway, Manners, holdings
from topologies.payments.worker import PaymentWorker

ORDERS, PAYMENTS = TP("order-events", 0), TP("payment-notifications", 0)
STOCK = Stock(users=4, products=5, points=10_000_000, pieces=1_000)
CALM = Manners(latency_s=0.0, declines=0.0, timeouts=0.0, duplicates=0.0, timeout_s=0.0)
QUICK = Backoff(0.0005, 0.002, random.Random(1))


@dataclass
class Books:
    """All that is written down, of a moment in which nothing moves."""

    users: dict[int, int]
    products: dict[int, int]
    orders: dict[int, Mapping[str, Any]]
    lines: list[Mapping[str, Any]]
    payments: dict[int, Mapping[str, Any]]
    events: list[Mapping[str, Any]]
    gateway: dict[str, int]
    movements: dict[str, int]


@dataclass
class Till:
    """The shop's parts; workers are made anew for each process that is to be killed."""

    database: Database
    path: Path
    transitions: Transitions = field(default_factory=lambda: Transitions(ORDERS.topic))
    opened: list[LocalGateway] = field(default_factory=list)

    async def place(self, user_id: int, **quantities: int) -> Order:
        command = Placing(user_id, {int(name[1:]): n for name, n in sorted(quantities.items())})
        counter = Counter(ORDERS.topic, "KRW")
        return (await self.database.write(lambda connection: counter.place(connection, command))).order

    async def cancel(self, order: Order) -> Order | None:
        return await self.database.write(lambda c: self.transitions.cancel(c, order.orderId, "by the customer"))

    async def refund(self, order: Order) -> Order | None:
        return await self.database.write(lambda c: self.transitions.refund(c, order.orderId, "by the customer"))

    def gateway(self, manners: Manners = CALM, seed: int = 1) -> LocalGateway:
        gateway = LocalGateway(self.path, manners, random.Random(seed))
        self.opened.append(gateway)
        return gateway

    def worker(self, gateway: Any, database: Any = None, **more: Any) -> PaymentWorker:
        settings = {"backoff": QUICK, "away": QUICK, **more}
        return PaymentWorker(database or self.database, gateway, PAYMENTS.topic, self.transitions, **settings)

    def saga(self, database: Any = None) -> Saga:
        return Saga(database or self.database, self.transitions, away=QUICK)

    async def books(self) -> Books:
        async def transaction(connection: AsyncConnection) -> dict[str, list[Mapping[str, Any]]]:
            tables: tuple[Table, ...] = (
                schema.users, schema.products, schema.orders, schema.order_lines, schema.payments, schema.outbox
            )  # fmt: skip
            found: dict[str, list[Mapping[str, Any]]] = {}
            for table in tables:
                rows = await connection.execute(select(table).order_by(*table.primary_key.columns))
                found[table.name] = [dict(row._mapping) for row in rows]
            return found

        read = await self.database.read(transaction)
        held = holdings(self.path) if self.path.exists() else {}
        return Books(
            {row["id"]: row["points"] for row in read["users"]},
            {row["id"]: row["stock"] for row in read["products"]},
            {row["id"]: row for row in read["orders"]},
            read["order_lines"],
            {row["order_id"]: row for row in read["payments"]},
            read["outbox"],
            {key: one.amount for key, one in held.items()},
            {key: one.movements for key, one in held.items()},
        )


@asynccontextmanager
async def till(directory: Path) -> AsyncIterator[Till]:
    async with shop_database(directory) as database:
        await seed(database, STOCK)
        found = Till(database, directory / "gateway.db")
        yield found
        for gateway in found.opened:
            await gateway.close()


def taken(*events: OrderEvent | PaymentNotification) -> list[Taken]:
    return [Taken(None, one, one.event_id or "") for one in events]  # type: ignore[arg-type]


def paid_for(*order_ids: int) -> list[Taken]:
    """Records that say something of these orders' payments, as the saga reads them."""
    return taken(*(PaymentNotification("payment.completed", n, 1, 1, event_id=f"x-{n}") for n in order_ids))


def assert_conserved(books: Books) -> None:
    """What was taken is held by orders that are placed or paid, and by no others; nothing is below zero."""
    held = {n for n, order in books.orders.items() if order["status"] in (OrderStatus.PLACED, OrderStatus.PAID)}
    for user, points in books.users.items():
        used = sum(books.orders[n]["points_used"] for n in held if books.orders[n]["user_id"] == user)
        assert points == STOCK.points - used >= 0
    for product, stock in books.products.items():
        out = sum(
            line["quantity"] for line in books.lines if line["order_id"] in held and line["product_id"] == product
        )
        assert stock == STOCK.pieces - out >= 0


def assert_at_rest(books: Books) -> None:
    """No order waits; who is paid has paid once, and of everybody else the gateway holds nothing."""
    assert_conserved(books)
    for number, order in books.orders.items():
        payment = books.payments[number]["status"]
        held, moved = books.gateway.get(f"order-{number}", 0), books.movements.get(f"order-{number}", 0)
        if order["status"] == OrderStatus.PAID:
            assert (payment, held, moved) == (PaymentStatus.COMPLETED, order["amount"], 1)
        else:
            assert order["status"] != OrderStatus.PLACED
            assert payment in (PaymentStatus.FAILED, PaymentStatus.REFUNDED, PaymentStatus.VOID)
            assert held == 0
            assert moved in (0, 2)
        assert event_ids(books, number) == expected_events(order["status"], payment, number)


def event_ids(books: Books, order_id: int) -> set[str]:
    return {row["event_id"] for row in books.events if row["order_id"] == order_id}


def expected_events(order: str, payment: str, number: int) -> set[str]:
    """Every event of an order at rest, by where it and its payment are."""
    steps = {
        OrderStatus.PAID: ["paid"],
        OrderStatus.CANCELLED: ["cancelled"],
        OrderStatus.REFUNDED: ["paid", "refunded"],
    }
    told = {
        PaymentStatus.COMPLETED: ["completed"],
        PaymentStatus.FAILED: ["failed"],
        PaymentStatus.REFUNDED: ["completed", "refunded"],
        PaymentStatus.VOID: [],
    }
    events = {f"order-{number}-{step}" for step in ["placed", *steps[OrderStatus(order)]]}
    return events | {f"payment-{number}-{step}" for step in told[PaymentStatus(payment)]}
