"""How fast an empty worker comes back from a changelog: records a second into RocksDB, stamps compared."""

import asyncio
import time
from pathlib import Path
from typing import Any

from streams.cluster import Cluster
from streams.kafka_log import KafkaLog
from streams.log import TP, Entry
from streams.topics import ensure_topics
from tables.accumulators import EVENTS, FIRST, STAMP, STATES, encode_key
from tables.progress import Progress
from tables.recovery import restore
from tables.table import Group
from topologies.sales import sales_topology
from topologies.settings import Settings

SLICE_MS = 60_000
KEYS = 1_000
CHUNK = 50_000


async def measure(settings: Settings, directory: Path, records: int) -> dict[str, Any]:
    """Fill the product table's changelog with `records`, each key written about twice, and restore it whole."""
    topology = sales_topology(settings)
    await asyncio.to_thread(ensure_topics, settings.cluster, topology.topics())
    log = KafkaLog(settings.cluster)
    await log.start()
    try:
        await fill(topology.group, log, records)
        started = time.perf_counter()
        restored = await restore(topology.group, range(settings.partitions), directory, log)
        seconds = time.perf_counter() - started
        count = sum(r.changelog_records for r in restored)
        for found in restored:
            found.partition.store.close()
    finally:
        await log.stop()
    return {"records": count, "seconds": round(seconds, 3), "records_per_s": round(count / seconds)}


async def fill(group: Group, log: KafkaLog, records: int) -> None:
    """Write what a day of flushes would: cells of many minutes and products, and a progress that covers them."""
    table = next(table for table in group.tables if table.name == "sales_by_product")
    changelog = group.changelog(table)
    each = records // changelog.partitions
    for number in range(changelog.partitions):
        tp = TP(changelog.name, number)
        for start in range(0, each, CHUNK):
            entries = [_entry(table, i // 2, i) for i in range(start, min(start + CHUNK, each))]
            await log.append({tp: entries})
        source = group.source_of(table.name).topic.name
        progress = Progress(source, number, 0, SLICE_MS * (each // 2 // KEYS + 2), ends={table.name: each})
        await log.append({TP(group.progress.name, number): [progress.entry()]})


def _entry(table: Any, cell_number: int, stamp: int) -> Entry:
    cell = table.row.new_cell()
    cell[STAMP], cell[FIRST], cell[EVENTS] = stamp, cell_number, 2
    cell[STATES:] = [cell_number * 1_000, 0, 0, 3, 5]
    window, key = cell_number // KEYS * SLICE_MS, str(cell_number % KEYS)
    return Entry(encode_key(window, key), table.row.encode(cell, 0))


def run(cluster: Cluster, home: Path, directory: Path, records: int) -> dict[str, Any]:
    """Measure on a cluster; topics are named `restore-...`."""
    settings = Settings.from_environment(cluster=cluster, home=home, state_dir=directory, prefix="restore-")
    return asyncio.run(measure(settings, directory, records))
