"""Sessions, abandoned carts and velocity alerts by their definitions, from all that one user did.

These are the plain answers that the decisions on cells (`agents.sessions`, `carts`, `alerts`) are judged by. They share
no code with them: everything of a user is sorted by time, and one loop walks over it. What tables keep of a user in
one slice is bounded there, so it is bounded here too, by the caps of `BehaviourRules`.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeVar

from streams.events import AbandonedCart, OrderAlert, UserSession

Step = tuple[int, str, str]
Purchase = tuple[Any, ...]
T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class BehaviourRules:
    """The numbers in the rules; times in ms, money in the shop's minor units.

    `session_things`, `session_bought`, `session_orders` and `cart_items` are how many a record lists.

    `*_cap` is how many distinct entries of one user a table keeps in a slice: slices are `gap_ms` wide for activity,
    `timeout_ms` for cart changes, `velocity_ms` for purchases. `*_block` is how many slices in a row, all linked, cut a
    chain.
    """

    currency: str = "KRW"
    gap_ms: int = 1_800_000
    session_block: int = 24
    session_things: int = 500
    session_bought: int = 100
    session_orders: int = 40
    trail_cap: int = 100
    timeout_ms: int = 3_600_000
    cart_block: int = 24
    cart_items: int = 500
    changes_cap: int = 100
    velocity_ms: int = 3_600_000
    max_orders: int | None = 5
    max_amount: int | None = 3_000_000
    orders_cap: int = 100
    basket_products: int = 50
    basket_events: int = 500
    basket_id_bytes: int = 480


def kept(things: Iterable[T], slice_ms: int, cap: int) -> set[T]:
    """The `cap` smallest of the distinct tuples in each slice; they begin with a time."""
    slices: defaultdict[int, set[Any]] = defaultdict(set)
    for thing in things:
        slices[thing[0] // slice_ms].add(thing)  # type: ignore[index]  # hashable tuples
    return {thing for those in slices.values() for thing in sorted(those)[:cap]}


def full(purchases: Iterable[Purchase], from_ms: int, to_ms: int, rules: BehaviourRules) -> bool:
    """Whether a slice that the stretch meets has all the purchases that it keeps before the stretch's end."""
    earlier = Counter(order[0] // rules.velocity_ms for order in set(purchases) if order[0] < to_ms)
    return any(count >= rules.orders_cap for at, count in earlier.items() if (at + 1) * rules.velocity_ms > from_ms)


def runs(steps: Sequence[Step], gap_ms: int, block: int) -> list[list[Step]]:
    """Sorted steps, parted at pauses of `gap_ms` or more and after blocks of slices that are filled without one."""
    blocks: defaultdict[int, list[Step]] = defaultdict(list)
    for step in steps:
        blocks[step[0] // gap_ms // block].append(step)
    full = set()
    for number, those in blocks.items():
        all_slices = len({step[0] // gap_ms for step in those}) == block
        if all_slices and all(later[0] - earlier[0] < gap_ms for earlier, later in pairwise(those)):
            full.add(number)
    parted: list[list[Step]] = []
    for step in steps:
        before = parted[-1][-1][0] if parted else None
        if before is None or step[0] - before >= gap_ms:
            parted.append([])
        elif before // gap_ms // block in full and before // gap_ms // block != step[0] // gap_ms // block:
            parted.append([])
        parted[-1].append(step)
    return parted


def sessions_of(
    user: str, steps: Iterable[Step], purchases: Iterable[Purchase], rules: BehaviourRules
) -> list[UserSession]:
    """All sessions of a user, by time. A step that names nothing has the action `""`."""
    ordered = sorted(steps)
    bought = set(purchases)
    orders = sorted(kept(bought, rules.velocity_ms, rules.orders_cap))
    parted = runs(ordered, rules.gap_ms, rules.session_block)
    sessions = []
    for place, run in enumerate(parted):
        before = run[-1][0] + rules.gap_ms
        if place + 1 < len(parted):
            before = min(before, parted[place + 1][0][0])
        mine = [order for order in orders if run[0][0] <= order[0] < before]
        sessions.append(_session(user, run, mine, rules, full(bought, run[0][0], before, rules)))
    return sessions


def _session(user: str, run: list[Step], orders: list[Purchase], rules: BehaviourRules, missed: bool) -> UserSession:
    by_slice: defaultdict[int, dict[tuple[str, str], int]] = defaultdict(dict)
    for at, action, thing in run:
        if action:
            by_slice[at // rules.gap_ms].setdefault((action, thing), at)
    told: dict[tuple[str, str], int] = {}
    for firsts in by_slice.values():
        for at, action, thing in sorted([(at, *pair) for pair, at in firsts.items()])[: rules.trail_cap]:
            told.setdefault((action, thing), at)
    listed = sorted([(at, *pair) for pair, at in told.items()])[: rules.session_things]
    bought = tuple(dict.fromkeys(product for order in orders for product in order[3:]))
    numbers = tuple(dict.fromkeys(order[1] for order in orders))
    whole = len(listed) == len(told) and len(bought) <= rules.session_bought and len(numbers) <= rules.session_orders

    def things(of: str) -> tuple[str, ...]:
        return tuple(thing for _, action, thing in listed if action == of)

    return UserSession(
        event_id=f"{user}:{run[0][0]}",
        user_id=user,
        start=run[0][0],
        end=run[-1][0],
        occurred_at=run[-1][0],
        events=len(run),
        viewed=things("viewed"),
        carted=things("carted"),
        removed=things("removed"),
        searched=things("searched"),
        checkout=things("checkout") != (),
        bought=bought[: rules.session_bought],
        orders=numbers[: rules.session_orders],
        truncated=missed or not whole or any(len(firsts) > rules.trail_cap for firsts in by_slice.values()),
    )


def carts_of(
    user: str, changes: Iterable[Step], purchases: Iterable[Purchase], rules: BehaviourRules
) -> list[AbandonedCart]:
    """All carts that a user abandons, if nothing more happens ever: `(time, "+" or "-", product)` and the orders."""
    ordered = sorted(changes)
    known = kept(ordered, rules.timeout_ms, rules.changes_cap)
    bought = set(purchases)
    orders = [order[0] for order in sorted(kept(bought, rules.velocity_ms, rules.orders_cap))]
    carts = []
    for run in runs(ordered, rules.timeout_ms, rules.cart_block):
        end = run[-1][0] + rules.timeout_ms
        if any(run[-1][0] < change[0] < end for change in ordered):
            continue  # cut: it was not left
        last_order = max((at for at in orders if run[0][0] <= at < end), default=-1)
        items: list[str] = []
        since = -1
        for at, mark, product in [change for change in run if change in known and change[0] > last_order]:
            if mark == "-":
                items = [item for item in items if item != product]
            elif product not in items:
                since = since if items else at
                items.append(product)
        if items:
            truncated = not known.issuperset(run) or len(items) > rules.cart_items
            truncated = truncated or full(bought, run[0][0], end, rules)
            told = tuple(items[: rules.cart_items])
            carts.append(AbandonedCart(f"{user}:{since}", user, since, run[-1][0], end, end, told, truncated))
    return carts


def alerts_of(user: str, purchases: Iterable[Purchase], rules: BehaviourRules) -> list[OrderAlert]:
    """All final alerts of a user, by time."""
    orders = sorted(kept(purchases, rules.velocity_ms, rules.orders_cap))
    alerts: list[OrderAlert] = []
    over: list[bool] = []
    for place, order in enumerate(orders):
        window = [other for other in orders[: place + 1] if other[0] > order[0] - rules.velocity_ms]
        amount = sum(other[2] for other in window)
        many = rules.max_orders is not None and len(window) > rules.max_orders
        over.append(many or (rules.max_amount is not None and amount > rules.max_amount))
        if over[-1] and not (len(window) > 1 and over[-2]):
            reason: Literal["orders", "amount"] = "orders" if many else "amount"
            alerts.append(
                OrderAlert(f"{user}:{order[0]}:{order[1]}", user, order[1], order[0], len(window), amount, reason)
            )
    return alerts
