"""The sales topology on the driver, and read models that follow it: for the tests of the read side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streams.cluster import Cluster
from streams.log import TP
from streams.topics import ORDER_EVENTS
from tables.read_model import Changed, ReadModel
from topologies.driver import Driver
from topologies.sales import sales_topology
from topologies.settings import Settings
from topologies.topology import Topology
from topologies.views.freshness import Tracker
from topologies.views.hosting import read_group

MINUTE = 60_000
HOUR = 3_600_000
# 2026-01-01T00:00:00Z
T0 = 1_767_225_600_000
ORDERS = ORDER_EVENTS.name


def sales(**settings: Any) -> Topology:
    """The sales topology in won, as the application wires it."""
    return sales_topology(shop_settings(**settings))


def shop_settings(**settings: Any) -> Settings:
    """Settings of a cluster that nobody connects to."""
    cluster = Cluster("localhost:9")
    return Settings(**{"cluster": cluster, "home": Path("/nowhere"), "state_dir": Path("/nowhere"), **settings})


def order(
    driver: Driver, at_ms: int, amount: int = 100, user: int = 1, *, partition: int | None = None, **fields: Any
) -> None:
    """Feed one order event; times are event times, and the record's own."""
    event = {"orderId": 1, "userId": user, "amount": amount, "occurredAt": at_ms, **fields}
    driver.feed(ORDERS, event, f"user-{user}", partition=partition, timestamp_ms=at_ms)


def line(product: int | str, category: str, price: int, quantity: int = 1) -> dict[str, Any]:
    """One line of an order."""
    return {"productId": product, "category": category, "price": price, "quantity": quantity}


def open_model(topology: Topology, directory: Path) -> ReadModel:
    """A read model that has read nothing, or what it had read before."""
    return ReadModel(read_group(topology), directory)


def follow(model: ReadModel, driver: Driver, *, batch: int = 1_000, only: Sequence[TP] | None = None) -> Changed:
    """Read what a driver's log has and the model has not; returns what changed."""
    changed: Changed = set()
    for tp, position in model.positions().items():
        if only is not None and tp not in only:
            continue
        records = driver.log.records(tp, position)
        for i in range(0, len(records), batch):
            changed |= model.apply(tp, records[i : i + batch])
    return changed


def look(tracker: Tracker, driver: Driver, at: float) -> None:
    """Look at the sources' end offsets, as a follower does."""
    ends: dict[str, dict[int, int]] = {}
    for source in tracker.model.group.sources:
        tps = [TP(source.topic.name, p) for p in range(source.topic.partitions)]
        ends[source.topic.name] = {tp.partition: len(driver.log.records(tp)) for tp in tps}
    tracker.look(at, ends)
