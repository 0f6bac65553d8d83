"""Sessions: what a user did with no pause of `gap_ms` or more, decided when it is over.

A session is a maximal run of a user's activity events in which each comes less than `gap_ms` after the one before, by
event time; events may come in any order. A run that goes on through a whole block of `max_slices` slices is cut
there (`agents.chains` says exactly where): a bot's session ends at some time. It falls due at `end + gap_ms`, when no
event can join it any more.

- `start`, `end`: the times of its first and last event; `events`: how many there were.
- `viewed`, `carted`, `removed`, `searched`: what was touched, in the order of first times, then by name; `checkout`:
  whether one was started. Each slice of the session lists its `Trail`'s earliest things, and the session the earliest
  of those.
- `orders`, `bought`: the orders placed at times in `[start, end + gap_ms)` and before the user's next session, and
  their distinct products, the earliest of both. They come from another topic, of which everything before
  `end + gap_ms` is known, too.

What is listed is bounded (`Listed`), so that the record fits Kafka whatever the ids; `truncated` says that there was
more, or may have been: a slice keeps the earliest purchases of a user, and one that is full may have dropped others.

The table of activity has slices of `gap_ms` and the aggregates first, last, events, trail; that of purchases begins
with its Moments.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from agents.activity import LEFT_OUT
from agents.candidate import Candidate, Decide, Emission
from agents.chains import FIRST, LAST, LONGEST_GAPS, Chain, chain_ending
from streams.codecs import encode
from streams.events import UserSession

EVENTS, TRAIL = 2, 3
Purchase = tuple[Any, ...]


@dataclass(frozen=True)
class Listed:
    """How many a session lists of what was touched, of the products bought, and of the orders.

    A name of 256 characters is up to 1,539 bytes of JSON (control characters are six each): 640 of them are 985 KB.
    """

    things: int = 500
    bought: int = 100
    orders: int = 40


@dataclass(frozen=True)
class OrdersKept:
    """The table of purchases: its name, its slices, and how many of a user each keeps."""

    table: str = "orders_by_user"
    slice_ms: int = 3_600_000
    most: int = 100


LISTED, ORDERS = Listed(), OrdersKept()


def decide_session(
    gap_ms: int,
    *,
    activity: str = "activity_by_user",
    orders: OrdersKept = ORDERS,
    max_slices: int = LONGEST_GAPS,
    listed: Listed = LISTED,
) -> Decide:
    """The decision on the table `activity`, looking at itself and at `orders`; events fall due within `gap_ms`.

    A record has the key `[userId, start]` and a `UserSession` as its value.
    """

    def decide(c: Candidate) -> list[Emission]:
        chain = chain_ending(c, activity, gap_ms, max_slices)
        if chain is None:
            return []
        bought, full = purchases_between(c, orders, chain.first, chain.before)
        session = _session(c.key, chain, bought, listed, full)
        return [(msgspec.json.encode([c.key, session.start]), encode(session))]

    return decide


def sessions_of(
    user: str,
    cells: Iterable[tuple[int, Sequence[Any]]],
    purchases: Sequence[Purchase],
    gap_ms: int,
) -> list[UserSession]:
    """A user's sessions as known so far, oldest first, from the cells of neighbouring slices and all purchases.

    For looking at: the newest may still go on, one that a decision cuts is whole here, and full slices do not show.
    """
    chains: list[list[Sequence[Any]]] = []
    for _, cell in sorted(cells, key=lambda pair: pair[0]):
        if chains and cell[FIRST] - chains[-1][-1][LAST] < gap_ms:
            chains[-1].append(cell)
        else:
            chains.append([cell])
    found = []
    for place, cells_of_one in enumerate(chains):
        next_first = chains[place + 1][0][FIRST] if place + 1 < len(chains) else 2**63
        chain = Chain(cells_of_one, min(cells_of_one[-1][LAST] + gap_ms, next_first))
        bought = [purchase for purchase in purchases if chain.first <= purchase[0] < chain.before]
        found.append(_session(user, chain, bought, LISTED))
    return found


def purchases_between(c: Candidate, orders: OrdersKept, from_ms: int, to_ms: int) -> tuple[list[Purchase], bool]:
    """The candidate's purchases at times in `[from_ms, to_ms)`, in order, and whether there may have been more.

    A slice may have dropped some once it had all that it keeps before `to_ms`. Whether it has dropped any depends on
    later ones too, so it is not asked.
    """
    found: list[Purchase] = []
    full = False
    for start in range(from_ms - from_ms % orders.slice_ms, to_ms, orders.slice_ms):
        cell = c.look(orders.table, start)
        if cell is not None:
            before = [purchase for purchase in cell[0][1] if purchase[0] < to_ms]
            full = full or len(before) >= orders.most
            found += [purchase for purchase in before if purchase[0] >= from_ms]
    return found, full


def _session(
    user: str, chain: Chain, purchases: Sequence[Purchase], listed: Listed, truncated: bool = False
) -> UserSession:
    steps, more = _steps([cell[TRAIL] for cell in chain.cells], listed.things)
    bought = list(dict.fromkeys([product for _, _, _, *products in purchases for product in products]))
    orders = list(dict.fromkeys([purchase[1] for purchase in purchases]))
    if LEFT_OUT in bought:
        bought.remove(LEFT_OUT)
        more = True
    by_action: dict[str, list[str]] = {}
    for _, action, thing in steps:
        by_action.setdefault(action, []).append(thing)
    return UserSession(
        event_id=f"{user}:{chain.first}",
        user_id=user,
        start=chain.first,
        end=chain.last,
        occurred_at=chain.last,
        events=sum([cell[EVENTS] for cell in chain.cells]),
        viewed=tuple(by_action.get("viewed", ())),
        carted=tuple(by_action.get("carted", ())),
        removed=tuple(by_action.get("removed", ())),
        searched=tuple(by_action.get("searched", ())),
        checkout="checkout" in by_action,
        bought=tuple(bought[: listed.bought]),
        orders=tuple(orders[: listed.orders]),
        truncated=truncated or more or len(bought) > listed.bought or len(orders) > listed.orders,
    )


def _steps(trails: Sequence[Any], max_things: int) -> tuple[list[tuple[int, str, str]], bool]:
    """The earliest steps of all trails, and whether there were more."""
    firsts: dict[tuple[str, str], int] = {}
    for _, times in trails:
        for pair, at in times.items():
            if at < firsts.get(pair, at + 1):
                firsts[pair] = at
    steps = sorted([(at, *pair) for pair, at in firsts.items()])
    dropped = any(bound is not None for bound, _ in trails)
    return steps[:max_things], dropped or len(steps) > max_things
