"""Order databases for tests: SQLite, and servers where they are asked for; and what has to be true of their books."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import URL, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from bench.databases import Server
from streams.codecs import decoder
from streams.events import OrderEvent
from topologies.orders.database import Database, database_url
from topologies.orders.migrating import migrate
from topologies.orders.order import Order
from topologies.orders.outbox import Place
from topologies.orders.placing import Counter, Placed, Placing
from topologies.orders.schema import METADATA, OrderStatus, order_lines, orders, outbox, products, users
from topologies.orders.seeding import TEST_USER, Stock, seed
from topologies.orders.transitions import Transitions

TOPIC = "order-events"
POINTS, PIECES = 100_000, 50
USERS = 4
USER, OTHER = TEST_USER, 1_001
# prices of the catalogue's first products
PRICE = {1: 3_500, 2: 12_000, 3: 14_000}
_numbers = count(1)


def sqlite_url(directory: Path) -> URL:
    return database_url(f"sqlite:///{directory}/orders.db", {}, directory)


async def fresh_database(server: Server) -> URL:
    """An empty database on a server."""
    name = f"orders_{next(_numbers)}"
    engine = create_async_engine(server.url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    await engine.dispose()
    return server.url.set(database=name)


@dataclass
class MemoryLine:
    """A topic of activity in memory; `away` as a cluster is."""

    records: list[tuple[bytes, bytes]] = field(default_factory=list)
    away: bool = False

    async def send(self, key: bytes, value: bytes) -> Place:
        if self.away:
            raise TimeoutError
        self.records.append((key, value))
        return Place("user-activity", 0, len(self.records) - 1)

    async def close(self) -> None:
        pass


@dataclass
class Bookkeeping:
    """A shop of few users and products, on any database; `at_ms` is its clock."""

    database: Database
    at_ms: int = 1_767_225_600_000
    counter: Counter = field(init=False)
    transitions: Transitions = field(init=False)

    def __post_init__(self) -> None:
        self.counter = Counter(TOPIC, "KRW", self.clock_ms)
        self.transitions = Transitions(TOPIC, self.clock_ms)

    def clock_ms(self) -> int:
        self.at_ms += 1
        return self.at_ms

    async def place(self, quantities: Mapping[int, int], user: int = USER, key: str | None = None) -> Placed:
        command = Placing(user, quantities, key)
        return await self.database.write(lambda connection: self.counter.place(connection, command))

    async def pay(self, order_id: int) -> Order | None:
        return await self.database.write(lambda connection: self.transitions.pay(connection, order_id))

    async def cancel(self, order_id: int) -> Order | None:
        return await self.database.write(lambda connection: self.transitions.cancel(connection, order_id, "a test"))

    async def refund(self, order_id: int) -> Order | None:
        return await self.database.write(lambda connection: self.transitions.refund(connection, order_id, "a test"))

    async def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables."""

        async def transaction(connection: AsyncConnection) -> dict[str, list[tuple[Any, ...]]]:
            return {
                table.name: sorted(tuple(row) for row in await connection.execute(select(table)))
                for table in METADATA.sorted_tables
            }

        return await self.database.read(transaction)

    async def events(self) -> list[OrderEvent]:
        """What is to be published, by id."""

        async def transaction(connection: AsyncConnection) -> list[bytes]:
            return list((await connection.execute(select(outbox.c.value).order_by(outbox.c.id))).scalars())

        return [decoder(OrderEvent)(value) for value in await self.database.read(transaction)]

    async def left(self, product: int) -> int:
        async def transaction(connection: AsyncConnection) -> int:
            return int(await connection.scalar(select(products.c.stock).where(products.c.id == product)) or 0)

        return await self.database.read(transaction)

    async def points(self, user: int = USER) -> int:
        async def transaction(connection: AsyncConnection) -> int:
            return int(await connection.scalar(select(users.c.points).where(users.c.id == user)) or 0)

        return await self.database.read(transaction)

    async def assert_conserved(self, pieces: int = PIECES, points: int = POINTS) -> None:
        """Nothing is made, lost or sold twice: what is missing is what live orders hold; each step is told once."""
        found = await self.everything()
        held = (OrderStatus.PLACED, OrderStatus.PAID)
        columns = {table.name: [column.name for column in table.columns] for table in (orders, order_lines)}
        placed = [dict(zip(columns["orders"], row, strict=True)) for row in found["orders"]]
        lines = [dict(zip(columns["order_lines"], row, strict=True)) for row in found["order_lines"]]
        live = {order["id"]: order for order in placed if order["status"] in held}
        for product, *_, stock in found["products"]:
            sold = sum(line["quantity"] for line in lines if line["order_id"] in live and line["product_id"] == product)
            assert stock == pieces - sold
            assert stock >= 0
        for user, _, _, left in found["users"]:
            assert left == points - sum(order["points_used"] for order in live.values() if order["user_id"] == user)
            assert left >= 0
        for order in placed:
            amount = sum(line["price"] * line["quantity"] for line in lines if line["order_id"] == order["id"])
            assert order["amount"] == order["points_used"] == amount
        told = [str(event.event_id) for event in await self.events()]
        assert len(told) == len(set(told))
        assert sorted(told) == sorted(f"order-{order['id']}-{step}" for order in placed for step in _steps(order))


def _steps(order: Mapping[str, Any]) -> list[str]:
    ways = {"placed": [], "paid": ["paid"], "cancelled": ["cancelled"], "refunded": ["paid", "refunded"]}
    return ["placed", *ways[order["status"]]]


@asynccontextmanager
async def bookkeeping(url: URL, *, pieces: int = PIECES, wait_s: float = 5.0) -> AsyncIterator[Bookkeeping]:
    async with Database.open(url, wait_s=wait_s) as database:
        await migrate(database)
        await seed(database, Stock(USERS, 5, POINTS, pieces))
        yield Bookkeeping(database)


async def all_of(*asked: Any) -> list[Any]:
    """What comes of all of them at once, errors too."""
    return list(await asyncio.gather(*asked, return_exceptions=True))
