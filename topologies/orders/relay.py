"""The relay: what the outbox holds gets into Kafka, in order per user, whatever dies meanwhile.

    leases -> rows without a place, by id -> Kafka, all acknowledged -> their places are noted -> the next rows

- **At least once.** A row is noted as sent after Kafka has it. A relay that dies in between leaves rows that are sent
  again by the next one, with the same event ids; a database that is away when they are to be noted is waited for.
- **In order.** Rows are sent by id, one batch after the other, and those of a user and topic each after the one before
  is acknowledged. Any relay that sends a row has sent, or found sent, the rows of the same user and topic before it: so
  the first time that an event is in the log, those before it are, also when two relays work on one shard for a while.
- **Topic by topic.** Where the cluster refuses one (no such topic, no right to it, a record too large), its rows are
  left out for a while and then tried again; the relay says so, and is not ready. The other topic's rows go on.
- **One at a time.** A relay works on the shards whose leases it holds (`topologies.orders.leases`), the others look
  for leases that are free.

It runs beside the order API, or alone (`millrace relay`). It is rung when this process has committed something, and
looks by itself every `poll_s` for what others have.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from streams.consuming import Backoff, waited
from streams.errors import MillraceError, in_one_line
from topologies.orders import outbox
from topologies.orders.database import Database
from topologies.orders.leases import Leases
from topologies.orders.outbox import Place, Row, now_ms
from topologies.orders.sending import NotSent, Sender

logger = logging.getLogger(__name__)

BATCH: Final = 500
POLL_S: Final = 0.1
# A try may take ten seconds (`topologies.orders.sending`), in which nothing else goes out.
REFUSED_S: Final = 30.0
SLOW_S: Final = 5.0
FORGET_EVERY_S: Final = 5.0
FORGET_ROWS: Final = 2_000
SAID: Final = 500
DAY_S: Final = 86_400.0

Told = Callable[[dict[str, Place]], None]


@dataclass
class Figures:
    """What a relay has done and how it fares, for metrics and tests."""

    published: int = 0
    batches: int = 0
    forgotten: int = 0
    waiting: int = 0  # rows: of the last look, all of them while this relay stands by or is in trouble
    oldest_s: float = 0.0
    shards: frozenset[int] = frozenset()
    connected: bool = False  # whether the last batch, or look at the database, went well


@dataclass
class Relay:
    """Relays until it is stopped. `keep_s`: how long rows that were sent are kept, for those who ask for their place.

    Rows for a topic that the cluster refuses are left out for `refused_s`, while those for others go out.
    `sent` hears of each event's place as soon as Kafka has it.
    """

    database: Database
    sender: Sender
    leases: Leases = field(default_factory=Leases)
    keep_s: float = DAY_S
    poll_s: float = POLL_S
    refused_s: float = REFUSED_S
    batch: int = BATCH
    sent: Told = lambda _: None
    tell: Callable[[str], None] = logger.info
    figures: Figures = field(default_factory=Figures)
    _rung: asyncio.Event = field(default_factory=asyncio.Event)
    _troubled: bool = False
    _sending_since: float | None = None
    _refused: dict[str, float] = field(default_factory=dict)  # topic: left out until then

    def ring(self) -> None:
        """Something was committed: look at once."""
        self._rung.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set; then give the leases back. What database and cluster refuse is tried again."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.sender.open())
                group.create_task(self._steadily(self._keep_leases, stop))
                group.create_task(self._steadily(self._relay, stop))
                group.create_task(self._steadily(self._forget, stop))
            if self.leases.held:  # else they lapse by themselves, and a database that is away is not waited for
                with suppress(MillraceError, SQLAlchemyError):
                    await self.database.write(self.leases.give_back)
        finally:
            self.sender.close()

    async def _steadily(self, work: Callable[[asyncio.Event], Coroutine[Any, Any, None]], stop: asyncio.Event) -> None:
        """Do it until `stop` is set, and wait a little where database or cluster are away."""
        backoff, tries = Backoff(0.1, 5.0), 0
        while not stop.is_set():
            try:
                await work(stop)
            except (MillraceError, NotSent, SQLAlchemyError) as error:
                tries += 1
                self._trouble(in_one_line(error)[:SAID])
                await waited(stop, backoff.after(tries))
            else:
                tries = 0

    def _trouble(self, what: str) -> None:
        if not self._troubled:
            self.tell(f"relay: {what}; it goes on when that is over")
        self._troubled, self.figures.connected = True, False

    def _well(self) -> None:
        if self._troubled:
            self.tell("relay: goes on")
        self._troubled, self.figures.connected = False, True

    async def _keep_leases(self, stop: asyncio.Event) -> None:
        kept = await self.database.write(self.leases.keep)
        if self.leases.kept(kept):
            self.tell(f"relay: has shards {sorted(kept.held)}" if kept.held else "relay: stands by")
            self.ring()
        self.figures.shards = self.leases.held
        if self._sending_since is not None and time.monotonic() > self._sending_since + SLOW_S:
            self._trouble(f"Kafka has not taken {self.figures.waiting} rows in {SLOW_S:g} s")
        if not self.figures.shards:
            self._refused = {}
            self._well()  # standing by is all that it has to do
        if not self.figures.shards or self._troubled:
            found = await self.database.read(outbox.waiting)
            self.figures.waiting, self.figures.oldest_s = found.rows, found.oldest_s
        await waited(stop, self.leases.lease_s / 6)

    async def _relay(self, stop: asyncio.Event) -> None:
        """Send and note rows while there are any, then wait for more."""
        self._rung.clear()
        if await self._batch(stop) < self.batch:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.poll_s):
                    await self._rung.wait()

    async def _batch(self, stop: asyncio.Event) -> int:
        shards = self.leases.held
        if not shards:
            return 0
        refused = self._refused = {topic: until for topic, until in self._refused.items() if until > time.monotonic()}
        rows = await self.database.read(lambda connection: outbox.unsent(connection, shards, self.batch, refused))
        if not refused:
            self._measure(rows)
        if rows:
            try:
                places = await self._send(rows, stop)
            except NotSent as failed:
                if failed.refused is not None:
                    self._refused[failed.refused] = time.monotonic() + self.refused_s
                await self._took(rows, failed.sent, stop)
                raise
            await self._took(rows, places, stop)
        if not refused:
            self._well()
        return len(rows)

    async def _send(self, rows: Sequence[Row], stop: asyncio.Event) -> dict[int, Place]:
        self._sending_since = time.monotonic()
        try:
            return await self.sender.send(rows, stop)
        finally:
            self._sending_since = None

    async def _took(self, rows: Sequence[Row], places: dict[int, Place], stop: asyncio.Event) -> None:
        """Tell and note where the rows lie that Kafka has taken."""
        self.sent({row.event_id: places[row.id] for row in rows if row.id in places})
        await self._note(places, stop)
        self.figures.published += len(places)
        self.figures.batches += 1

    def _measure(self, rows: Sequence[Row]) -> None:
        self.figures.waiting = len(rows)
        self.figures.oldest_s = max(0.0, (now_ms() - rows[0].created_at_ms) / 1000) if rows else 0.0

    async def _note(self, places: dict[int, Place], stop: asyncio.Event) -> None:
        """Note where rows lie; until that is done nothing else is sent, as these would be sent again with it."""
        backoff, tries = Backoff(0.05, 2.0), 0
        while True:
            try:
                await self.database.write(lambda connection: outbox.mark(connection, places))
                return
            except (MillraceError, SQLAlchemyError) as error:
                tries += 1
                if tries == 1:
                    self.tell(f"relay: {in_one_line(error)[:SAID]}; {len(places)} rows that are sent wait to be noted")
                if await waited(stop, backoff.after(tries)):
                    return

    async def _forget(self, stop: asyncio.Event) -> None:
        before_ms, shards = now_ms() - round(self.keep_s * 1000), self.leases.held
        old = await self.database.read(lambda connection: outbox.old(connection, shards, before_ms, FORGET_ROWS))
        if old:
            self.figures.forgotten += await self.database.write(lambda connection: outbox.forget(connection, old))
        else:
            await waited(stop, min(FORGET_EVERY_S, max(0.1, self.keep_s)))
