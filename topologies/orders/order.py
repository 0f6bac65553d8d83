"""An order as customers and the other steps see it, and the events that tell of it."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from streams.events import OrderEvent, OrderEventType, OrderLine
from topologies.orders.schema import OrderStatus
from topologies.views.answer_types import Count, EpochMs

EVENT_TYPES: Final[dict[OrderStatus, OrderEventType]] = {
    OrderStatus.PLACED: "order.placed",
    OrderStatus.PAID: "order.paid",
    OrderStatus.CANCELLED: "order.cancelled",
    OrderStatus.REFUNDED: "order.refunded",
}
After = Annotated[
    str | None,
    Meta(description="what `?after=` of the views takes, to have this order in the answer; null: not published yet"),
]


class Item(Struct, frozen=True, forbid_unknown_fields=True):
    """One product of an order: `quantity` pieces at `price` minor units each."""

    productId: int
    category: str
    quantity: Annotated[int, Meta(ge=1)]
    price: Count


class Order(Struct, frozen=True, forbid_unknown_fields=True):
    """An order, its lines by product; money in minor units. `reason` says why it is cancelled or refunded."""

    orderId: int
    userId: int
    status: OrderStatus
    amount: Count
    pointsUsed: Count
    currency: str
    region: str
    createdAtMs: EpochMs
    updatedAtMs: EpochMs
    reason: str | None
    items: tuple[Item, ...]
    after: After

    @property
    def holds(self) -> bool:
        """Whether it holds the stock and the points that it took."""
        return self.status in (OrderStatus.PLACED, OrderStatus.PAID)

    def event(self) -> OrderEvent:
        """The event of its newest step; its id follows from the order, so that a repeat is known as one."""
        return OrderEvent(
            order_id=self.orderId,
            user_id=self.userId,
            amount=self.amount,
            event_id=event_id(self.orderId, self.status),
            event_type=EVENT_TYPES[self.status],
            currency=self.currency,
            region=self.region,
            occurred_at=self.updatedAtMs,
            items=tuple(OrderLine(item.productId, item.category, item.quantity, item.price) for item in self.items),
        )


def event_id(order_id: int, status: OrderStatus) -> str:
    """The id of the event that says that an order came to a status.

    >>> event_id(1_000_000_000_000, OrderStatus.PAID)
    'order-1000000000000-paid'
    """
    return f"order-{order_id}-{status}"
