r"""The funnel, from a first look to a paid order: folds for its two tables, and the steps that they come to.

Rows, in the order of the tables' aggregates, Sum and Distinct by turns; a user None adds nothing:

- `activity`: `(key, viewed, viewer, carted, carter, checkouts, checker)` of `product.viewed`, `cart.added` and
  `checkout.started`.
- `orders`: `(key, ordered, buyer, paid, payer)` of `order.placed` and `order.paid`.

Each event has a row with the key `TOTAL` and one for each of its categories: an event's own, an order's distinct ones
by its lines; `unknown` where none is named. A checkout that names no category is in the total alone, since it is of a
whole cart. `TOTAL` begins with \x1f, which the decoder lets into no name, so that no category can be taken for it.
"""

from collections.abc import Mapping
from typing import Any

from agents.sales import customer_id
from streams.events import UNKNOWN, OrderEvent, UserActivity

TOTAL = "\x1ftotal"
STEPS = (
    ("viewed", "viewers"),
    ("carted", "carters"),
    ("checkouts", "checkers"),
    ("ordered", "buyers"),
    ("paid", "payers"),
)
"""The names of the two tables' aggregates, events and users of each step, in order; the last two are of orders."""

User = int | str | None
ActivityRow = tuple[str, int, User, int, User, int, User]
OrderRow = tuple[str, int, User, int, User]


def activity(event: UserActivity) -> list[ActivityRow]:
    """The rows of a view, of what goes into a cart, and of a checkout."""
    kind = event.event_type
    user = event.user_id
    if user.__class__ is str:
        user = customer_id(user)
    if kind == "product.viewed":
        key = UNKNOWN if event.category is None else event.category
        return [(TOTAL, 1, user, 0, None, 0, None), (key, 1, user, 0, None, 0, None)]
    if kind == "cart.added":
        key = UNKNOWN if event.category is None else event.category
        return [(TOTAL, 0, None, 1, user, 0, None), (key, 0, None, 1, user, 0, None)]
    if kind == "checkout.started":
        keys = (TOTAL,) if event.category is None else (TOTAL, event.category)
        return [(key, 0, None, 0, None, 1, user) for key in keys]
    return []


def orders(order: OrderEvent) -> list[OrderRow]:
    """The rows of an order that is placed or paid."""
    kind = order.event_type
    if kind != "order.placed" and kind != "order.paid":
        return []
    user = customer_id(order.user_id)
    keys = [TOTAL, *(dict.fromkeys([line.category for line in order.items]) or (UNKNOWN,))]
    if kind == "order.placed":
        return [(key, 1, user, 0, None) for key in keys]
    return [(key, 0, None, 1, user) for key in keys]


def funnel(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The five steps of one key, from the results of both tables' aggregates by name; absent ones are 0.

    A step has its `step`, `events` and distinct `users`, and `from_previous` and `from_first`: its users for each user
    of the step before, and of the first; None where that had none. A step that nothing came to while later ones had
    users was not told for this key (checkouts of one category): it has None for both, and is passed over by the next.

    >>> [step["from_previous"] for step in funnel({"viewed": 9, "viewers": 8, "ordered": 2, "buyers": 2})]
    [None, None, None, 0.25, 0.0]
    """
    users = [results.get(name) or 0 for _, name in STEPS]
    steps: list[dict[str, Any]] = []
    previous = None
    for place, (name, _) in enumerate(STEPS):
        told = users[place] > 0 or not any(users[place + 1 :])
        steps.append(
            {
                "step": name,
                "events": results.get(name) or 0,
                "users": users[place],
                "from_previous": _share(users[place], previous) if told else None,
                "from_first": _share(users[place], users[0]) if told and place else None,
            }
        )
        previous = users[place] if told else previous
    return steps


def _share(users: int, of: int | None) -> float | None:
    return round(users / of, 4) if of else None
