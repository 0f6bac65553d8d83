"""Neighbours of a product: what it is most often seen with and bought with, compared by cosine.

With `n(p)` the number of baskets that hold `p` and `c(p, q)` of those that hold both, the score of `q` is
`c(p, q) / sqrt(n(p) * n(q))`: the cosine of the products' columns in the matrix of baskets, each entry 0 or 1. The `k`
highest scores are kept, ties by product id.

Counts are kept by day. A day's counts are multiplied by its weight before they are added up, for `n` and `c` alike.
`day_weight` doubles with each half-life, counted forward from a fixed day: only the ratio of weights matters to a
cosine, so nothing needs to be decayed as time goes on. Decay off is weight 1 for every day, and all numbers are whole.

`c` comes from a tally of bounded size (`tables.aggregates.Tally`): a count may be low by its error, which is told, and
a pair that is not listed came no more often than that. With error 0 scores are exact.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import nsmallest
from math import sqrt
from typing import Any

from streams.events import Neighbour, Neighbourhood, ProductNeighbours

DAY_MS = 86_400_000
FORWARD_FROM = 20_000  # days since the epoch: October 2024; keeps weights within floats for centuries

Tally = Sequence[Any]
"""`[{product: count}, error]`"""
Day = tuple[float, int, int, Tally, Tally]
"""`(weight, seen, bought, seen with, bought with)` of one product"""
Popularity = Callable[[str], tuple[float, float]]
"""A product's `(seen, bought)` counts, over the same days with the same weights."""


def day_weight(start_ms: int, half_life_days: float | None) -> float:
    """The weight of the day that starts then; None is decay off.

    >>> day_weight(20_010 * DAY_MS, 5), day_weight(20_010 * DAY_MS, None)
    (4.0, 1.0)
    """
    if half_life_days is None:
        return 1.0
    weight: float = 2.0 ** ((start_ms / DAY_MS - FORWARD_FROM) / half_life_days)
    return weight


def weighed(days: Iterable[tuple[float, int, int]]) -> tuple[float, float]:
    """A product's popularity from `(weight, seen, bought)` of its days.

    >>> weighed([(1.0, 3, 1), (2.0, 1, 0)])
    (5.0, 1.0)
    """
    seen = bought = 0.0
    for weight, day_seen, day_bought in days:
        seen += weight * day_seen
        bought += weight * day_bought
    return seen, bought


def neighbours(
    product: str,
    days: Sequence[Day],
    popularity: Popularity,
    k: int = 20,
    *,
    as_of: int = 0,
    shrink: float = 0.0,
) -> ProductNeighbours:
    """The product's neighbours of both kinds, from its own days and the popularity of others.

    `shrink` is added to the denominator: above 0 it holds back pairs of rare products, whose cosine is chance (a
    product in one basket has a cosine of `1 / sqrt(n)` with all that was in it). 0 is the plain cosine.
    """
    known: dict[str, tuple[float, float]] = {}

    def counts(other: str) -> tuple[float, float]:
        found = known.get(other)
        if found is None:
            found = known[other] = popularity(other)
        return found

    seen = _neighbourhood([(w, n, tally) for w, n, _, tally, _ in days], lambda q: counts(q)[0], k, shrink)
    bought = _neighbourhood([(w, n, tally) for w, _, n, _, tally in days], lambda q: counts(q)[1], k, shrink)
    return ProductNeighbours(product, seen, bought, as_of)


def _neighbourhood(
    days: Sequence[tuple[float, int, Tally]], popularity: Callable[[str], float], k: int, shrink: float
) -> Neighbourhood:
    together: dict[str, float] = {}
    weight = error = 0.0
    for day_weighs, baskets, (counts, low_by) in days:
        weight += day_weighs * baskets
        error += day_weighs * low_by
        for other, count in counts.items():
            together[other] = together.get(other, 0.0) + day_weighs * count
    ranked = []
    for other, count in together.items():
        # the other one's popularity may be read before this pair has come to it
        others = max(popularity(other), count)
        ranked.append((-count / (sqrt(weight * others) + shrink), other, count))
    best = nsmallest(k, ranked)
    return Neighbourhood(
        sum([baskets for _, baskets, _ in days]),
        weight,
        error,
        tuple([Neighbour(other, -score, count) for score, other, count in best]),
    )
