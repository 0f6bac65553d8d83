"""Ours: the worker as it is started by hand, with default settings, and a count of what its engine applies."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.contenders.worker import run_worker
from bench.measure import Meter, Task, report, task_given
from bench.topologies import VARIANTS
from streams.delivery import BatchApp, Consumer
from streams.log import TP, Record
from topologies.app import build_app
from topologies.settings import Settings
from topologies.topology import Topology


def settings_for(task: Task) -> Settings:
    """Defaults, but for where things are."""
    return Settings(
        cluster=task.cluster, home=task.state_dir, state_dir=task.state_dir, partitions=task.partitions
    )


def topology_for(task: Task) -> Topology:
    """The topology of a task's variant."""
    return VARIANTS[task.variant](settings_for(task), task.group, task.topic)


def build(task: Task) -> BatchApp:
    """The app, which reports once the flush of the task's last record is durable."""
    app = build_app(topology_for(task), settings_for(task))
    engine = app.processor.engine
    meter = Meter(task.warmup, task.total)
    apply = engine.apply
    ending: list[asyncio.Task[None]] = []

    def counted(tp: TP, records: Sequence[Record], base: int | None, generation: int) -> int:
        if tp.topic != task.topic:
            return apply(tp, records, base, generation)  # a second stage's own records
        meter.before()
        applied = apply(tp, records, base, generation)
        if meter.after(applied):
            ending.append(asyncio.ensure_future(end()))
        return applied

    async def end() -> None:
        assert isinstance(app.consumer, Consumer)
        await app.consumer.commit()
        stopped = meter.outcome()
        positions = {tp.partition: at for tp, at in engine.positions().items() if tp.topic == task.topic}
        report(msgspec.structs.replace(stopped, positions=positions))

    engine.apply = counted
    return app


if __name__ == "__main__":
    run_worker(build(task_given()))
