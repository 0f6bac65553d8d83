"""Plain Faust as its documentation teaches it: a record type, a windowed table on RocksDB, an agent for each event."""

from typing import Any

import faust
import msgspec

from bench.contenders.worker import run_worker
from bench.measure import Meter, Sum, Task, report, task_given

MINUTE_S = 60.0
KEPT_S = 2 * 86_400.0


class Line(faust.Record):
    """One line of an order."""

    category: str
    quantity: int
    price: int


class Order(faust.Record):
    """An order, as far as the agent needs it."""

    orderId: int
    items: list[Line]


def build(task: Task) -> faust.App:
    """The app: it reports after the task's last event."""
    app = faust.App(
        task.group,
        broker=f"kafka://{task.bootstrap}",
        store="rocksdb://",
        datadir=task.state_dir,
        topic_partitions=task.partitions,
        topic_replication_factor=1,
        web_enabled=False,
    )
    orders = app.topic(task.topic, key_type=bytes, value_type=Order)
    sales = app.Table("sales", default=int).tumbling(MINUTE_S, expires=KEPT_S).relative_to_stream()
    meter = Meter(task.warmup, task.total)
    positions: dict[int, int] = {}

    @app.agent(orders)
    async def add_up(stream: faust.StreamT[Order]) -> None:
        async for event in stream.events():
            meter.before()
            for line in event.value.items:
                sales[line.category] += line.price * line.quantity
            positions[event.message.partition] = event.message.offset + 1
            if meter.after(1):
                stopped = meter.outcome()
                report(msgspec.structs.replace(stopped, positions=dict(positions), sums=_sums(sales)))

    return app


def _sums(sales: Any) -> list[Sum]:
    # a category has one value in each partition's store
    return [Sum(round(window[0] * 1000), category, revenue) for (category, window), revenue in sales.table.items()]


if __name__ == "__main__":
    run_worker(build(task_given()))
