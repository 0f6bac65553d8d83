"""A topology whose versions are served without Kafka: they count as caught up, and take their time to be closed."""

import asyncio

from streams.errors import MillraceError
from topologies.sales import sales_topology
from topologies.settings import Settings
from topologies.topology import Topology
from topologies.views.reader import Reader

# Set: what is to be closed is closed at once.
LET_GO = asyncio.Event()
# How often `refused` was to be loaded.
TRIES: list[Settings] = []


def topology(settings: Settings) -> Topology:
    """The sales, and a background function that does not end before it may."""
    made = sales_topology(settings)

    @made.background
    async def holding(reader: Reader) -> None:
        reader.tracker.caught_up = True
        reader.post("holding", None, {})
        try:
            await asyncio.Event().wait()
        finally:
            await LET_GO.wait()

    return made


def refused(settings: Settings) -> Topology:
    """One that cannot be loaded."""
    TRIES.append(settings)
    raise MillraceError("not today")
