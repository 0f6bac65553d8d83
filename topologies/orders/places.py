"""Where events come to lie in Kafka, for those who wait for it: `POST /api/orders` answers with that.

A relay of this process tells at once. What others relay is found in the database: all that wait are asked for
together, so that a thousand customers who wait cost one query each 50 ms.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from streams.errors import MillraceError
from topologies.orders import outbox
from topologies.orders.database import Database
from topologies.orders.outbox import Place

LOOK_S: Final = 0.05


@dataclass
class Places:
    """Those who wait for the place of an event; its id is the key."""

    database: Database
    look_s: float = LOOK_S
    _waiting: "dict[str, set[asyncio.Future[Place]]]" = field(default_factory=dict)
    _looking: "asyncio.Task[None] | None" = None

    def tell(self, sent: Mapping[str, Place]) -> None:
        """Hear where events lie, as a relay's `sent` does."""
        for event_id in sent.keys() & self._waiting.keys():
            for future in self._waiting.pop(event_id):
                if not future.done():
                    future.set_result(sent[event_id])

    async def of(self, event_id: str, within_s: float) -> Place | None:
        """The place of an event whose transaction is committed; None if it is not known after so long."""
        future: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(event_id, set()).add(future)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(within_s):
                return await future
        except TimeoutError:
            return None
        finally:
            others = self._waiting.get(event_id, set())
            others.discard(future)
            if not others:
                self._waiting.pop(event_id, None)

    async def _look(self) -> None:
        """Ask the database while anybody waits; a database that is away is asked again."""
        await asyncio.sleep(self.look_s)
        while self._waiting:
            with suppress(MillraceError, SQLAlchemyError):
                self.tell(await self.database.read(self._found))
            await asyncio.sleep(self.look_s)

    async def _found(self, connection: AsyncConnection) -> dict[str, Place]:
        return await outbox.places(connection, list(self._waiting))
