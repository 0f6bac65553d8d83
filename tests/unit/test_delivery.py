"""What delivery does where Faust would end the worker."""

from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP as FaustTP

from streams.delivery import Consumer
from streams.log import TP
from topologies.app import build_app
from topologies.processor import EngineProcessor
from topologies.sales import sales_topology
from topologies.settings import Settings


class Lost(Consumer):
    """A consumer whose partition goes to another worker while it seeks."""

    def __init__(self) -> None:
        self._delivered = {}
        self._read_offset = {}
        self.app = cast(Any, self)
        self.processor = cast(Any, self)
        self.sought: list[Any] = []

    def positions(self) -> dict[TP, int]:
        return {TP("orders", 1): 7}

    def assignment(self) -> set[FaustTP]:
        return {FaustTP("orders", 1)}

    async def seek_wait(self, partitions: Any) -> None:
        self.sought += partitions.items()
        raise IllegalStateError("No current assignment for partition orders[1]")


async def test_a_partition_lost_in_the_middle_of_a_seek_does_not_end_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lost(_: Any) -> None:
        raise IllegalStateError("No current assignment for partition orders[1]")

    monkeypatch.setattr(driver.Consumer, "perform_seek", lost)
    consumer = Lost()
    await consumer.perform_seek()
    assert [tuple(tp) for tp, _ in consumer.sought] == [("orders", 1)]


class Noting(EngineProcessor):
    """A processor that notes how it ends."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.heard: list[str] = []

    async def release(self) -> None:
        self.heard.append("release")
        await super().release()

    async def stop(self) -> None:
        self.heard.append("stop")
        await super().stop()


async def test_a_worker_that_ends_before_its_consumer_has_begun_lets_go_of_everything(tmp_path: Path) -> None:
    settings = Settings.from_environment({"MILLRACE_BOOTSTRAP": "kafka:9092", "MILLRACE_HOME": f"{tmp_path}"})
    topology = sales_topology(settings)
    app = build_app(topology, settings)
    app.processor = noting = Noting(topology, settings.cluster, settings.state_dir)
    consumer = cast(Consumer, app.consumer)
    try:
        await consumer.stop()
    finally:
        consumer._thread.thread_loop.close()  # a thread that has run closes its own
    assert noting.heard == ["release", "stop"]
