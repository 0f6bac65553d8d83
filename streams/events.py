"""The event types on the wire: JSON, camelCase, unknown fields ignored.

Only what cannot be guessed is required, so that `{"orderId":1,"userId":123,"amount":50000}` typed into a
console producer is a whole order. Money is an integer in minor units. Times are epoch milliseconds or
ISO-8601, UTC where no offset is given, and default to the record's timestamp. Ids are integers of 64 bit or
strings; `1` and `"1"` name the same user, order or product, since keys are made from their text.

Structs are frozen, and `gc=False` as they can hold no cycle: the collector need not walk millions of them.
Constraints are checked when decoding, not when constructing.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from streams.codecs import Undecodable

# Names become keys of tables and topics: a name of a megabyte would make a changelog record that no broker takes.
NAME_CHARS = 256
Name = Annotated[str, Meta(max_length=NAME_CHARS)]
# An empty id would make every event but the first a duplicate.
EventId = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS)]
Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Name
# 2**53: the largest range that JavaScript and every other JSON reader keeps exact.
Minor = Annotated[int, Meta(ge=0, lt=2**53)]
Quantity = Annotated[int, Meta(ge=1, le=1_000_000)]
EpochMs = Annotated[int, Meta(ge=0, lt=2**53)]
# An id made of others: two names, a time, and a word on what it is.
DerivedId = Annotated[str, Meta(min_length=1, max_length=2 * NAME_CHARS + 64)]

OrderEventType = Literal["order.placed", "order.paid", "order.cancelled", "order.refunded"]
ActivityType = Literal["product.viewed", "cart.added", "cart.removed", "search.performed", "checkout.started"]
PaymentType = Literal["payment.completed", "payment.failed", "payment.refunded"]

UNKNOWN = "unknown"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class OrderLine(Struct, frozen=True, gc=False, rename="camel"):
    """One product of an order: `quantity` pieces at `price` minor units each."""

    product_id: Id
    category: Name = UNKNOWN
    quantity: Quantity = 1
    price: Minor = 0


class OrderEvent(Struct, frozen=True, gc=False, rename="camel"):
    """What happened to an order; `amount` is its value, or what a cancellation or refund takes back.

    `items` are the lines that the amount is about: all of them when placed, those taken back otherwise.
    `currency` None is the shop's own.
    """

    order_id: Id
    user_id: Id
    amount: Minor
    event_id: EventId | None = None
    event_type: OrderEventType = "order.placed"
    currency: Name | None = None
    region: Name = UNKNOWN
    occurred_at: EpochMs | datetime | None = None
    items: tuple[OrderLine, ...] = ()


class UserActivity(Struct, frozen=True, gc=False, rename="camel"):
    """What a user did in the shop before an order; `event_type` decides which fields are set."""

    event_type: ActivityType
    user_id: Id
    event_id: EventId | None = None
    session_id: Id | None = None
    product_id: Id | None = None
    category: Name | None = None
    query: str | None = None
    occurred_at: EpochMs | datetime | None = None


class PaymentNotification(Struct, frozen=True, gc=False, rename="camel"):
    """What the payment provider says about an order."""

    event_type: PaymentType
    order_id: Id
    user_id: Id
    amount: Minor
    event_id: EventId | None = None
    method: Name | None = None
    occurred_at: EpochMs | datetime | None = None


class UserSession(Struct, frozen=True, gc=False, rename="camel"):
    """A session of one user that is over, as `agents.sessions` defines it; times in epoch ms, products as text.

    `end` is the time of its last event and `occurred_at` the same. `viewed` to `searched` are distinct, in the order
    of their first time; `bought` and `orders` are of the orders placed in it or up to a gap after it. `truncated`
    says that more was done than is listed, or may have been.
    """

    event_id: DerivedId
    user_id: Name
    start: EpochMs
    end: EpochMs
    occurred_at: EpochMs
    events: int
    viewed: tuple[str, ...] = ()
    carted: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    searched: tuple[str, ...] = ()
    checkout: bool = False
    bought: tuple[str, ...] = ()
    orders: tuple[str, ...] = ()
    truncated: bool = False


class ProductBasket(Struct, frozen=True, gc=False, rename="camel"):
    """Products seen together in a session, or bought together in an order, as sent to those of one partition.

    `products` are all of them, distinct and sorted; `own` those whose partition the record is in.
    """

    event_id: DerivedId
    kind: Literal["seen", "bought"]
    products: tuple[str, ...]
    own: tuple[str, ...]
    occurred_at: EpochMs


class AbandonedCart(Struct, frozen=True, gc=False, rename="camel"):
    """A cart that was left, as `agents.carts` defines it; times in epoch ms, `items` in the order they were put in.

    It was empty before `since`; `occurred_at` is `abandoned_at`. `truncated` says that not all changes were kept, that
    there were more items than are listed, or that an order may have been missed that emptied it.
    """

    event_id: DerivedId
    user_id: Name
    since: EpochMs
    last_change: EpochMs
    abandoned_at: EpochMs
    occurred_at: EpochMs
    items: tuple[str, ...]
    truncated: bool = False


class OrderAlert(Struct, frozen=True, gc=False, rename="camel"):
    """An order that took its user over a limit, as `agents.alerts` defines it.

    `orders` and `amount` (minor units of the shop's currency) are of the sliding window that ends with it. What is
    not `final` may still be taken back by a tombstone.
    """

    event_id: DerivedId
    user_id: Name
    order_id: Name
    occurred_at: EpochMs
    orders: int
    amount: int
    reason: Literal["orders", "amount"]
    final: bool = True


class Neighbour(Struct, frozen=True, gc=False, rename="camel"):
    """A product that goes together with another: `score` is a cosine, `together` the decayed count of baskets."""

    product_id: Name
    score: float
    together: float


class Neighbourhood(Struct, frozen=True, gc=False, rename="camel"):
    """A product's nearest neighbours of one kind, nearest first.

    `baskets` is how many held the product, `weight` the same after decay; any `together`, of a product that is listed
    or not, is low by at most `error`.
    """

    baskets: int = 0
    weight: float = 0.0
    error: float = 0.0
    neighbours: tuple[Neighbour, ...] = ()


class ProductNeighbours(Struct, frozen=True, gc=False, rename="camel"):
    """What a product is often seen with and bought with (`agents.neighbours`).

    Weights are as of the event time `as_of` in ms, the end of the product's newest day; without decay that is 0.
    """

    product_id: Name
    seen: Neighbourhood
    bought: Neighbourhood
    as_of: EpochMs


class Recommendation(Struct, frozen=True, gc=False, rename="camel"):
    """A product for a user, and why: `reason` in words; `because` names the product that led to it, if one did."""

    product_id: Name
    score: float
    reason: str
    because: Name | None = None
    action: Literal["viewed", "carted", "removed", "bought"] | None = None
    relation: Literal["often bought with", "often seen with"] | None = None


class UserRecommendations(Struct, frozen=True, gc=False, rename="camel"):
    """What is recommended to a user, best first, as of an event time in ms (`agents.personal`)."""

    user_id: Name
    as_of: EpochMs
    recommendations: tuple[Recommendation, ...]


Event = OrderEvent | UserActivity | PaymentNotification
Derived = UserSession | ProductBasket | AbandonedCart | OrderAlert


def event_time_ms(event: Event | Derived, record_timestamp_ms: int) -> int:
    """The event's own time in epoch ms, else its record's timestamp.

    Sub-millisecond digits are cut off. Raises `Undecodable` for a time before 1970.

    >>> event_time_ms(OrderEvent(1, 2, 3, occurred_at=datetime(1970, 1, 1, 0, 0, 1)), 0)
    1000
    """
    at = event.occurred_at
    if at.__class__ is int:
        return at  # comparing classes is faster than isinstance, by 20 of 60 ns
    if at is None:
        return record_timestamp_ms
    return _datetime_ms(at)  # type: ignore[arg-type]  # mypy does not narrow by __class__ here


def _datetime_ms(at: datetime) -> int:
    since = (at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH
    ms = since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
    if ms < 0:
        raise Undecodable("occurredAt is before 1970")
    return ms
