"""Our topologies as they are measured: under names of their own, so that any cluster can be measured on."""

from dataclasses import replace

from streams.events import OrderEvent
from streams.topics import ORDER_EVENTS
from tables.aggregates import Sum
from tables.table import Source, Table
from topologies.sales import sales_topology
from topologies.settings import Settings
from topologies.topology import Topology

SumsRow = tuple[str, int, int, int, int, int]


def one_table(settings: Settings, group: str, topic: str) -> Topology:
    """Sales by minute and category: five sums, the least that compares with a bare loop."""
    sums = {name: Sum() for name in ("placed", "cancelled", "refunded", "orders", "units")}
    topology = Topology(group)
    orders = replace(ORDER_EVENTS, name=topic, partitions=settings.partitions)
    topology.add(orders, Table("sales_by_category", sums, category_sums))
    return topology


def category_sums(order: OrderEvent) -> list[SumsRow]:
    """One row for each distinct category of a placed order; what is taken back is a row for each line."""
    items = order.items
    if order.event_type != "order.placed":
        return _taken_back(order)
    if len(items) == 1:
        line = items[0]
        return [(line.category, line.price * line.quantity, 0, 0, 1, line.quantity)]
    rows: dict[str, SumsRow] = {}
    for line in items:
        category, units = line.category, line.quantity
        money = line.price * units
        if category in rows:
            money += rows[category][1]
            units += rows[category][5]
        rows[category] = (category, money, 0, 0, 1, units)
    return list(rows.values())


def _taken_back(order: OrderEvent) -> list[SumsRow]:
    cancelled, refunded = order.event_type == "order.cancelled", order.event_type == "order.refunded"
    money = [(line.category, line.price * line.quantity) for line in order.items]
    return [(category, 0, paid * cancelled, paid * refunded, 0, 0) for category, paid in money]


def all_tables(settings: Settings, group: str, topic: str) -> Topology:
    """The sales topology whole: four tables, distinct customers, quantiles, final results."""
    measured = Topology(group)
    for source in sales_topology(settings).sources.values():
        tables = tuple(_renamed(table, group) for table in source.tables)
        measured.sources[topic] = Source(
            replace(source.topic, name=topic), tables, source.time, source.time_of, source.decode, source.mark
        )
    return measured


def _renamed(table: Table, group: str) -> Table:
    if table.finals is None:
        return table
    finals = replace(table.finals, name=f"{group}-{table.finals.name}")
    return Table(table.name, table.aggregates, table.fold, table.retention_s, finals)


VARIANTS = {"one_table": one_table, "all_tables": all_tables}
