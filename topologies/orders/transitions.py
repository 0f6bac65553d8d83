"""The steps of an order after it was placed: each happens once, and says so in the outbox of the same transaction.

    placed -> paid        the payment came (`pay`)
    placed -> cancelled   it did not, or the customer does not want it any more (`cancel`): stock and points go back
    paid   -> refunded    the customer gives it back (`refund`): stock and points go back

A step is a compare-and-set in SQL, under the lock of the user's row. An order that is elsewhere already stays there: a
step then returns None, and has changed nothing; so all of them may be repeated by whoever is not sure.

The payment of an order that is cancelled or refunded is given back by whoever reads `order.cancelled` and
`order.refunded` from the topic: the order waits for no gateway.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from topologies.orders.order import Item, Order
from topologies.orders.outbox import Post, now_ms, post
from topologies.orders.schema import OrderStatus, order_lines, orders, products, users

# Statements are made once: made anew each time, they took most of an order's processor time (measured).
LOCKED_USER: Final = (
    select(users.c.id, users.c.name, users.c.region, users.c.points)
    .where(users.c.id == bindparam("of_user"))
    .with_for_update()
)
ORDER: Final = select(orders).where(orders.c.id == bindparam("of_order"))
USER_OF_ORDER: Final = select(orders.c.user_id).where(orders.c.id == bindparam("of_order"))
ITEMS: Final = (
    select(order_lines.c.product_id, order_lines.c.category, order_lines.c.quantity, order_lines.c.price)
    .where(order_lines.c.order_id == bindparam("of_order"))
    .order_by(order_lines.c.number)
)
STEP: Final = (
    update(orders)
    .where(orders.c.id == bindparam("of_order"), orders.c.status == bindparam("before"))
    .values(status=bindparam("after"), updated_at_ms=bindparam("at_ms"), reason=bindparam("because"))
)
GIVE_POINTS: Final = (
    update(users).where(users.c.id == bindparam("of_user")).values(points=users.c.points + bindparam("more"))
)
GIVE_STOCK: Final = (
    update(products).where(products.c.id == bindparam("of_product")).values(stock=products.c.stock + bindparam("more"))
)


@dataclass(frozen=True)
class User:
    """A customer, whose row is locked until the end of the transaction."""

    id: int
    name: str
    region: str
    points: int


async def lock_user(connection: AsyncConnection, user_id: int) -> User | None:
    """The user, locked: whoever wants to change something of the same user waits. None: there is none."""
    found = (await connection.execute(LOCKED_USER, {"of_user": user_id})).one_or_none()
    return None if found is None else User(*found)


async def find_order(connection: AsyncConnection, order_id: int) -> Order | None:
    """The order; None: there is none."""
    found = (await connection.execute(ORDER, {"of_order": order_id})).one_or_none()
    return None if found is None else await with_items(connection, found)


async def with_items(connection: AsyncConnection, row: Row[tuple[object, ...]]) -> Order:
    """An order of its row in the table."""
    items = await connection.execute(ITEMS, {"of_order": row.id})
    return Order(
        orderId=row.id,
        userId=row.user_id,
        status=OrderStatus(row.status),
        amount=row.amount,
        pointsUsed=row.points_used,
        currency=row.currency,
        region=row.region,
        createdAtMs=row.created_at_ms,
        updatedAtMs=row.updated_at_ms,
        reason=row.reason,
        items=tuple(Item(*item) for item in items),
        after=None,
    )


@dataclass(frozen=True)
class Transitions:
    """The steps, with the topic that tells of them and the clock that they are dated by."""

    topic: str
    clock_ms: Callable[[], int] = now_ms

    async def pay(self, connection: AsyncConnection, order_id: int) -> Order | None:
        """The order, paid just now. None: it was not waiting for that, or there is none."""
        return await self._step(connection, order_id, OrderStatus.PLACED, OrderStatus.PAID, None)

    async def cancel(self, connection: AsyncConnection, order_id: int, reason: str) -> Order | None:
        """The order, cancelled just now, with stock and points given back. None: it was not waiting, or is none."""
        return await self._step(connection, order_id, OrderStatus.PLACED, OrderStatus.CANCELLED, reason)

    async def refund(self, connection: AsyncConnection, order_id: int, reason: str) -> Order | None:
        """The order, refunded just now, with stock and points given back. None: it was not paid, or is none."""
        return await self._step(connection, order_id, OrderStatus.PAID, OrderStatus.REFUNDED, reason)

    async def _step(
        self, connection: AsyncConnection, order_id: int, before: OrderStatus, after: OrderStatus, reason: str | None
    ) -> Order | None:
        user_id = await connection.scalar(USER_OF_ORDER, {"of_order": order_id})
        if user_id is None:
            return None
        await lock_user(connection, user_id)
        at_ms = self.clock_ms()
        step = {"of_order": order_id, "before": before, "after": after, "at_ms": at_ms, "because": reason}
        moved = await connection.execute(STEP, step)
        if moved.rowcount == 0:
            return None
        order = await find_order(connection, order_id)
        assert order is not None
        if not order.holds:
            await _give_back(connection, order)
        await post(connection, [Post(self.topic, order.event(), at_ms)])
        return order


async def _give_back(connection: AsyncConnection, order: Order) -> None:
    await connection.execute(GIVE_POINTS, {"of_user": order.userId, "more": order.pointsUsed})
    for item in sorted(order.items, key=lambda item: item.productId):
        await connection.execute(GIVE_STOCK, {"of_product": item.productId, "more": item.quantity})
