"""Neighbours of a product: what it is most often seen with and bought with, compared by cosine.

With `n(p)` the number of baskets that hold `p` and `c(p, q)` of those that hold both, the score of `q` is
`c(p, q) / sqrt(n(p) * n(q))`: the cosine of the products' columns in the matrix of baskets, each entry 0 or 1. The `k`
highest scores are kept, ties by product id.

Counts are kept by day. A day's counts are multiplied by its weight before they are added up, for `n` and `c` alike:
1 for the product's newest day, half as much with each half-life before it. Only the ratio of weights matters to a
cosine, so nothing needs to be decayed as time goes on: a product's numbers are `as_of` the end of its newest day, and
another's are brought there when the two are compared. Decay off is weight 1 for every day, all numbers are whole, and
`as_of` is 0.

`c` comes from a tally of bounded size (`tables.aggregates.Tally`): a count may be low by its error, which is told, and
a pair that is not listed came no more often than that. With error 0 scores are exact.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import nsmallest
from math import sqrt
from typing import Any, NamedTuple

from streams.events import Neighbour, Neighbourhood, ProductNeighbours

DAY_MS = 86_400_000
# Half-lives beyond which no difference is made, for products of weights to stay within floats whatever the days are.
FADED = 300
# Weights were published as of this, with an `as_of` of 0, before they were as of each product's newest day.
FORMERLY_AS_OF = 20_001 * DAY_MS


class Popular(NamedTuple):
    """In how many baskets a product was seen and bought, weighed as of an event time (ms)."""

    seen: float
    bought: float
    as_of: int = 0


Tally = Sequence[Any]
"""`[{product: count}, error]`"""
Day = tuple[int, int, int, Tally, Tally]
"""`(start in ms, seen, bought, seen with, bought with)` of one product"""
Popularity = Callable[[str], Popular]
"""A product's popularity, over the same days with the same half-life."""


def weight_of(newer_ms: int, half_life_days: float | None) -> float:
    """What counts that is so much newer than what counts 1, or older (below 0); None is decay off.

    >>> weight_of(-10 * DAY_MS, 5), weight_of(5 * DAY_MS, 5), weight_of(-10 * DAY_MS, None)
    (0.25, 2.0, 1.0)
    """
    if half_life_days is None:
        return 1.0
    weight: float = 2.0 ** max(-FADED, min(FADED, newer_ms / DAY_MS / half_life_days))
    return weight


def weighed(days: Iterable[tuple[int, int, int]], half_life_days: float | None) -> Popular:
    """A product's popularity from `(start in ms, seen, bought)` of its days.

    >>> weighed([(0, 3, 1), (5 * DAY_MS, 1, 0)], 5)
    Popular(seen=2.5, bought=0.5, as_of=518400000)
    """
    known = list(days)
    as_of = _as_of([start for start, _, _ in known], half_life_days)
    seen = bought = 0.0
    for start, day_seen, day_bought in known:
        weight = weight_of(start + DAY_MS - as_of, half_life_days)
        seen += weight * day_seen
        bought += weight * day_bought
    return Popular(seen, bought, as_of)


def neighbours(
    product: str,
    days: Sequence[Day],
    popularity: Popularity,
    k: int = 20,
    *,
    half_life_days: float | None = None,
) -> ProductNeighbours:
    """The product's neighbours of both kinds, from its own days and the popularity of others."""
    as_of = _as_of([day[0] for day in days], half_life_days)
    weights = [weight_of(day[0] + DAY_MS - as_of, half_life_days) for day in days]
    known: dict[str, tuple[float, float]] = {}

    def counts(other: str) -> tuple[float, float]:
        found = known.get(other)
        if found is None:
            seen, bought, then = popularity(other)
            weight = weight_of((then or FORMERLY_AS_OF) - as_of, half_life_days)
            found = known[other] = (weight * seen, weight * bought)
        return found

    weighed_days = list(zip(weights, days, strict=True))
    seen = _neighbourhood([(w, n, tally) for w, (_, n, _, tally, _) in weighed_days], lambda q: counts(q)[0], k)
    bought = _neighbourhood([(w, n, tally) for w, (_, _, n, _, tally) in weighed_days], lambda q: counts(q)[1], k)
    return ProductNeighbours(product, seen, bought, as_of)


def _as_of(starts: Sequence[int], half_life_days: float | None) -> int:
    """The end of the newest day: never 0, which is what there is without decay."""
    return max(starts) + DAY_MS if starts and half_life_days is not None else 0


def _neighbourhood(
    days: Sequence[tuple[float, int, Tally]], popularity: Callable[[str], float], k: int
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
        ranked.append((-count / sqrt(weight * others), other, count))
    best = nsmallest(k, ranked)
    return Neighbourhood(
        sum([baskets for _, baskets, _ in days]),
        weight,
        error,
        tuple([Neighbour(other, -score, count) for score, other, count in best]),
    )
