"""Plain Faust's worker without any local state: a windowed table on RocksDB, back from its changelog."""

import time

import faust
import msgspec

from bench.contenders.worker import run_worker
from bench.measure import Outcome, Task, report, task_given

MINUTE_S = 60.0
KEPT_S = 2 * 86_400.0
TABLE = "sales"


def build(task: Task) -> faust.App:
    """The app: it reports when its table is back. The clock covers what comes after the partitions are assigned."""
    app = faust.App(
        task.group,
        broker=f"kafka://{task.bootstrap}",
        store="rocksdb://",
        datadir=task.state_dir,
        topic_partitions=task.partitions,
        topic_replication_factor=1,
        web_enabled=False,
    )
    orders = app.topic(task.topic, key_type=bytes, value_type=bytes)
    sales = app.Table(TABLE, default=dict).tumbling(MINUTE_S, expires=KEPT_S).relative_to_stream()
    began: list[tuple[float, float]] = []

    @app.agent(orders)
    async def add_up(stream: faust.StreamT[bytes]) -> None:
        async for _ in stream:
            sales["never"] += 1  # nothing comes: an agent makes it own the table's partitions

    @app.on_partitions_assigned.connect
    async def assigned(*_: object, **__: object) -> None:
        began.append((time.perf_counter(), time.process_time()))

    async def back() -> None:
        wall, cpu = began[-1]
        seconds, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
        rows = [row["placed"] for row in sales.table.values()]
        outcome = Outcome(task.events, seconds, seconds, cpu_s)
        report(msgspec.structs.replace(outcome, digest=f"{len(rows)}-{sum(rows)}"))

    sales.table.on_recover(back)
    return app


if __name__ == "__main__":
    run_worker(build(task_given()))
