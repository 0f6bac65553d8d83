"""The sales topology of the group `order-analytics-group`: order events to sales by minute.

order-events -> sales_by_total, sales_by_category, sales_by_region, sales_by_product
|  closed minutes of the first three
v
sales-per-minute
"""

from dataclasses import replace
from typing import Any

from agents.sales import sales_folds
from streams.intake import EventTime
from streams.topics import ORDER_EVENTS, Topic
from tables.aggregates import Aggregate, Distinct, Quantiles, Sum
from tables.table import Table
from topologies.settings import Settings
from topologies.topology import Topology

GROUP = "order-analytics-group"
SALES_PER_MINUTE = Topic(
    "sales-per-minute",
    key='JSON [table, slice start in ms, key], e.g. ["sales_by_category",1767225600000,"books"]',
    cleanup="compact",
    retention_s=None,
)


def sales_topology(settings: Settings) -> Topology:
    """Wire the sales folds to their tables."""
    folds = sales_folds(settings.currency)
    orders = own_topic(ORDER_EVENTS, settings)
    finals = own_topic(SALES_PER_MINUTE, settings)
    time = EventTime(
        slice_ms=round(settings.slice_s * 1000),
        grace_ms=round(settings.grace_s * 1000),
        max_ahead_ms=round(settings.max_ahead_s * 1000),
    )
    topology = Topology(settings.prefix + GROUP).source(orders, time=time)
    retention = round(settings.retention_s)
    for name, fold in (("total", folds.total), ("category", folds.category), ("region", folds.region)):
        table = Table(f"sales_by_{name}", {**_money(), **_customers()}, fold, retention, finals)
        topology.add(orders, table)
    topology.add(orders, Table("sales_by_product", _money(), folds.product, retention))
    return topology


def own_topic(topic: Topic, settings: Settings) -> Topic:
    """A topic as this installation has it: with its prefix and its number of partitions."""
    return replace(topic, name=settings.prefix + topic.name, partitions=settings.partitions)


def _money() -> dict[str, Aggregate[Any]]:
    return {"placed": Sum(), "cancelled": Sum(), "refunded": Sum(), "orders": Sum(), "units": Sum()}


def _customers() -> dict[str, Aggregate[Any]]:
    return {"customers": Distinct(), "order_value": Quantiles()}
