"""The books of a shop at rest: what the database, the gateway and the topics have, and what customers were told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.customers import Tally
from streams.cluster import Cluster
from streams.kafka_log import KafkaLog
from streams.log import TP
from topologies.orders import schema
from topologies.orders.database import Database
from topologies.payments.local_gateway import Held, holdings

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Published:
    """A record as it is in a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    event_id: str
    event_type: str


@dataclass
class Books:
    """All that is written down anywhere. `at_first` is stock and points before the first order."""

    at_first: tuple[dict[int, int], dict[int, int]]
    stock: dict[int, int]
    points: dict[int, int]
    orders: dict[int, Row]
    lines: Sequence[Row]
    payments: dict[int, Row]
    outbox: Sequence[Row]
    gateway: Mapping[str, Held]
    tally: Tally
    published: list[Published] = field(default_factory=list)


async def stock_and_points(database: Database) -> tuple[dict[int, int], dict[int, int]]:
    """What there is of each product, and what each user has."""

    async def transaction(connection: AsyncConnection) -> tuple[dict[int, int], dict[int, int]]:
        pieces = await connection.execute(select(schema.products.c.id, schema.products.c.stock))
        points = await connection.execute(select(schema.users.c.id, schema.users.c.points))
        return {row.id: row.stock for row in pieces}, {row.id: row.points for row in points}

    return await database.read(transaction)


async def read_books(
    database: Database, gateway: Path, at_first: tuple[dict[int, int], dict[int, int]], tally: Tally
) -> Books:
    """The database's and the gateway's side of the books."""

    async def rows(table: Table) -> list[Row]:
        async def transaction(connection: AsyncConnection) -> list[Row]:
            found = await connection.execute(select(table).order_by(*table.primary_key.columns))
            return [dict(row._mapping) for row in found]

        return await database.read(transaction)

    stock, points = await stock_and_points(database)
    orders, payments = await rows(schema.orders), await rows(schema.payments)
    return Books(
        at_first,
        stock,
        points,
        {row["id"]: row for row in orders},
        await rows(schema.order_lines),
        {row["order_id"]: row for row in payments},
        await rows(schema.outbox),
        holdings(gateway),
        tally,
    )


async def read_topics(cluster: Cluster, topics: Sequence[str], partitions: int) -> list[Published]:
    """Every record of the topics, each partition's in its order."""
    log, found = KafkaLog(cluster), list[Published]()
    await log.start()
    try:
        tps = [TP(topic, partition) for topic in topics for partition in range(partitions)]
        begins, ends = await log.start_offsets(tps), await log.end_offsets(tps)
        async for tp, records in log.read({tp: (begins[tp], ends[tp]) for tp in tps}):
            for record in records:
                value = record.value or b"{}"
                told = orjson.loads(value)
                names = str(told.get("eventId")), str(told.get("eventType"))
                found.append(Published(tp.topic, tp.partition, record.offset, record.key or b"", value, *names))
    finally:
        await log.stop()
    return found
