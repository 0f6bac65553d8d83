"""Baskets: products seen together in a session or bought together in an order, sent to where the products are counted.

A product is counted in one partition only: that of the key `product-<id>` by `key_hash`. A basket is sent once to each
partition that counts one of its products, as a `ProductBasket` that names all products and those that are the
partition's *own*; its id is made from what it came from, so that a repeat is known as one.

- *seen*: what a session viewed or carted. Sessions of more than `max_products` such products or more than `max_events`
  events, and truncated ones, send nothing: that is how bots browse, and pairs grow with the square (`oversized`).
- *bought*: the products of an `order.placed`, with the same bound on their number.

A basket of one product counts towards its popularity alone, and one without products is not sent.

A product whose id is longer than `ID_BYTES` is passed over where baskets are counted, as if it had not been in them
(`is_counted`): it is no one's neighbour and has none. So what is kept of a product fits one record, whatever was beside
it. Such a product still counts where a basket's size is judged.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

from streams.codecs import encode, product_key
from streams.events import OrderEvent, ProductBasket, UserSession, event_time_ms
from streams.partitioners import key_hash

MAX_PRODUCTS = 50
MAX_EVENTS = 500
# In UTF-8: all ids of 256 ASCII characters, and 160 of three bytes each. The table keeps up to 1,000 ids of what a
# product was seen with on a day, and as many of what it was bought with, in one record: with their counts 976 KB at
# most, and Kafka takes 1 MB.
ID_BYTES = 480

Sent = tuple[int, bytes, bytes]
"""`(partition, key, value)`"""
BasketRow = tuple[str, int, int, list[str] | None, list[str] | None]


def oversized(session: UserSession, max_products: int = MAX_PRODUCTS, max_events: int = MAX_EVENTS) -> bool:
    """Whether a session sends no basket for being too large."""
    return session.truncated or session.events > max_events or len(_seen(session)) > max_products


def seen_baskets(
    session: UserSession, partitions: int, *, max_products: int = MAX_PRODUCTS, max_events: int = MAX_EVENTS
) -> list[Sent]:
    """The records of a session's basket, by partition."""
    if oversized(session, max_products, max_events):
        return []
    return _sent("seen", session.event_id, _seen(session), session.end, partitions)


def bought_baskets(
    order: OrderEvent, partitions: int, at_ms: int = 0, *, max_products: int = MAX_PRODUCTS
) -> list[Sent]:
    """The records of an order's basket, by partition; `at_ms` is its time if it has none of its own."""
    if order.event_type != "order.placed":
        return []
    products = {f"{line.product_id}" for line in order.items}
    if len(products) > max_products:
        return []
    at = event_time_ms(order, at_ms)
    return _sent("bought", order.event_id or f"{order.order_id}:{at}", products, at, partitions)


def by_product(basket: ProductBasket) -> list[BasketRow]:
    """`(product, seen, bought, seen with, bought with)` for each own product: two Sums and two Tallies."""
    products = list(filter(is_counted, basket.products))
    seen = basket.kind == "seen"
    rows: list[BasketRow] = []
    for own in filter(is_counted, basket.own):
        others = [product for product in products if product != own]
        rows.append((own, 1, 0, others, None) if seen else (own, 0, 1, None, others))
    return rows


def is_counted(product: str) -> bool:
    """Whether a product's id is short enough for what it is kept with.

    >>> is_counted("x" * 256), is_counted("\N{HANGUL SYLLABLE GA}" * 160), is_counted("\N{HANGUL SYLLABLE GA}" * 161)
    (True, True, False)
    """
    return len(product) * 4 <= ID_BYTES or len(product.encode()) <= ID_BYTES


def partition_of(product: str, partitions: int) -> int:
    """Where a product is counted."""
    return key_hash(product_key(product), partitions)


# The hash takes 3 us in Python. A popular product comes often, and 64k entries of 1M products are most of what comes.
_partition_of = lru_cache(65_536)(partition_of)


def _seen(session: UserSession) -> set[str]:
    return {*session.viewed, *session.carted}


def _sent(
    kind: Literal["seen", "bought"], origin: str, products: Iterable[str], at: int, partitions: int
) -> list[Sent]:
    every = tuple(sorted(products))
    owners: dict[int, list[str]] = {}
    for product in every:
        owners.setdefault(_partition_of(product, partitions), []).append(product)
    return [(number, *_record(kind, origin, every, own, at)) for number, own in sorted(owners.items())]


def _record(
    kind: Literal["seen", "bought"], origin: str, products: tuple[str, ...], own: Sequence[str], at: int
) -> tuple[bytes, bytes]:
    basket = ProductBasket(f"{kind}:{origin}", kind, products, tuple(own), at)
    return product_key(own[0]), encode(basket)
