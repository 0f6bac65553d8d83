"""The sales topology with a planted change, for comparing versions: an order in Busan counts a million pieces more.

So every cell that differs is known, and any row of that region tells of which version it is.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from streams.events import OrderEvent
from tables.table import Fold
from topologies.sales import sales_topology
from topologies.settings import Settings
from topologies.topology import Topology

TABLE: Final = "sales_by_region"
KEY: Final = "busan"
PIECES: Final = 1_000_000


def topology(settings: Settings) -> Topology:
    """The changed sales."""
    return changed(sales_topology(settings))


def changed(found: Topology) -> Topology:
    """A sales topology with the change."""
    (source,) = found.sources.values()
    tables = tuple(
        replace(table, fold=partial(_more_pieces, table.fold)) if table.name == TABLE else table
        for table in source.tables
    )
    found.sources[source.topic.name] = replace(source, tables=tables)
    return found


def _more_pieces(fold: Fold, event: OrderEvent) -> Iterator[tuple[Any, ...]]:
    for key, placed, cancelled, refunded, orders, units, *rest in fold(event):
        more = PIECES * orders if key == KEY else 0
        yield (key, placed, cancelled, refunded, orders, units + more, *rest)


def is_changed(rows: list[dict[str, Any]]) -> bool | None:
    """Whether rows of the table are of the changed topology; None where they do not tell."""
    for row in rows:
        values = row.get("values", row)
        if row["key"] == KEY and values["orders"]:
            return bool(values["units"] >= PIECES * values["orders"])
    return None
