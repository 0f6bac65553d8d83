"""Our topologies as they are measured: under names of their own, so that any cluster can be measured on."""

from dataclasses import replace

from agents.sales import sales_folds
from streams.events import OrderEvent
from streams.topics import ORDER_EVENTS
from tables.aggregates import Sum
from tables.table import Source, Table
from topologies.sales import sales_topology
from topologies.settings import Settings
from topologies.topology import Topology

ProductRow = tuple[str, int, int, int, int, int]


def one_table(settings: Settings, group: str, topic: str) -> Topology:
    """Sales by minute and category: five sums, the minimum that compares with a bare loop."""
    fold = sales_folds(settings.currency).category

    def category_sums(order: OrderEvent) -> list[ProductRow]:
        return [row[:6] for row in fold(order)]

    sums = {name: Sum() for name in ("placed", "cancelled", "refunded", "orders", "units")}
    topology = Topology(group)
    orders = replace(ORDER_EVENTS, name=topic).with_partitions(settings.partitions)
    topology.add(orders, Table("sales_by_category", sums, category_sums))
    return topology


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
