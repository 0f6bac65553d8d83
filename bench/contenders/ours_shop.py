"""Ours: a worker of the behaviour or the recommendations topology with default settings, until nothing is left to do.

The clock stops when all source records, what was forwarded to the second stage, and the flush of all of it are done.
Results that are published beside the events have their share of the time, and go on for ever: how many waited is told.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.contenders.worker import run_worker
from bench.measure import Meter, Task, report, task_given
from bench.shop import SOURCES
from bench.stages import Functions, Stages
from streams.delivery import BatchApp, Consumer
from streams.log import TP, Record
from topologies.app import build_app
from topologies.behaviour import behaviour_topology
from topologies.processor import EngineProcessor
from topologies.recommendations import recommendations_topology
from topologies.settings import Settings

TOPOLOGIES = {"behaviour": behaviour_topology, "recommendations": recommendations_topology}
LOOK_S = 0.01


def settings_for(task: Task) -> Settings:
    """Defaults, but for where things are, under the names that the task's `topic` begins."""
    home = Path(task.state_dir)
    return Settings(cluster=task.cluster, home=home, state_dir=home, partitions=task.partitions, prefix=task.topic)


def build(task: Task) -> BatchApp:
    """The app, which reports once all is drained and durable."""
    settings = settings_for(task)
    app = build_app(TOPOLOGIES[task.variant](settings), settings)
    assert isinstance(app.processor, EngineProcessor)
    processor = app.processor
    engine = processor.engine
    stages, functions = Stages(), Functions()
    starts = {"stages": stages.start, "functions": functions.start}
    meter = Meter(task.warmup, task.total, starts.get(task.profile))
    if task.profile == "stages":
        stages.install(engine)
    apply = engine.apply
    counted_topics = {settings.prefix + topic.name for topic in SOURCES}
    ending: list[asyncio.Task[None]] = []

    def counted(tp: TP, records: Sequence[Record], base: int | None, generation: int) -> int:
        meter.before()
        if tp.topic not in counted_topics:
            return apply(tp, records, base, generation)
        applied = apply(tp, records, base, generation)
        if meter.after(applied):
            ending.append(asyncio.ensure_future(end()))
        return applied

    async def end() -> None:
        assert isinstance(app.consumer, Consumer)
        while not await _drained(processor):
            await asyncio.sleep(LOOK_S)
            await app.consumer.commit()
        stopped = meter.outcome()
        spent = stages.stop() if task.profile == "stages" else []
        most = functions.stop() if task.profile == "functions" else []
        waiting = processor.publishing.waiting
        report(msgspec.structs.replace(stopped, stages=spent, functions=most, waiting=waiting))

    engine.apply = counted  # type: ignore[method-assign]  # the one place that every batch goes through
    return app


async def _drained(processor: EngineProcessor) -> bool:
    """Whether everything that is in the source topics, second stages included, is durable."""
    feeds = [feed for partition in processor.engine.partitions.values() for feed in partition.feeds.values()]
    ends = await processor.log.end_offsets([feed.tp for feed in feeds])
    return all((feed.durable.position if feed.durable else 0) >= ends[feed.tp] for feed in feeds)


if __name__ == "__main__":
    run_worker(build(task_given()))
