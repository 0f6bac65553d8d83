"""An outbox in SQLite, a log in memory that takes what it is sent, and relays between the two that die as told."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from streams.events import OrderEvent
from streams.partitioners import key_hash
from topologies.orders.database import Database, database_url
from topologies.orders.leases import Leases
from topologies.orders.migrating import migrate
from topologies.orders.outbox import Place, Post, Row, post
from topologies.orders.relay import Relay
from topologies.orders.schema import outbox
from topologies.orders.sending import NotSent

TOPIC = "order-events"
PARTITIONS = 4
LIMIT_S = 20.0


@dataclass
class MemorySender:
    """A log shared by all relays. `before` is asked before each record, and may raise or wait.

    The topics `refused` are refused, `tried` counts how often.
    """

    log: list[list[tuple[bytes, str]]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    before: Callable[[Row], None] = lambda _: None
    delay_s: float = 0.0
    refused: set[str] = field(default_factory=set)
    tried: int = 0

    async def open(self) -> None: ...

    async def send(self, rows: Sequence[Row], stop: asyncio.Event) -> dict[int, Place]:
        sent: dict[int, Place] = {}
        for row in rows:
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            self.before(row)
            if row.topic in self.refused:
                continue
            partition = key_hash(row.key, PARTITIONS)
            sent[row.id] = Place(row.topic, partition, len(self.log[partition]))
            self.log[partition].append((row.key, row.event_id))
        if here := self.refused & {row.topic for row in rows}:
            self.tried += 1
            raise NotSent("refused", sent, min(here))
        return sent

    def close(self) -> None:
        pass

    def first_times(self, key: bytes) -> list[str]:
        """The events of a user in the order in which they are first in the log."""
        found = [event for partition in self.log for user, event in partition if user == key]
        return list(dict.fromkeys(found))

    @property
    def events(self) -> list[str]:
        return [event for partition in self.log for _, event in partition]


class Died(Exception):
    """A process ended: nothing of it goes on, nothing is tidied up."""


@dataclass
class Stumbling:
    """Raises one of these errors each few records, with a seed."""

    chance: random.Random
    errors: tuple[type[Exception], ...]
    one_in: int = 12

    def __call__(self, row: Row) -> None:
        if self.chance.randrange(self.one_in) == 0:
            raise self.chance.choice(self.errors)(f"at {row.event_id}")


@asynccontextmanager
async def shop_database(directory: Path) -> AsyncIterator[Database]:
    url = database_url(f"sqlite:///{directory}/orders.db", {}, directory)
    async with Database.open(url) as database:
        await migrate(database)
        yield database


def event(user_id: int, number: int) -> OrderEvent:
    return OrderEvent(number, user_id, 100, event_id=f"order-{number}-placed", occurred_at=number)


async def commit(database: Database, *events: OrderEvent, topic: str = TOPIC) -> None:
    async def transaction(connection: AsyncConnection) -> None:
        await post(connection, [Post(topic, one) for one in events])

    await database.write(transaction)


async def rows(database: Database) -> list[tuple[int, str, bytes, int | None, int | None]]:
    """Id, event, key, and where it was sent, of every row."""
    columns = outbox.c
    wanted = select(columns.id, columns.event_id, columns.record_key, columns.sent_partition, columns.sent_offset)

    async def transaction(connection: AsyncConnection) -> list[tuple[int, str, bytes, int | None, int | None]]:
        return [tuple(row) for row in await connection.execute(wanted.order_by(columns.id))]

    return await database.read(transaction)


async def left(database: Database) -> int:
    """How many rows are not noted as sent."""

    async def transaction(connection: AsyncConnection) -> int:
        wanted = select(func.count()).select_from(outbox).where(outbox.c.sent_offset.is_(None))
        return int(await connection.scalar(wanted) or 0)

    return await database.read(transaction)


async def until(holds: Callable[[], bool]) -> None:
    """Return once it is so; fails after a while."""
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.005)


async def until_all_sent(database: Database) -> None:
    async with asyncio.timeout(LIMIT_S):
        while await left(database):
            await asyncio.sleep(0.01)


@dataclass
class Mortal:
    """A database as one process sees it until that is killed: what it asked for is done, nothing more is asked."""

    database: Database
    dead: bool = False
    asked: "set[asyncio.Future[Any]]" = field(default_factory=set)

    async def read(self, transaction: Any) -> Any:
        return await self._asked(self.database.read(transaction))

    async def write(self, transaction: Any) -> Any:
        return await self._asked(self.database.write(transaction))

    async def _asked(self, asking: Coroutine[Any, Any, Any]) -> Any:
        if self.dead:
            asking.close()
            raise Died
        task = asyncio.ensure_future(asking)
        self.asked.add(task)
        task.add_done_callback(self.asked.discard)
        return await asyncio.shield(task)


@dataclass
class Running:
    """A relay at work in this process."""

    relay: Relay
    task: "asyncio.Task[None]"
    stop: asyncio.Event
    database: Mortal

    async def end(self) -> None:
        self.stop.set()
        await self.task

    async def kill(self) -> None:
        """End it as `kill -9` does: its leases stay as they are."""
        self.database.dead = True
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await asyncio.gather(*self.database.asked, return_exceptions=True)


def start(database: Database, sender: MemorySender, owner: str, *, lease_s: float = 0.3, batch: int = 20) -> Running:
    leases = Leases(owner=owner, lease_s=lease_s, gone=lambda _: False)
    mortal = Mortal(database)
    relay = Relay(cast(Database, mortal), sender, leases, poll_s=0.01, batch=batch)
    stop = asyncio.Event()
    return Running(relay, asyncio.create_task(relay.run(stop)), stop, mortal)


@asynccontextmanager
async def relaying(database: Database, sender: MemorySender, owner: str = "a", **more: float) -> AsyncIterator[Relay]:
    running = start(database, sender, owner, **more)  # type: ignore[arg-type]
    try:
        yield running.relay
    finally:
        await running.end()


def assert_first_times_in_order(
    sent: MemorySender, found: list[tuple[int, str, bytes, int | None, int | None]]
) -> None:
    """Each user's events came into the log in the order of their ids, whatever came again."""
    for key in {key for _, _, key, _, _ in found}:
        assert sent.first_times(key) == [event for _, event, user, _, _ in found if user == key]
