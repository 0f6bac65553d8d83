"""Abandoned carts: what was put into a cart and not ordered in time, each cart once.

A user's cart changes (`cart.added`, `cart.removed`) and placed orders, by event time, in whatever order they came; at
the same time additions come first, then removals, then orders, each sorted by product. Taken in that order:

1. An addition puts its product into the cart, a removal takes it out. `since` is the time of the addition that found
   the cart empty.
2. An order empties the cart.
3. `timeout_ms` after the last change (an addition or a removal, also one that changes nothing) with neither a change
   nor an order in between, the cart is abandoned if something is in it, and it is empty again. A change or an order
   at exactly that time comes after it.

So changes with pauses below the timeout make up a chain (`agents.chains`), and a cart is abandoned at most once in it:
at its end. Nothing before the chain matters. A chain of changes through a whole block of `max_slices` slices is cut:
what was put in before the cut is forgotten without a word.

A slice keeps the earliest changes of a user, as many as its Moments' cap; if there were more, what is known of the
cart is told and marked `truncated`. So is a cart of more than `max_items` items, of which the first are told. Of a
user's purchases likewise only those count that are kept: where a slice of them is full, a cart is marked too, since an
order that emptied it may have been dropped.

The table of changes has slices of `timeout_ms` and the aggregates first, last, changes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from agents.activity import ADDED
from agents.candidate import Candidate, Decide, Emission
from agents.chains import LONGEST_GAPS, Chain, chain_ending
from agents.sessions import ORDERS, OrdersKept, purchases_between
from streams.codecs import encode
from streams.events import AbandonedCart

CHANGES = 2
ORDERED = "~ordered"  # sorts after + and -

Change = tuple[int, str, str]


@dataclass
class Cart:
    """What is in a cart, in the order it was put in, and since when."""

    since: int = -1
    items: dict[str, None] = field(default_factory=dict)

    def take(self, change: Change) -> None:
        """The next change or order."""
        at, mark, product = change
        if mark == ADDED:
            if not self.items:
                self.since = at
            self.items[product] = None
        elif mark == ORDERED:
            self.items.clear()
        else:
            self.items.pop(product, None)


def abandoned(changes: Iterable[Change], order_times: Iterable[int]) -> Cart:
    """The cart after the changes of a chain and the orders from its beginning until the timeout after its end.

    >>> changes = [(10, "+", "lamp"), (20, "+", "book"), (30, "-", "lamp")]
    >>> abandoned(changes, []), abandoned(changes, [40]).items
    (Cart(since=10, items={'book': None}), {})
    """
    cart = Cart()
    for change in sorted([*changes, *[(at, ORDERED, "") for at in order_times]]):
        cart.take(change)
    return cart


def decide_abandoned(
    timeout_ms: int,
    *,
    changes: str = "cart_changes_by_user",
    orders: OrdersKept = ORDERS,
    max_slices: int = LONGEST_GAPS,
    max_items: int = 500,
) -> Decide:
    """The decision on the table `changes`, looking at itself and at `orders`; events fall due within `timeout_ms`.

    A record has the key `[userId, since]` and an `AbandonedCart` as its value: 770 KB at most, with the longest ids.
    """

    def decide(c: Candidate) -> list[Emission]:
        chain = chain_ending(c, changes, timeout_ms, max_slices)
        if chain is None or chain.before < chain.last + timeout_ms:
            return []
        purchases, full = purchases_between(c, orders, chain.first, chain.before)
        cart = abandoned(_changes(chain), [purchase[0] for purchase in purchases])
        if not cart.items:
            return []
        value = AbandonedCart(
            event_id=f"{c.key}:{cart.since}",
            user_id=c.key,
            since=cart.since,
            last_change=chain.last,
            abandoned_at=chain.before,
            occurred_at=chain.before,
            items=tuple(cart.items)[:max_items],
            truncated=full or len(cart.items) > max_items or any(cell[CHANGES][0] for cell in chain.cells),
        )
        return [(msgspec.json.encode([c.key, cart.since]), encode(value))]

    return decide


def _changes(chain: Chain) -> list[Change]:
    return [change for cell in chain.cells for change in cell[CHANGES][1]]
