"""Personal recommendations: what goes with what a user looked at and bought, each with its reason.

What a user touched are *sources*. Each look or cart action weighs `weight * fade ** newer`, with the number of the
user's newer ones, and `2 ** (-age / half-life)` on top: interest moves on with every click, and from day to day. A
purchase fades with its age alone. A product's strength is the sum over its actions; one that was taken out of the cart
again no longer counts as `carted`, and that it was `removed` says nothing by default. The `max_sources` strongest are
asked for their neighbours (`agents.neighbours`), and a neighbour's score is the sum over sources of

    strength of the source * (bought_share * cosine of bought together + seen_share * cosine of seen together)

Its reason is the source that adds most, and of the two relations the one that adds more. Never recommended are
products that the user has bought, that lie in the cart, or that are known to be out of stock. Where fewer than `k` are
found, what is trending in the user's category follows, then what is trending at all. Ties go by product id.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from types import MappingProxyType
from typing import Literal

from streams.events import ProductNeighbours, Recommendation

Action = Literal["viewed", "carted", "removed", "bought"]
Touched = tuple[str, Action, int]
"""`(product, action, time in ms)`"""
Source = tuple[str, Action, float]
"""`(product, action, strength)`"""
Related = Mapping[str, tuple[float, float]]
"""By product, the cosine of bought together and of seen together."""
NeighboursOf = Callable[[str], Related | None]

HOUR_MS = 3_600_000
BOUGHT_WITH: Literal["often bought with"] = "often bought with"
SEEN_WITH: Literal["often seen with"] = "often seen with"
_WEIGHTS: Mapping[Action, float] = MappingProxyType({"viewed": 1.0, "carted": 2.0, "removed": 0.0, "bought": 0.5})


@dataclass(frozen=True)
class Taste:
    """How much each action says, how fast it fades (by newer actions, and in ms), and how the relations are blended.

    The defaults are those that found most held-out purchases of simulated shops (`millrace bench recommendations`).
    """

    weights: Mapping[Action, float] = field(default_factory=lambda: _WEIGHTS)
    fade: float = 0.9
    half_life_ms: int = 24 * HOUR_MS
    bought_half_life_ms: int = 30 * 24 * HOUR_MS
    bought_share: float = 0.33
    seen_share: float = 0.67
    max_sources: int = 12

    def strength(self, action: Action, age_ms: int, newer: int = 0) -> float:
        """What an action of this age weighs, with so many newer ones."""
        aged = max(0, age_ms)
        if action == "bought":
            return self.weights.get(action, 0.0) * float(2.0 ** (-aged / self.bought_half_life_ms))
        return self.weights.get(action, 0.0) * float(self.fade**newer * 2.0 ** (-aged / self.half_life_ms))


DEFAULT_TASTE = Taste()


def recommend(
    recent: Iterable[Touched],
    bought: Collection[str],
    neighbours_of: NeighboursOf,
    trending: Sequence[str],
    k: int = 10,
    *,
    now_ms: int,
    category: str | None = None,
    trending_in_category: Sequence[str] = (),
    in_stock: Callable[[str], bool] | None = None,
    taste: Taste = DEFAULT_TASTE,
) -> list[Recommendation]:
    """At most `k` products, best first: neighbours of what was touched, then what is trending.

    `recent` may name products in any order, purchases among them with the action `bought`; `bought` is all that is not
    to be sold again, `now_ms` the event time that ages are measured from. Trending products have a score of 0.
    """
    touched = _settled(recent)
    hidden = {product for product, action, _ in touched if action in ("carted", "bought")}.union(bought)
    sources = _sources(touched, now_ms, taste)
    found = _scored(sources, neighbours_of, hidden, taste)
    ranked = nsmallest(k if in_stock is None else len(found), found.items(), key=lambda item: (-item[1][0], item[0]))
    chosen: dict[str, Recommendation] = {}
    for product, (score, _, (source, action, _), relation) in ranked:
        if len(chosen) < k and (in_stock is None or in_stock(product)):
            reason = f"{action} {source}, {relation} it"
            chosen[product] = Recommendation(product, score, reason, source, action, relation)
    fallbacks = [(f"trending in {category}", trending_in_category), ("trending", trending)]
    for reason, products in fallbacks:
        for product in products:
            if len(chosen) >= k:
                break
            if product not in chosen and product not in hidden and (in_stock is None or in_stock(product)):
                chosen[product] = Recommendation(product, 0.0, reason)
    return list(chosen.values())


def favourite(touched: Iterable[Touched], category_of: Callable[[str], str | None]) -> str | None:
    """The category that most of the products are in, ties by name; None if none is known.

    >>> favourite([("1", "viewed", 5), ("2", "viewed", 6)], {"1": "books", "2": None}.get)
    'books'
    """
    counts: dict[str, int] = {}
    for product in {product for product, _, _ in touched}:
        category = category_of(product)
        if category is not None:
            counts[category] = counts.get(category, 0) + 1
    return min(counts, key=lambda name: (-counts[name], name), default=None)


def related(known: ProductNeighbours) -> dict[str, tuple[float, float]]:
    """A product's neighbours of both relations together; 0 where it is none of the one."""
    found = {one.product_id: (one.score, 0.0) for one in known.bought.neighbours}
    for one in known.seen.neighbours:
        found[one.product_id] = (found.get(one.product_id, (0.0, 0.0))[0], one.score)
    return found


def _settled(recent: Iterable[Touched]) -> list[Touched]:
    """Without what was carted and then removed."""
    touched = list(recent)
    removed: dict[str, int] = {}
    for product, action, at in touched:
        if action == "removed":
            removed[product] = max(at, removed.get(product, at))
    return [t for t in touched if t[1] != "carted" or t[2] > removed.get(t[0], -1)]


def _sources(touched: Iterable[Touched], now_ms: int, taste: Taste) -> list[Source]:
    strengths: dict[str, float] = {}
    strongest: dict[str, tuple[float, Action]] = {}
    newer = 0
    for product, action, at in sorted(touched, key=_newest_first):
        strength = taste.strength(action, now_ms - at, newer)
        newer += action != "bought"
        if strength <= 0:
            continue
        strengths[product] = strengths.get(product, 0.0) + strength
        if (strength, action) > strongest.get(product, (0.0, "")):
            strongest[product] = (strength, action)
    ranked = nsmallest(taste.max_sources, [(-strengths[product], product) for product in strongest])
    return [(product, strongest[product][1], -strength) for strength, product in ranked]


def _newest_first(touched: Touched) -> tuple[int, str, str]:
    product, action, at = touched
    return -at, product, action


_Scored = tuple[float, float, Source, Literal["often bought with", "often seen with"]]
"""`(score, largest part of it, its source, its relation)`"""


def _scored(
    sources: Iterable[Source], neighbours_of: NeighboursOf, hidden: Collection[str], taste: Taste
) -> dict[str, _Scored]:
    found: dict[str, _Scored] = {}
    for source in sources:
        known = neighbours_of(source[0])
        if known is None:
            continue
        bought_share, seen_share = source[2] * taste.bought_share, source[2] * taste.seen_share
        for product, (bought, seen) in known.items():
            if product in hidden:
                continue
            by_buying, by_seeing = bought_share * bought, seen_share * seen
            part = by_buying + by_seeing
            before = found.get(product)
            if before is not None and before[1] >= part:
                found[product] = (before[0] + part, *before[1:])
            else:
                score = part if before is None else before[0] + part
                found[product] = (score, part, source, BOUGHT_WITH if by_buying >= by_seeing else SEEN_WITH)
    return found
