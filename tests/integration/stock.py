"""A topology whose views answer from a copy of a derived topic, and from what is computed beside the server."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from streams.topics import Topic
from tables.aggregates import Count
from topologies.topology import Topology
from topologies.views import NotFound, Reader


class Delivery(Struct, frozen=True, rename="camel"):
    product: str


DELIVERIES = Topic("stock-deliveries", Delivery, partitions=2)
LEVELS = Topic("stock-levels", partitions=2, cleanup="compact", retention_s=None)
topology = Topology("stock").copy(LEVELS, time_of=lambda key, value: int(value))


@topology.table(DELIVERIES, deliveries=Count())
def deliveries_by_product(delivery: Delivery) -> Iterator[tuple[str, int]]:
    yield delivery.product, 1


@topology.view("/api/stock/{product}")
def level(reader: Reader, parameters: Mapping[str, str]) -> dict[str, Any]:
    found = reader.copies[LEVELS.name].get(parameters["product"].encode())
    if found is None:
        raise NotFound(f"nothing is known of {parameters['product']!r}")
    return {"level": int(found)}


@topology.background
async def highest(reader: Reader) -> None:
    while True:
        fresh = reader.freshness()
        reader.post("highest", [found.key.decode() for found in reader.copies[LEVELS.name].newest(1)], fresh)
        await asyncio.sleep(0.1)


@topology.view("/api/highest")
def highest_now(reader: Reader, parameters: Mapping[str, str]) -> dict[str, Any]:
    posted = reader.posted("highest", within_s=30)
    return {"highest": posted.value, "freshness": posted.freshness}
