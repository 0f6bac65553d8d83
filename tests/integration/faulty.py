"""The sales topology with folds that fail: for good, once, and in the middle of an accumulator."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from zlib import crc32

from streams.events import OrderEvent
from tables.table import Fold
from topologies.sales import sales_topology
from topologies.settings import Settings
from topologies.topology import Topology


def mark(order: OrderEvent) -> int:
    """A number from 0 to 4999 that an order always has."""
    return crc32((order.event_id or "").encode()) % 5000


def is_poison(order: OrderEvent) -> bool:
    """Whether every fold raises for it, however often."""
    return mark(order) % 50 == 7


def failing(fold: Callable[[OrderEvent], Iterable[tuple[Any, ...]]]) -> Fold:
    """The fold, raising for poison; once for some orders, and for a few with a row that no accumulator can take."""
    tried: set[str] = set()

    def wrapped(order: OrderEvent) -> list[tuple[Any, ...]]:
        rows = [tuple(row) for row in fold(order)]
        number = mark(order)
        if number % 50 == 7:
            raise ValueError("never again")
        if number % 50 == 8 and str(order.event_id) not in tried:
            tried.add(str(order.event_id))
            raise OSError("just this once")
        if number < 25 and rows and str(order.event_id) not in tried:
            tried.add(str(order.event_id))
            return [*rows, (rows[0][0], "ten", *rows[0][2:])]
        return rows

    return wrapped


def topology(settings: Settings) -> Topology:
    """The sales topology, failing."""
    made = sales_topology(settings)
    for name, source in made.sources.items():
        tables = tuple(replace(table, fold=failing(table.fold)) for table in source.tables)
        made.sources[name] = replace(source, tables=tables)
    return made
