"""What has to be published, written by the transaction that it tells of.

    async def transaction(connection):
        ...                                               # the order is in
        await post(connection, [Post(topic, placed)])     # and so is its event, or neither is

A row is the record as Kafka will have it: topic, key and the very bytes of its value. A relay sends the rows that have
no offset yet, by id, and notes where they came to lie; it deletes them when nobody needs to know any more.

Rows are dealt to shards by user, so that each user's are one relay's work at a time. Within a user, ids ascend in the
order in which transactions commit, as each begins with a lock on the user's row. Between users they do not: 7 may be
committed after 8 was sent. So a relay asks for what is unsent, never for what comes after an id.
"""

import time
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sqlalchemy import case, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from streams.codecs import encode, user_key
from streams.errors import MillraceError
from streams.events import OrderEvent, PaymentNotification
from topologies.orders.schema import SHARDS, outbox

# A column of bytes holds 64 KiB on MySQL, and less than a broker takes of a record.
VALUE_BYTES: Final = 65_535
NEW_ROW: Final = insert(outbox)


def now_ms() -> int:
    """The time, in ms since the epoch."""
    return time.time_ns() // 1_000_000


def shard_of(user_id: int) -> int:
    """Which shard a user's rows are in: the same for ever, as rows of one user in two shards could overtake each other.

    >>> shard_of(123), shard_of(124)
    (6, 5)
    """
    return zlib.crc32(user_key(user_id)) % SHARDS


@dataclass(frozen=True)
class Post:
    """An event of one order to be published; its `event_id` is its own, so that a repeat is known as one."""

    topic: str
    event: OrderEvent | PaymentNotification
    at_ms: int = field(default_factory=now_ms)

    def __post_init__(self) -> None:
        """Raise ValueError for an event that nobody could tell from its repeat, or that is of nobody's order."""
        if self.event.event_id is None:
            raise ValueError(f"an event of {self.topic!r} without an event_id cannot be posted")
        if not isinstance(self.event.order_id, int) or not isinstance(self.event.user_id, int):
            raise ValueError(f"order and user of {self.event.event_id!r} are not numbers")


class Place(NamedTuple):
    """Where a record lies in Kafka. As text it is what `?after=` of the views takes."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"


class Row(NamedTuple):
    """One row that waits."""

    id: int
    shard: int
    topic: str
    key: bytes
    value: bytes
    event_id: str
    created_at_ms: int


@dataclass(frozen=True)
class Waiting:
    """How many rows wait to be sent, and how old the oldest is."""

    rows: int
    oldest_s: float


async def post(connection: AsyncConnection, posts: Sequence[Post]) -> None:
    """Add rows to the transaction; ids rise in the order given. Raises MillraceError for an event that is too large."""
    if posts:
        await connection.execute(NEW_ROW, [_values(one) for one in posts])


def _values(one: Post) -> dict[str, object]:
    event = one.event
    value, user_id = encode(event), event.user_id
    if len(value) > VALUE_BYTES:
        raise MillraceError(f"event {event.event_id} has {len(value):,} bytes, more than {VALUE_BYTES:,}: fewer lines")
    assert isinstance(user_id, int)
    return {
        "shard": shard_of(user_id),
        "topic": one.topic,
        "record_key": user_key(user_id),
        "value": value,
        "event_id": event.event_id,
        "created_at_ms": one.at_ms,
        "order_id": event.order_id,
    }


async def unsent(
    connection: AsyncConnection, shards: Iterable[int], limit: int, without: Collection[str] = ()
) -> list[Row]:
    """The rows of these shards that wait, by id, at most so many; those for the topics `without` are left out."""
    columns = outbox.c
    wanted = (
        select(
            columns.id,
            columns.shard,
            columns.topic,
            columns.record_key,
            columns.value,
            columns.event_id,
            columns.created_at_ms,
        )
        .where(columns.shard.in_(sorted(shards)), columns.sent_offset.is_(None))
        .order_by(columns.id)
        .limit(limit)
    )
    if without:
        wanted = wanted.where(columns.topic.not_in(sorted(without)))
    return [Row(*found) for found in await connection.execute(wanted)]


async def mark(connection: AsyncConnection, sent: Mapping[int, Place]) -> int:
    """Note where rows lie, by id; returns how many had no place yet. A place that is known stays as it is."""
    if not sent:
        return 0
    partitions = {row: place.partition for row, place in sent.items()}
    offsets = {row: place.offset for row, place in sent.items()}
    noted = await connection.execute(
        update(outbox)
        .where(outbox.c.id.in_(list(sent)), outbox.c.sent_offset.is_(None))
        .values(
            sent_partition=case(partitions, value=outbox.c.id),
            sent_offset=case(offsets, value=outbox.c.id),
        )
    )
    return noted.rowcount


async def places(connection: AsyncConnection, event_ids: Collection[str]) -> dict[str, Place]:
    """Where events lie, by their ids; without those of which that is not known, or not any more."""
    columns = outbox.c
    wanted = select(columns.event_id, columns.topic, columns.sent_partition, columns.sent_offset).where(
        columns.event_id.in_(event_ids), columns.sent_offset.is_not(None)
    )
    return {
        row.event_id: Place(row.topic, row.sent_partition, row.sent_offset) for row in await connection.execute(wanted)
    }


async def waiting(connection: AsyncConnection) -> Waiting:
    """How much waits to be sent, of all shards."""
    columns = outbox.c
    wanted = select(func.count(), func.min(columns.created_at_ms)).where(
        columns.shard.in_(range(SHARDS)), columns.sent_offset.is_(None)
    )
    rows, oldest_ms = (await connection.execute(wanted)).one()
    return Waiting(rows, 0.0 if oldest_ms is None else max(0.0, (now_ms() - oldest_ms) / 1000))


async def old(connection: AsyncConnection, shards: Collection[int], before_ms: int, limit: int) -> list[int]:
    """Ids of rows that were sent and are older than a time, of these shards; looked for among the oldest so many."""
    columns = outbox.c
    oldest = select(columns.id, columns.shard, columns.created_at_ms, columns.sent_offset).order_by(columns.id)
    rows = (await connection.execute(oldest.limit(limit))).all() if shards else []
    sent = (row for row in rows if row.sent_offset is not None and row.shard in shards)
    return [row.id for row in sent if row.created_at_ms < before_ms]


async def forget(connection: AsyncConnection, rows: Sequence[int]) -> int:
    """Delete rows by id; returns how many there were."""
    return (await connection.execute(delete(outbox).where(outbox.c.id.in_(rows)))).rowcount
