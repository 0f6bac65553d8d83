"""Velocity alerts: too many orders, or too much money, of one user in a sliding window.

A user's placed orders are put in order by `(time, order id, amount, products)`, in whatever order they came. For an
order at time `t`, its window holds itself and those before it with times in `(t - window_ms, t]`. The order is *over*
if its window holds more than `max_orders` orders, or if their amounts (in the shop's currency) sum to more than
`max_amount`.
An order raises an alert iff it is over and the order just before it is not over, or not in its window. So a run of
orders over the limit raises one alert, at its first, and whether an order raises one depends on the orders at times in
`(t - 2 * window_ms, t]` alone.

An order falls due 1 ms after its time: when everything up to it is known, its alert is `final`. An alert may be wanted
sooner, as soon as the order is there: an *early* decision tells what is known, not final. An order that comes out of
order can then put the beginning of a run elsewhere, and the final decision takes back with a tombstone what may have
been said too early: every order that is over and raises no alert. (Orders that are over never cease to be.) An early
decision is about orders from `since` on: it must be given a `since` before which all final decisions were taken.

A slice keeps the earliest orders of a user, as many as its Moments' cap; orders beyond are not seen (and an early alert
at an order that a full slice dropped later is not taken back: let the cap be well above `max_orders`). The table has
slices of `window_ms` and begins with the Moments of `agents.activity.purchases`.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from agents.candidate import EARLY_FROM, Candidate, Decide, Emission
from streams.codecs import encode
from streams.events import OrderAlert

DUE_MS = 1
Purchase = tuple[Any, ...]
Reason = Literal["orders", "amount"]


@dataclass(frozen=True)
class Velocity:
    """The limits of a sliding window of `window_ms`: the most orders and the most money; None is no limit."""

    window_ms: int
    max_orders: int | None = None
    max_amount: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where nothing is limited."""
        if self.window_ms <= 0 or (self.max_orders is None and self.max_amount is None):
            raise ValueError("velocity: give a window above 0 ms, and max_orders, max_amount or both")

    def reason(self, orders: int, amount: int) -> Reason | None:
        """Which limit is passed, if any."""
        if self.max_orders is not None and orders > self.max_orders:
            return "orders"
        if self.max_amount is not None and amount > self.max_amount:
            return "amount"
        return None


@dataclass(frozen=True, slots=True)
class Judged:
    """An order that is over: what its window holds, and whether it raises an alert."""

    purchase: Purchase
    orders: int
    amount: int
    reason: Reason
    raises: bool


def judged(purchases: Sequence[Purchase], limits: Velocity, since: int) -> list[Judged]:
    """The orders at times from `since` on that are over; `purchases` are sorted, from `since - 2 windows` on.

    >>> limits = Velocity(60_000, max_orders=1)
    >>> [(j.purchase[1], j.raises) for j in judged([(0, "a", 5), (9, "b", 5), (10, "c", 5)], limits, 0)]
    [('b', True), ('c', False)]
    """
    found: list[Judged] = []
    oldest = amount = 0
    over_before = False
    for place, purchase in enumerate(purchases):
        amount += purchase[2]
        while purchases[oldest][0] <= purchase[0] - limits.window_ms:
            amount -= purchases[oldest][2]
            oldest += 1
        reason = limits.reason(place - oldest + 1, amount)
        if reason is not None and purchase[0] >= since:
            raises = not over_before or oldest == place
            found.append(Judged(purchase, place - oldest + 1, amount, reason, raises))
        over_before = reason is not None
    return found


def decide_velocity(limits: Velocity, *, orders: str = "orders_by_user", early: bool = False) -> Decide:
    """The decision on the table `orders`, looking at itself; events fall due within `DUE_MS`.

    A record has the key `[userId, time, orderId]` and an `OrderAlert` as its value. With `early` the final decision
    sends tombstones, and a candidate whose `until` is `EARLY_FROM` or more gets an early one.
    """

    def decide(c: Candidate) -> list[Emission]:
        own = c.states[0][1]
        # due at t + 1 in (since, until]: t in [since, until)
        start = bisect_left(own, (c.since,))
        end = bisect_left(own, (c.until,))
        if start == end:
            return []
        purchases = [*_looked(c, orders, limits.window_ms), *own[:end]]
        final = c.until < EARLY_FROM
        records: dict[bytes, bytes | None] = {}
        for one in judged(purchases, limits, max(c.since, c.window)):
            key = msgspec.json.encode([c.key, *one.purchase[:2]])
            if one.raises:
                records[key] = encode(_alert(c.key, one, final))
            elif early and final:
                records.setdefault(key, None)
        return list(records.items())

    return decide


def _looked(c: Candidate, table: str, window_ms: int) -> list[Purchase]:
    cells = [c.look(table, c.window - 2 * window_ms), c.look(table, c.window - window_ms)]
    return [purchase for cell in cells if cell is not None for purchase in cell[0][1]]


def _alert(user: str, one: Judged, final: bool) -> OrderAlert:
    at, order = one.purchase[:2]
    return OrderAlert(f"{user}:{at}:{order}", user, order, at, one.orders, one.amount, one.reason, final)
