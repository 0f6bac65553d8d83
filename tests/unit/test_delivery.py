"""What delivery does where Faust would end the worker."""

from typing import Any, cast

import pytest
from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP as FaustTP

from streams.delivery import Consumer
from streams.log import TP


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
