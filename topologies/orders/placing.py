"""Taking an order: stock, points, order and event in one transaction, or nothing at all.

    command -> the user's row is locked -> the same key again? -> points -> order -> outbox -> stock -> lines

A product's row, for which everybody who orders it waits, is locked as late as can be: after everything but
the lines, whose foreign keys would lock it shared, and two that hold it shared and want it alone are a deadlock.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Row, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from topologies.orders.order import Item, Order
from topologies.orders.outbox import Post, now_ms, post
from topologies.orders.refusals import KeyReused, NotEnoughPoints, OutOfStock, UnknownProduct, UnknownUser
from topologies.orders.schema import OrderStatus, order_lines, orders, products, users
from topologies.orders.transitions import User, lock_user, with_items

OF_KEY: Final = select(orders).where(
    orders.c.user_id == bindparam("of_user"), orders.c.idempotency_key == bindparam("of_key")
)
SOLD: Final = select(products.c.id, products.c.category, products.c.price).where(
    products.c.id.in_(bindparam("ids", expanding=True))
)
LEFT: Final = select(products.c.stock).where(products.c.id == bindparam("of_product"))
TAKE_POINTS: Final = (
    update(users)
    .where(users.c.id == bindparam("of_user"), users.c.points >= bindparam("taken"))
    .values(points=users.c.points - bindparam("taken"))
)
TAKE_STOCK: Final = (
    update(products)
    .where(products.c.id == bindparam("of_product"), products.c.stock >= bindparam("taken"))
    .values(stock=products.c.stock - bindparam("taken"))
)
NEW_ORDER: Final = insert(orders)
NEW_LINES: Final = insert(order_lines)


@dataclass(frozen=True)
class Placing:
    """What a customer asks for: quantities by product, in order of product, and the customer's name for the request."""

    user_id: int
    quantities: Mapping[int, int]
    key: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for an order of nothing."""
        if not self.quantities or min(self.quantities.values()) < 1:
            raise ValueError("an order has at least one line, and each at least one piece")

    @property
    def body_hash(self) -> str:
        """What tells a repeat from another request: the same for the same quantities, in whatever lines."""
        return hashlib.sha256(msgspec.json.encode(sorted(self.quantities.items()))).hexdigest()


@dataclass(frozen=True)
class Placed:
    """The order, and whether it is new; else it is the one that an earlier request with the same key made."""

    order: Order
    is_new: bool


@dataclass(frozen=True)
class Counter:
    """Where orders are taken: the topic that tells of them, the shop's currency, the clock that they are dated by."""

    topic: str
    currency: str
    clock_ms: Callable[[], int] = now_ms

    async def place(self, connection: AsyncConnection, command: Placing) -> Placed:
        """Take an order. Raises UnknownUser, UnknownProduct, OutOfStock, NotEnoughPoints, KeyReused."""
        user = await lock_user(connection, command.user_id)
        if user is None:
            raise UnknownUser(command.user_id)
        if command.key is not None and (row := await _of_key(connection, command.user_id, command.key)) is not None:
            if row.body_hash != command.body_hash:
                raise KeyReused(command.key)
            return Placed(await with_items(connection, row), is_new=False)
        items = await _items(connection, command.quantities)
        amount = sum(item.price * item.quantity for item in items)
        await _take_points(connection, user, amount)
        order = await self._insert(connection, command, user, items, amount)
        await post(connection, [Post(self.topic, order.event(), order.createdAtMs)])
        for item in items:
            await _take_stock(connection, item)
        await connection.execute(NEW_LINES, _lines(order))
        return Placed(order, is_new=True)

    async def _insert(
        self, connection: AsyncConnection, command: Placing, user: User, items: tuple[Item, ...], amount: int
    ) -> Order:
        at_ms = self.clock_ms()
        values = {
            "user_id": user.id,
            "status": OrderStatus.PLACED,
            "amount": amount,
            "points_used": amount,
            "region": user.region,
            "currency": self.currency,
            "created_at_ms": at_ms,
            "updated_at_ms": at_ms,
            "idempotency_key": command.key,
            "body_hash": command.body_hash if command.key is not None else None,
        }
        inserted = await connection.execute(NEW_ORDER, values)
        assert inserted.inserted_primary_key is not None
        return Order(
            orderId=inserted.inserted_primary_key[0],
            userId=user.id,
            status=OrderStatus.PLACED,
            amount=amount,
            pointsUsed=amount,
            currency=self.currency,
            region=user.region,
            createdAtMs=at_ms,
            updatedAtMs=at_ms,
            reason=None,
            items=items,
            after=None,
        )


async def _of_key(connection: AsyncConnection, user_id: int, key: str) -> Row[tuple[object, ...]] | None:
    return (await connection.execute(OF_KEY, {"of_user": user_id, "of_key": key})).one_or_none()


async def _items(connection: AsyncConnection, quantities: Mapping[int, int]) -> tuple[Item, ...]:
    found = {row.id: row for row in await connection.execute(SOLD, {"ids": sorted(quantities)})}
    if missing := sorted(quantities.keys() - found.keys()):
        raise UnknownProduct(missing[0])
    return tuple(Item(n, found[n].category, quantities[n], found[n].price) for n in sorted(quantities))


async def _take_points(connection: AsyncConnection, user: User, amount: int) -> None:
    # compared here as well: an amount beyond 64 bits is none that a database could compare
    if amount <= user.points:
        taken = await connection.execute(TAKE_POINTS, {"of_user": user.id, "taken": amount})
        if taken.rowcount == 1:
            return
    raise NotEnoughPoints(amount, user.points)


async def _take_stock(connection: AsyncConnection, item: Item) -> None:
    taken = await connection.execute(TAKE_STOCK, {"of_product": item.productId, "taken": item.quantity})
    if taken.rowcount != 1:
        left = await connection.scalar(LEFT, {"of_product": item.productId})
        raise OutOfStock(item.productId, item.quantity, left or 0)


def _lines(order: Order) -> list[dict[str, object]]:
    return [
        {
            "order_id": order.orderId,
            "number": number,
            "product_id": item.productId,
            "category": item.category,
            "quantity": item.quantity,
            "price": item.price,
        }
        for number, item in enumerate(order.items, 1)
    ]
