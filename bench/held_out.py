"""Who finds what a user buys next: hit rate at ten on purchases that were held out.

Protocol. The history is the first four fifths of all visits, and all that any contender learns from. Of each later
order with two or more lines the *target* is its last line. The query is everything that its user did before first
touching the target: the user's visits so far, and of the live one what came before. A contender names ten products;
what the user had bought before is hidden from all of them alike, and targets that had been bought before are left out.
It is a hit if the target is among the ten.

- *popularity*: the products most often bought in the history.
- *implicit*: its item-item cosine model, fitted on users x products with all that a user viewed, carted or bought in
  the history, queried with all that the user had touched; the better one of 20 and of 50 neighbours a product.
- *ours*: `agents.personal.recommend` with the published neighbours, queried with what `recent_by_user` and
  `bought_by_user` keep: the newest 30 touches of a day for three days, and purchases.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from agents.activity import recent
from agents.personal import Touched, recommend, related
from bench.item_cosine import ItemCosine
from bench.visits import Visit, time_of
from streams.events import OrderEvent, ProductNeighbours, UserActivity
from streams.simulator.settings import DAY_MS
from topologies.recommendations import RECENT_KEPT
from topologies.results import touched

NAMED: Final = 10
RECENT_DAYS: Final = 3


@dataclass(frozen=True)
class Query:
    """What a user had done before touching the target, and the target."""

    known: Sequence[Touched]
    target: str

    @property
    def bought(self) -> set[str]:
        """The products bought before."""
        return {product for product, action, _ in self.known if action == "bought"}


def queries(visits: Sequence[Visit], history: int, limit: int, seed: int = 5) -> list[Query]:
    """The queries of the visits after the first `history`, or `limit` of them drawn at random."""
    known: defaultdict[str, list[Touched]] = defaultdict(list)
    found = []
    for number, visit in enumerate(visits):
        looked: list[Touched] = []
        for event in visit.events:
            if isinstance(event, OrderEvent) and event.event_type == "order.placed":
                products = [str(line.product_id) for line in event.items]
                if number >= history and len(products) >= 2:
                    found.append(_query([*known[visit.user]], looked, products[-1]))
                known[visit.user] += [(product, "bought", time_of(event)) for product in products]
            elif isinstance(event, UserActivity):
                looked += _touch(event)
        known[visit.user] += looked
    new = [query for query in found if query.known and query.target not in query.bought]
    Random(seed).shuffle(new)
    return new[:limit]


def _query(before: list[Touched], looked: Sequence[Touched], target: str) -> Query:
    for touch in looked:
        if touch[0] == target:
            break
        before.append(touch)
    return Query(before, target)


def _touch(event: UserActivity) -> list[Touched]:
    return touched([row[1] for row in recent(event, time_of(event))], ())


def hit_rate(asked: Sequence[Query], answer: Callable[[Query], Sequence[str]]) -> float:
    """The share of queries whose target is in the answer."""
    return sum(query.target in answer(query)[:NAMED] for query in asked) / max(1, len(asked))


def by_popularity(history: Sequence[Visit]) -> Callable[[Query], list[str]]:
    """The contender that names what is bought most."""
    orders = [e for v in history for e in v.events if isinstance(e, OrderEvent) and e.event_type == "order.placed"]
    counts = Counter(str(line.product_id) for order in orders for line in order.items)
    ranked = [product for product, _ in counts.most_common(1_000)]

    def answer(query: Query) -> list[str]:
        return [product for product in ranked if product not in query.bought][:NAMED]

    return answer


def by_implicit(history: Sequence[Visit], k: int) -> Callable[[Query], list[str]]:
    """The contender that is implicit's model. Raises MillraceError where it is not installed."""
    users: defaultdict[str, set[str]] = defaultdict(set)
    for visit in history:
        for event in visit.events:
            if isinstance(event, UserActivity) and event.product_id is not None:
                users[visit.user].add(str(event.product_id))
            elif isinstance(event, OrderEvent):
                users[visit.user].update(str(line.product_id) for line in event.items)
    model = ItemCosine(list(users.values()), k)
    return lambda query: model.recommend({product for product, _, _ in query.known}, query.bought, NAMED)


def by_us(neighbours: Mapping[str, ProductNeighbours]) -> Callable[[Query], list[str]]:
    """The contender that is ours."""
    known_of = {product: related(known) for product, known in neighbours.items()}

    def answer(query: Query) -> list[str]:
        known = kept(query.known)
        now = max(at for _, _, at in known)
        found = recommend(known, query.bought, known_of.get, (), NAMED, now_ms=now)
        return [one.product_id for one in found]

    return answer


def kept(known: Sequence[Touched]) -> list[Touched]:
    """What the tables keep of it."""
    newest = max(at for _, _, at in known) // DAY_MS
    left = Counter({newest - day: RECENT_KEPT for day in range(RECENT_DAYS)})
    found = []
    for touch in sorted(known, key=lambda touch: -touch[2]):
        day = touch[2] // DAY_MS
        if touch[1] == "bought" or left[day] > 0:
            found.append(touch)
            left[day] -= touch[1] != "bought"
    return found


def ms_per_answer(asked: Sequence[Query], answer: Callable[[Query], Sequence[str]]) -> float:
    """The mean CPU time of an answer."""
    started = time.process_time()
    for query in asked:
        answer(query)
    return (time.process_time() - started) / max(1, len(asked)) * 1000
