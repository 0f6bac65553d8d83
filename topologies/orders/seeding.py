"""What a shop begins with: a user to try it with, products, and as many more users as are wanted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Final

from sqlalchemy import Table, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from streams.errors import MillraceError
from streams.simulator.shop import REGIONS
from topologies.orders.database import Database
from topologies.orders.schema import products, users

TEST_USER: Final = 123
FIRST_OTHER: Final = 1_001
ROWS_AT_ONCE: Final = 500
TRIES: Final = 3
CATALOGUE: Final = (
    ("notebook", "stationery", 3_500),
    ("fountain pen", "stationery", 12_000),
    ("novel", "books", 14_000),
    ("cookbook", "books", 22_000),
    ("green tea", "grocery", 6_500),
    ("rice, 10 kg", "grocery", 28_000),
    ("hand cream", "beauty", 9_000),
    ("sun lotion", "beauty", 18_000),
    ("umbrella", "fashion", 16_000),
    ("scarf", "fashion", 24_000),
    ("wooden blocks", "toys", 19_000),
    ("kite", "toys", 8_000),
    ("cat food", "pets", 11_000),
    ("dog lead", "pets", 13_000),
    ("tea pot", "kitchen", 27_000),
    ("chopsticks", "kitchen", 5_000),
    ("cushion", "home", 15_000),
    ("desk lamp", "home", 39_000),
    ("tulip bulbs", "garden", 7_000),
    ("skipping rope", "sports", 10_000),
)


@dataclass(frozen=True)
class Stock:
    """How much of what: users beside the test user, products, what each user has, pieces of each product."""

    users: int = 0
    products: int = 20
    points: int = 100_000
    pieces: int = 1_000


@dataclass(frozen=True)
class Seeded:
    """How many rows are new."""

    users: int
    products: int


async def seed(database: Database, wanted: Stock) -> Seeded:
    """Put in what is missing; rows that are there stay as they are. Raises MillraceError."""
    return Seeded(
        await _put(database, users, list(_users(wanted))), await _put(database, products, list(_products(wanted)))
    )


def _users(wanted: Stock) -> Iterator[dict[str, Any]]:
    yield {"id": TEST_USER, "name": "test user", "region": next(iter(REGIONS)), "points": wanted.points}
    for number, region in enumerate(islice(cycle(REGIONS), wanted.users)):
        user = FIRST_OTHER + number
        yield {"id": user, "name": f"user {user}", "region": region, "points": wanted.points}


def _products(wanted: Stock) -> Iterator[dict[str, Any]]:
    for number, (name, category, price) in enumerate(islice(cycle(CATALOGUE), wanted.products)):
        edition = number // len(CATALOGUE)
        told = f"{name}, edition {edition + 1}" if edition else name
        yield {"id": number + 1, "name": told, "category": category, "price": price, "stock": wanted.pieces}


async def _put(database: Database, table: Table, rows: Sequence[dict[str, Any]]) -> int:
    starts = range(0, len(rows), ROWS_AT_ONCE)
    return sum([await _put_some(database, table, rows[at : at + ROWS_AT_ONCE]) for at in starts])


async def _put_some(database: Database, table: Table, rows: Sequence[dict[str, Any]]) -> int:
    async def transaction(connection: AsyncConnection) -> int:
        wanted = [row["id"] for row in rows]
        there = set((await connection.execute(select(table.c.id).where(table.c.id.in_(wanted)))).scalars())
        missing = [row for row in rows if row["id"] not in there]
        if missing:
            await connection.execute(insert(table), missing)
        return len(missing)

    for _ in range(TRIES):
        try:
            return await database.write(transaction)
        except IntegrityError:
            continue  # somebody else put some of them in just now
    raise MillraceError("somebody else is seeding this database: try again when they are done")
