"""All that a topology keeps and emits, beside the exact answers: changelogs, read models, finals, late events."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from streams.cluster import Cluster
from streams.kafka_log import KafkaLog
from streams.log import TP, Record
from streams.simulator.ledger import BY, Cell, Ledger
from streams.topics import Topic
from tables.reading import read_cells
from topologies.demo.client import Client
from topologies.demo.verify import Comparison, compare
from topologies.sales import SALES_PER_MINUTE, own_topic, sales_topology
from topologies.settings import Settings

Rows = dict[tuple[str, int], list[dict[str, Any]]]
FINAL = ("total", "category", "region")


async def read_topics(cluster: Cluster, topics: list[Topic]) -> dict[str, dict[int, list[Record]]]:
    """Every record of these topics, by topic and partition."""
    log = KafkaLog(cluster)
    await log.start()
    try:
        tps = [TP(topic.name, p) for topic in topics for p in range(topic.partitions)]
        starts, ends = await log.start_offsets(tps), await log.end_offsets(tps)
        found: dict[str, dict[int, list[Record]]] = {t.name: {p: [] for p in range(t.partitions)} for t in topics}
        async for tp, records in log.read({tp: (starts[tp], ends[tp]) for tp in tps}):
            found[tp.topic][tp.partition] += records
        return found
    finally:
        await log.stop()


@dataclass(frozen=True)
class Kept:
    """Of a ledger, the slices that start at `since` or later: those before may have expired."""

    ledger: Ledger
    since: int

    def cells(self, by: str) -> Mapping[tuple[int, str], Cell]:
        """As of the ledger."""
        return {at: cell for at, cell in self.ledger.cells(by).items() if at[0] >= self.since}


def compare_all(settings: Settings, ledger: Ledger, client: Client, *, kept_from: int = 0) -> dict[str, Comparison]:
    """Compare all that is there with the ledger; the names say what was looked at.

    Tables and views are compared from slices that start at `kept_from` (ms) on, final results all of them.
    """
    kept = Kept(ledger, kept_from)
    topology = sales_topology(settings)
    group = topology.group
    orders, finals = own_topic_of(settings)
    changelogs = {table.name: group.changelog(table) for table in group.tables}
    wanted = [*changelogs.values(), finals, orders.late]
    records = asyncio.run(read_topics(settings.cluster, wanted))
    rows: Rows = {}
    for table in group.tables:
        for (start, key), reading in read_cells(table, records[changelogs[table.name].name]).items():
            rows.setdefault((table.name, start), []).append({"key": key, "values": reading.results})
    slice_ms = settings.slice_s * 1000
    return {
        "changelogs": compare(kept, lambda table, start: rows.get((table, start), [])),
        "views": compare(kept, lambda table, start: client.rows(table, start, slice_ms)),
        "finals": _compare_finals(ledger, records[finals.name]),
        "late": _compare_late(ledger, records[orders.late.name]),
    }


def own_topic_of(settings: Settings) -> tuple[Topic, Topic]:
    """The orders and the finals of these settings."""
    source = next(iter(sales_topology(settings).sources.values()))
    return source.topic, replace(own_topic(SALES_PER_MINUTE, settings))


def _compare_finals(ledger: Ledger, records: Mapping[int, list[Record]]) -> Comparison:
    """Every final that was emitted, and one for each slice that all source partitions have closed."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    latest = {r.key: r.value for partition in records.values() for r in partition if r.key and r.value}
    for raw in latest.values():
        final = msgspec.json.decode(raw)
        if final["final"]:
            row = {"key": final["key"], "values": final}
            found.setdefault((final["table"], final["windowStart"]), []).append(row)
    marks = [s.watermark - ledger.grace_ms for s in ledger.sources]
    closed = min(mark - mark % ledger.slice_ms for mark in marks)
    part = Comparison()
    for by in FINAL:
        expected = {start for start, _ in ledger.cells(by) if start < closed}
        for table, start in sorted(found):
            if table == f"sales_by_{by}" and start not in expected:
                part.mismatches.append(f"{table} {start}: final, but not closed everywhere")
    only = compare(ledger, lambda table, start: found.get((table, start), []))
    open_slices = {str(start) for by in BY for start, _ in ledger.cells(by) if start >= closed}
    part.cells, part.values = only.cells, only.values
    for mismatch in only.mismatches:
        table, at = mismatch.split()[:2]
        if table != "sales_by_product" and at not in open_slices:
            part.mismatches.append(f"final {mismatch}")
    return part


def _compare_late(ledger: Ledger, records: Mapping[int, list[Record]]) -> Comparison:
    ids = {dict(r.headers)["id"] for partition in records.values() for r in partition}
    expected = sum(source.late for source in ledger.sources)
    wrong = [] if len(ids) == expected else [f"{len(ids)} late events went aside, must be {expected}"]
    return Comparison(1, 1, wrong)
