"""Sessions: what a user did with no pause of `gap_ms` or more, decided when it is over.

A session is a maximal run of a user's activity events in which each comes less than `gap_ms` after the one before, by
event time; events may come in any order. A run that goes on through a whole block of `max_slices` slices is cut
there (`agents.chains` says exactly where): a bot's session ends at some time. It falls due at `end + gap_ms`, when no
event can join it any more.

- `start`, `end`: the times of its first and last event; `events`: how many there were.
- `viewed`, `carted`, `removed`, `searched`: what was touched, in the order of first times, then by name; `checkout`:
  whether one was started. Each slice of the session lists its `Trail`'s earliest things, and the session the
  `max_things` earliest of those: `truncated` says that there were more.
- `orders`, `bought`: the orders placed at times in `[start, end + gap_ms)` and before the user's next session, and
  their distinct products. They come from another topic, of which everything before `end + gap_ms` is known, too.

The table of activity has slices of `gap_ms` and the aggregates first, last, events, trail; that of purchases begins
with its Moments.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from agents.candidate import Candidate, Decide, Emission
from agents.chains import FIRST, LAST, Chain, chain_ending
from streams.codecs import encode
from streams.events import UserSession

EVENTS, TRAIL = 2, 3
Purchase = tuple[Any, ...]


def decide_session(
    gap_ms: int,
    *,
    activity: str = "activity_by_user",
    orders: str = "orders_by_user",
    orders_slice_ms: int = 3_600_000,
    max_slices: int = 24,
    max_things: int = 500,
) -> Decide:
    """The decision on the table `activity`, looking at itself and at `orders`; events fall due within `gap_ms`.

    A record has the key `[userId, start]` and a `UserSession` as its value.
    """

    def decide(c: Candidate) -> list[Emission]:
        chain = chain_ending(c, activity, gap_ms, max_slices)
        if chain is None:
            return []
        bought = purchases_between(c, orders, orders_slice_ms, chain.first, chain.before)
        session = _session(c.key, chain, bought, max_things)
        return [(msgspec.json.encode([c.key, session.start]), encode(session))]

    return decide


def sessions_of(
    user: str,
    cells: Iterable[tuple[int, Sequence[Any]]],
    purchases: Sequence[Purchase],
    gap_ms: int,
    *,
    max_things: int = 500,
) -> list[UserSession]:
    """A user's sessions as known so far, oldest first, from the cells of neighbouring slices and all purchases.

    For looking at: the newest may still go on, and one that a decision cuts is whole here.
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
        found.append(_session(user, chain, bought, max_things))
    return found


def purchases_between(c: Candidate, table: str, slice_ms: int, from_ms: int, to_ms: int) -> list[Purchase]:
    """The candidate's purchases at times in `[from_ms, to_ms)`, in order."""
    found: list[Purchase] = []
    for start in range(from_ms - from_ms % slice_ms, to_ms, slice_ms):
        cell = c.look(table, start)
        if cell is not None:
            found += [purchase for purchase in cell[0][1] if from_ms <= purchase[0] < to_ms]
    return found


def _session(user: str, chain: Chain, purchases: Sequence[Purchase], max_things: int) -> UserSession:
    steps, truncated = _steps([cell[TRAIL] for cell in chain.cells], max_things)
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
        bought=tuple(dict.fromkeys([product for _, _, _, *products in purchases for product in products])),
        orders=tuple(dict.fromkeys([purchase[1] for purchase in purchases])),
        truncated=truncated,
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
