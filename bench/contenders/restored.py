"""Ours: a worker's restore without any local state, with the worker's own log and settings of the collector."""

import asyncio
import time
from pathlib import Path

import msgspec

from bench.changelog import TABLE, digest
from bench.measure import Outcome, Task, report, task_given
from streams.kafka_log import KafkaLog
from streams.memory import spare_the_collector
from tables.recovery import restore
from tables.store import Store
from topologies.sales import sales_topology
from topologies.settings import Settings
from topologies.topology import Topology


def topology_for(task: Task) -> Topology:
    """The sales topology under the task's names."""
    home = Path(task.state_dir)
    return sales_topology(
        Settings(cluster=task.cluster, home=home, state_dir=home, partitions=task.partitions, prefix=task.group)
    )


async def restored(task: Task) -> Outcome:
    """Restore every partition, then hash what each holds. The clock covers opening the stores and all reading."""
    group, log = topology_for(task).group, KafkaLog(task.cluster)
    await log.start()
    try:
        spare_the_collector()
        wall, cpu = time.perf_counter(), time.process_time()
        found = await restore(group, range(task.partitions), Path(task.state_dir), log)
        seconds, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    finally:
        await log.stop()
    held = {_held(one.partition.store) for one in found}
    outcome = Outcome(sum(one.changelog_records for one in found), seconds, seconds, cpu_s)
    return msgspec.structs.replace(outcome, digest=" ".join(sorted(held)))


def _held(store: Store) -> str:
    try:
        return digest(store.scan(TABLE, b"", b"\xff" * 9))
    finally:
        store.close()


if __name__ == "__main__":
    report(asyncio.run(restored(task_given())))
