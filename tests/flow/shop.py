"""A small topology for the exactness tests, and the plain loop that says what is right."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from streams.intake import EventTime
from streams.topics import Topic
from tables.aggregates import Distinct, Sum
from tables.table import Table
from topologies.driver import Driver
from topologies.topology import Topology

SECOND = 1_000
MINUTE = 60_000


class Sale(msgspec.Struct, frozen=True, rename="camel"):
    """One sale of the test shop."""

    user_id: int
    amount: int
    event_id: str | None = None
    occurred_at: int | None = None


SALES = Topic("sales", Sale, partitions=2, dedupe_s=300)
FINALS = Topic("sales-final", partitions=2, cleanup="compact")
HOUR_S = 3_600


def by_user(sale: Sale) -> list[tuple[Any, ...]]:
    """Money and customers, for the whole shop and for each user."""
    return [("all", sale.amount, sale.user_id), (f"user {sale.user_id}", sale.amount, sale.user_id)]


def shop(fold: Callable[[Any], Iterable[tuple[Any, ...]]] = by_user, **options: Any) -> Topology:
    """A topology of one table with minute slices, a minute of grace and an hour of retention."""
    table = Table("takings", {"amount": Sum(), "users": Distinct()}, fold, HOUR_S, FINALS)
    topology = Topology("shop").source(SALES, time=EventTime(MINUTE, MINUTE, **options))
    topology.add(SALES, table)
    return topology


def sell(
    driver: Driver, amount: int, at_s: float, user: int = 1, *, event_id: str | None = None, partition: int = 0
) -> None:
    """Feed one sale at an event time in seconds."""
    sale = {"userId": user, "amount": amount, "occurredAt": round(at_s * SECOND), "eventId": event_id}
    driver.feed("sales", sale, f"user-{user}", partition=partition, timestamp_ms=round(at_s * SECOND))


def amounts(driver: Driver, key: str = "all") -> dict[int, int]:
    """Money by slice start in seconds."""
    rows = driver.rows("takings")
    return {window // SECOND: row["amount"] for (window, k), row in rows.items() if k == key}
