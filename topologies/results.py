"""What the recommendations topology publishes: a product's neighbours, a user's recommendations. Pure.

Both are computed from accumulators and from what is published of other products, so they live between the folds that
they follow (agents.neighbours, agents.personal) and the tables and copies that they read.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from agents.activity import LEFT_OUT
from agents.neighbours import Popular, Popularity, neighbours
from agents.personal import NeighboursOf, Related, Touched, recommend, related
from streams.codecs import encode, product_key
from streams.events import ProductNeighbours, UserRecommendations
from tables.publishing import Copy, Shelf

NEIGHBOURS: Final = 50
RECOMMENDED: Final = 20
# Most users touch the same products: their neighbours are kept decoded, at some 20 KB each with the record itself.
RELATED_KEPT: Final = 2_000
_decode = msgspec.json.Decoder(ProductNeighbours).decode


class _Weight(msgspec.Struct):
    weight: float = 0.0


class _Popularity(msgspec.Struct, rename="camel"):
    """Of a published record, what other products' scores need: the rest is skipped at a tenth of the cost."""

    seen: _Weight
    bought: _Weight
    as_of: int = 0


_popularity = msgspec.json.Decoder(_Popularity).decode


def _popular(raw: bytes) -> Popular:
    found = _popularity(raw)
    return Popular(found.seen.weight, found.bought.weight, found.as_of)


def popularity_from(copy: Copy) -> Popularity:
    """How often a product is in baskets, as published; 0 for one that is not."""

    def popularity(product: str) -> Popular:
        return copy.read(product_key(product), _popular) or Popular(0.0, 0.0)

    return popularity


def product_results(shelf: Shelf, product: str, *, topic: str, half_life_days: float | None) -> bytes | None:
    """A product's neighbours from its baskets of all days that are kept."""
    days = [
        (start, seen, bought, seen_with, bought_with)
        for start, (seen, bought, seen_with, bought_with) in shelf.cells("baskets_by_product", product)
    ]
    if not days:
        return None
    popularity = popularity_from(shelf.copies[topic])
    return encode(neighbours(product, days, popularity, NEIGHBOURS, half_life_days=half_life_days))


def neighbours_from(copy: Copy) -> Callable[[str], ProductNeighbours | None]:
    """A product's neighbours as published."""

    def neighbours_of(product: str) -> ProductNeighbours | None:
        raw = copy.get(product_key(product))
        return None if raw is None else _decode(raw)

    return neighbours_of


def related_from(copy: Copy) -> NeighboursOf:
    """What is related to a product, as published."""

    def related_to(product: str) -> Related | None:
        raw = copy.get(product_key(product))
        return None if raw is None else _related(raw)

    return related_to


@lru_cache(RELATED_KEPT)
def _related(raw: bytes) -> Related:
    return related(_decode(raw))


def touched(recent: Iterable[Sequence[Any]], purchases: Iterable[Sequence[Any]]) -> list[Touched]:
    """What a user touched, from the states of `recent_by_user` and `bought_by_user`."""
    found: list[Touched] = []
    for at, touch in recent:
        action, _, product = touch.partition(" ")
        found.append((product, action, at))
    for at, _, _, *products in purchases:
        found += [(product, "bought", at) for product in products if product != LEFT_OUT]
    return found


def user_results(shelf: Shelf, user: str, *, topic: str) -> bytes | None:
    """A user's recommendations; None where nothing that they touched has neighbours.

    Once they have bought something it is an empty list instead: what was recommended before may be what they bought.
    """
    recent = [pair for _, states in shelf.cells("recent_by_user", user) for pair in states[0]]
    orders = [order for _, states in shelf.cells("bought_by_user", user) for order in states[0][1]]
    known = touched(recent, orders)
    if not known:
        return None
    now = max(at for _, _, at in known)
    bought = {product for product, action, _ in known if action == "bought"}
    found = recommend(known, bought, related_from(shelf.copies[topic]), (), RECOMMENDED, now_ms=now)
    return encode(UserRecommendations(user, now, tuple(found))) if found or bought else None
