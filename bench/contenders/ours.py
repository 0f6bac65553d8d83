"""Ours: the worker as it is started by hand, with default settings, and a count of what its engine applies."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.contenders.worker import run_worker
from bench.measure import Meter, Task, report, task_given
from bench.stages import Functions, Stages
from bench.topologies import VARIANTS
from streams.delivery import BatchApp, Consumer
from streams.log import TP, Record
from topologies.app import build_app
from topologies.processor import EngineProcessor
from topologies.settings import Settings
from topologies.topology import Topology


def settings_for(task: Task) -> Settings:
    """Defaults, but for where things are."""
    return Settings(
        cluster=task.cluster, home=Path(task.state_dir), state_dir=Path(task.state_dir), partitions=task.partitions
    )


def topology_for(task: Task) -> Topology:
    """The topology of a task's variant."""
    return VARIANTS[task.variant](settings_for(task), task.group, task.topic)


def build(task: Task) -> BatchApp:
    """The app, which reports once the flush of the task's last record is durable."""
    app = build_app(topology_for(task), settings_for(task))
    assert isinstance(app.processor, EngineProcessor)
    engine = app.processor.engine
    stages, functions = Stages(), Functions()
    starts = {"stages": stages.start, "functions": functions.start}
    meter = Meter(task.warmup, task.total, starts.get(task.profile))
    if task.profile == "stages":
        stages.install(engine)
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
        spent = stages.stop() if task.profile == "stages" else []
        most = functions.stop() if task.profile == "functions" else []
        report(msgspec.structs.replace(stopped, positions=positions, stages=spent, functions=most))

    engine.apply = counted  # type: ignore[method-assign]  # the one place that every batch goes through
    return app


if __name__ == "__main__":
    run_worker(build(task_given()))
