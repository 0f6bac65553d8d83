"""The shop as the API asks it: each command one transaction, then where its event came to lie."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from streams.topics import ORDER_EVENTS
from topologies.orders import outbox
from topologies.orders.api.bodies import Points, Product, Products
from topologies.orders.database import Database
from topologies.orders.order import Order, event_id
from topologies.orders.places import Places
from topologies.orders.placing import Counter, Placed, Placing
from topologies.orders.refusals import UnknownOrder, UnknownUser, WrongStatus
from topologies.orders.schema import OrderStatus, products, users
from topologies.orders.transitions import Transitions, find_order
from topologies.sales import own_topic
from topologies.settings import Settings

BY_CUSTOMER: Final = "by the customer"


@dataclass(frozen=True)
class Shop:
    """What can be asked of the command side.

    `committed` is told of each transaction that has something to publish; `publish_wait_s` is how long an answer waits
    for the place of its event.
    """

    database: Database
    counter: Counter
    transitions: Transitions
    places: Places
    publish_wait_s: float
    committed: Callable[[], None] = lambda: None

    @classmethod
    def of(
        cls, settings: Settings, database: Database, publish_wait_s: float, committed: Callable[[], None] = lambda: None
    ) -> "Shop":
        """The shop of these settings."""
        topic = own_topic(ORDER_EVENTS, settings).name
        counter = Counter(topic, settings.currency)
        return cls(database, counter, Transitions(topic), Places(database), publish_wait_s, committed)

    async def place(self, command: Placing) -> Placed:
        """Take an order. Raises what `Counter.place` does, Busy, DatabaseUnreachable."""
        placed = await self.database.write(lambda connection: self.counter.place(connection, command))
        return replace(placed, order=await self._published(placed.order))

    async def order(self, order_id: int, user_id: int | None) -> Order:
        """An order, of this user if one is given. Raises UnknownOrder."""

        async def transaction(connection: AsyncConnection) -> Order:
            order = await _of_user(connection, order_id, user_id)
            steps = await outbox.places(connection, [event_id(order_id, status) for status in OrderStatus])
            newest = max(steps.values(), key=lambda place: place.offset, default=None)
            return msgspec.structs.replace(order, after=None if newest is None else str(newest))

        return await self.database.read(transaction)

    async def cancel(self, order_id: int, user_id: int | None) -> Order:
        """Cancel an order that is not paid yet; one that is cancelled stays so. Raises UnknownOrder, WrongStatus."""

        async def transaction(connection: AsyncConnection) -> Order:
            await _of_user(connection, order_id, user_id)
            moved = await self.transitions.cancel(connection, order_id, BY_CUSTOMER)
            return moved or await _already(connection, order_id, OrderStatus.CANCELLED, OrderStatus.PLACED)

        return await self._published(await self.database.write(transaction))

    async def refund(self, order_id: int, user_id: int | None) -> Order:
        """Give back an order that is paid; one that is refunded stays so. Raises UnknownOrder, WrongStatus."""

        async def transaction(connection: AsyncConnection) -> Order:
            await _of_user(connection, order_id, user_id)
            moved = await self.transitions.refund(connection, order_id, BY_CUSTOMER)
            return moved or await _already(connection, order_id, OrderStatus.REFUNDED, OrderStatus.PAID)

        return await self._published(await self.database.write(transaction))

    async def products(self, limit: int, after: int | None) -> Products:
        """What is sold, by id, so many after an id."""
        wanted = select(products).order_by(products.c.id).limit(limit + 1)
        if after is not None:
            wanted = wanted.where(products.c.id > after)

        async def transaction(connection: AsyncConnection) -> list[Product]:
            rows = await connection.execute(wanted)
            return [Product(row.id, row.name, row.category, row.price, row.stock) for row in rows]

        found = await self.database.read(transaction)
        page = found[:limit]
        return Products(self.counter.currency, page, str(page[-1].productId) if len(found) > limit else None)

    async def points(self, user_id: int) -> Points:
        """What a user has. Raises UnknownUser."""

        async def transaction(connection: AsyncConnection) -> int | None:
            return await connection.scalar(select(users.c.points).where(users.c.id == user_id))

        found = await self.database.read(transaction)
        if found is None:
            raise UnknownUser(user_id)
        return Points(user_id, found)

    async def _published(self, order: Order) -> Order:
        self.committed()
        place = await self.places.of(event_id(order.orderId, order.status), self.publish_wait_s)
        return msgspec.structs.replace(order, after=None if place is None else str(place))


async def _of_user(connection: AsyncConnection, order_id: int, user_id: int | None) -> Order:
    order = await find_order(connection, order_id)
    if order is None or user_id not in (None, order.userId):
        raise UnknownOrder(order_id)
    return order


async def _already(connection: AsyncConnection, order_id: int, there: OrderStatus, before: OrderStatus) -> Order:
    """The order, where it is already there. Raises WrongStatus where it cannot come from where it is."""
    order = await find_order(connection, order_id)
    assert order is not None
    if order.status != there:
        raise WrongStatus(order_id, order.status, before, str(there))
    return order
