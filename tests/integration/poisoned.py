"""A topology whose fold fails for everything, as on a full disk: run by workers as `poisoned:topology`."""

from typing import Any

from streams.topics import ORDER_EVENTS
from tables.aggregates import Count
from tables.table import Table
from topologies.sales import own_topic
from topologies.settings import Settings
from topologies.topology import Topology


def fold(order: Any) -> list[tuple[Any, ...]]:
    """Take orders below 1,000."""
    if order.amount >= 1_000:
        raise OSError(28, "No space left on device")
    return [("all", 1)]


def topology(settings: Settings) -> Topology:
    """Count orders."""
    made = Topology(f"{settings.prefix}poisoned")
    made.add(own_topic(ORDER_EVENTS, settings), Table("orders", {"orders": Count()}, fold))
    return made
