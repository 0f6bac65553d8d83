"""Whether a contender's sums are right: compared with those of the orders that it has read, cell by cell."""

import asyncio
from collections.abc import Iterable, Mapping

from bench.measure import Outcome
from bench.orders import Cells, Order, Truth, before, truth
from streams.cluster import Cluster
from streams.kafka_log import KafkaLog
from streams.log import TP, Record
from tables.reading import read_cells
from tables.table import Table
from topologies.topology import Topology


def sums_are_right(outcome: Outcome, orders: Iterable[Order]) -> bool:
    """Whether what a contender says it has added up is the revenue of the orders below its positions."""
    right = truth(before(orders, outcome.positions)).category
    found: dict[tuple[int, str], int] = {}
    for one in outcome.sums:
        found[one.minute, one.key] = found.get((one.minute, one.key), 0) + one.revenue
    return found == {cell: revenue for cell, (revenue, _, _) in right.items()}


def wrong_cells(tables: Mapping[str, Cells], right: Truth) -> int:
    """How many cells of tables named `sales_by_<grouping>` differ from the truth, are missing or too many."""
    wrong = 0
    for name, cells in tables.items():
        expected: Cells = getattr(right, name.removeprefix("sales_by_"))
        wrong += sum(cells.get(cell) != expected.get(cell) for cell in cells.keys() | expected.keys())
    return wrong


def changelog_cells(cluster: Cluster, topology: Topology) -> dict[str, Cells]:
    """Revenue, orders and units of every cell of a topology's first-stage tables, read from their changelogs."""
    return asyncio.run(_read_tables(cluster, topology))


async def _read_tables(cluster: Cluster, topology: Topology) -> dict[str, Cells]:
    log = KafkaLog(cluster)
    await log.start()
    try:
        tables = [table for source in topology.sources.values() for table in source.tables]
        return {table.name: await _read(log, topology, table) for table in tables}
    finally:
        await log.stop()


async def _read(log: KafkaLog, topology: Topology, table: Table) -> Cells:
    topic = topology.group.changelog(table)
    tps = [TP(topic.name, number) for number in range(topic.partitions)]
    starts, ends = await log.start_offsets(tps), await log.end_offsets(tps)
    records: dict[int, list[Record]] = {}
    async for tp, found in log.read({tp: (starts[tp], ends[tp]) for tp in tps}):
        records.setdefault(tp.partition, []).extend(found)
    readings = read_cells(table, records).items()
    return {cell: [r.results[name] for name in ("placed", "orders", "units")] for cell, r in readings}
