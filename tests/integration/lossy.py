"""The clicks topology in a worker that loses the first batch of each partition on the way to the engine."""

from typing import Any

from clicks import topology

from topologies.processor import EngineProcessor

_take = EngineProcessor.take
_lost: set[int] = set()


async def _take_all_but_the_first(self: EngineProcessor, app: Any, batch: Any) -> None:
    if batch.tp.partition in _lost:
        await _take(self, app, batch)
    _lost.add(batch.tp.partition)


EngineProcessor.take = _take_all_but_the_first  # type: ignore[method-assign]  # the loss that is to be mended

__all__ = ["topology"]
