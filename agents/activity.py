"""What one user does: folds that remember it by user, for sessions, carts, alerts and personal recommendations.

The key of all rows is the user id as text, and the folds are given the event's time (ms) beside the event. Products
and orders are named by the text of their ids. Rows, in the order of the tables' aggregates:

- `by_user`: `(user, first, last, events, step)` for Min, Max, Sum and Trail, of every activity event. A step is
  `(time, action, thing)`: `viewed`, `carted` or `removed` with a product, `searched` with a query
  (`agents.interest.normalised`), `checkout` with an empty thing. An event that names no thing has no step.
- `cart_changes`: `(user, first, last, change)` for Min, Max and Moments, of `cart.added` and `cart.removed` with a
  product: `(time, "+" or "-", product)`.
- `recent`: `(user, (time, touch))` for TopK, of activity with a product: the touch is `viewed`, `carted` or `removed`,
  a blank, and the product.
- `purchases`: `(user, purchase)` for Moments, of `order.placed`: `(time, order, amount, product, ...)` with the
  distinct products in the order of the lines, at most `MAX_PRODUCTS` and no more than `PRODUCT_BYTES` hold; if there
  were more, `LEFT_OUT` is the last of them. The amount of an order in another currency than the shop's is 0: it counts
  as an order, and its money is not added to the shop's.
"""

from collections.abc import Callable
from typing import Any

from agents.interest import normalised
from streams.events import OrderEvent, UserActivity

MAX_PRODUCTS = 100
# Of one purchase's ids in UTF-8, 3 bytes each on top: 100 UUIDs. What a table keeps of a user goes into one record, and
# `MAX_PURCHASES` with the longest ids that there are come to 991 KB: Kafka takes 1 MB.
PRODUCT_BYTES = 3_900
MAX_PURCHASES = 200
LEFT_OUT = "\x1f"  # no id holds it (streams.codecs)
ADDED, REMOVED = "+", "-"
_ACTIONS = {
    "product.viewed": "viewed",
    "cart.added": "carted",
    "cart.removed": "removed",
    "search.performed": "searched",
    "checkout.started": "checkout",
}

UserRow = tuple[str, int, int, int, tuple[int, str, str] | None]
CartRow = tuple[str, int, int, tuple[int, str, str]]
PurchaseRow = tuple[str, tuple[Any, ...]]
RecentRow = tuple[str, tuple[int, str]]
_TOUCHES = ("product.viewed", "cart.added", "cart.removed")


def by_user(event: UserActivity, at: int) -> list[UserRow]:
    """One row of every event."""
    action = _ACTIONS[event.event_type]
    thing: int | str | None
    if action == "searched":
        thing = normalised(event.query) or None
    elif action == "checkout":
        thing = ""
    else:
        thing = event.product_id
    step = None if thing is None else (at, action, f"{thing}")
    return [(f"{event.user_id}", at, at, 1, step)]


def recent(event: UserActivity, at: int) -> list[RecentRow]:
    """One row of what was viewed, put into a cart or taken out of it."""
    if event.product_id is None or event.event_type not in _TOUCHES:
        return []
    return [(f"{event.user_id}", (at, f"{_ACTIONS[event.event_type]} {event.product_id}"))]


def cart_changes(event: UserActivity, at: int) -> list[CartRow]:
    """One row of what goes into a cart or out of it."""
    if event.product_id is None:
        return []
    if event.event_type == "cart.added":
        return [(f"{event.user_id}", at, at, (at, ADDED, f"{event.product_id}"))]
    if event.event_type == "cart.removed":
        return [(f"{event.user_id}", at, at, (at, REMOVED, f"{event.product_id}"))]
    return []


def purchases(currency: str) -> Callable[[OrderEvent, int], list[PurchaseRow]]:
    """The fold of a shop that counts in `currency`: one row of every placed order."""

    def fold(order: OrderEvent, at: int) -> list[PurchaseRow]:
        if order.event_type != "order.placed":
            return []
        amount = order.amount if order.currency is None or order.currency == currency else 0
        products = _bounded(list(dict.fromkeys([f"{line.product_id}" for line in order.items])))
        return [(f"{order.user_id}", (at, f"{order.order_id}", amount, *products))]

    return fold


def _bounded(products: list[str]) -> list[str]:
    room = PRODUCT_BYTES
    for place, product in enumerate(products[:MAX_PRODUCTS]):
        room -= len(product.encode()) + 3
        if room < 0:
            return [*products[:place], LEFT_OUT]
    return products if len(products) <= MAX_PRODUCTS else [*products[: MAX_PRODUCTS - 1], LEFT_OUT]
