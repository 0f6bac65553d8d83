"""Baskets: each product is counted once and in one place, each pair from both sides."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.baskets import bought_baskets, by_product, oversized, partition_of, seen_baskets
from streams.codecs import decoder
from streams.events import OrderEvent, OrderLine, ProductBasket, UserSession

decode = decoder(ProductBasket)


def session(viewed: list[str], carted: tuple[str, ...] = (), events: int = 5, **more: Any) -> UserSession:
    return UserSession("7:1", "7", 1, 9, 9, events, tuple(viewed), carted, **more)


def test_a_basket_goes_once_to_each_partition_that_counts_one_of_its_products() -> None:
    products = [str(n) for n in range(10)]
    sent = seen_baskets(session(products), 4)
    numbers = [number for number, _, _ in sent]
    assert numbers == sorted({partition_of(product, 4) for product in products})
    for number, key, value in sent:
        basket = decode(value)
        assert basket.products == tuple(products)
        assert basket.own == tuple(p for p in products if partition_of(p, 4) == number)
        assert key == b"product-" + basket.own[0].encode()
        assert (basket.event_id, basket.kind, basket.occurred_at) == ("seen:7:1", "seen", 9)


@given(st.lists(st.sets(st.integers(0, 30).map(str), max_size=8), max_size=10), st.integers(1, 5))
def test_rows_of_all_partitions_count_every_product_and_pair(baskets: list[set[str]], partitions: int) -> None:
    products: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    places: dict[str, set[int]] = {}
    for basket in baskets:
        for number, _, value in seen_baskets(session(sorted(basket)), partitions):
            for product, seen, bought, seen_with, bought_with in by_product(decode(value)):
                assert (bought, bought_with) == (0, None)
                products[product] += seen
                pairs.update((product, other) for other in seen_with or [])
                places.setdefault(product, set()).add(number)
    assert products == Counter(product for basket in baskets for product in basket)
    assert pairs == Counter((a, b) for basket in baskets for a in basket for b in basket if a != b)
    assert all(len(numbers) == 1 for numbers in places.values())


def test_seen_is_what_was_viewed_or_carted() -> None:
    ((_, _, value),) = seen_baskets(session(["1", "2"], ("3", "2"), removed=("9",), bought=("8",)), 1)
    assert decode(value).products == ("1", "2", "3")


@pytest.mark.parametrize(
    "large",
    [session([str(n) for n in range(51)]), session(["1", "2"], events=501), session(["1", "2"], truncated=True)],
)
def test_a_bots_session_sends_nothing(large: UserSession) -> None:
    assert oversized(large)
    assert seen_baskets(large, 4) == []


def test_one_product_counts_for_its_popularity_and_none_is_not_sent() -> None:
    ((_, _, value),) = seen_baskets(session(["1"]), 4)
    assert by_product(decode(value)) == [("1", 1, 0, [], None)]
    assert seen_baskets(session([]), 4) == bought_baskets(OrderEvent(1, 7, 5), 4) == []


def test_an_order_is_a_basket_of_its_distinct_products_when_placed() -> None:
    lines = (OrderLine(1), OrderLine("1"), OrderLine(2))
    ((_, _, value),) = bought_baskets(OrderEvent(1, 7, 5, "e", occurred_at=6, items=lines), 1)
    assert decode(value) == ProductBasket("bought:e", "bought", ("1", "2"), ("1", "2"), 6)
    assert by_product(decode(value)) == [("1", 0, 1, None, ["2"]), ("2", 0, 1, None, ["1"])]
    assert bought_baskets(OrderEvent(1, 7, 5, event_type="order.paid", items=lines), 1) == []
    assert bought_baskets(OrderEvent(1, 7, 5, items=tuple(OrderLine(n) for n in range(51))), 1) == []
    ((_, _, value),) = bought_baskets(OrderEvent(1, 7, 5, items=lines), 1, at_ms=8)
    assert (decode(value).event_id, decode(value).occurred_at) == ("bought:1:8", 8)


@pytest.mark.parametrize(
    ("product", "counts"),
    [
        ("x" * 256, True),
        ("я" * 240, True),
        ("я" * 241, False),
        ("가" * 160, True),
        ("가" * 161, False),
        ("😀" * 121, False),
    ],
)
def test_a_product_counts_in_baskets_unless_its_id_is_of_more_than_480_bytes(*, product: str, counts: bool) -> None:
    with_it, without = session(["1", "2", product]), session(["1", "2"])
    ((_, _, value),), ((_, _, expected),) = seen_baskets(with_it, 1), seen_baskets(without, 1)
    rows = {row[0]: row for row in by_product(decode(value))}
    assert rows.keys() == ({"1", "2", product} if counts else {"1", "2"})
    if counts:
        assert rows["1"] == ("1", 1, 0, ["2", product], None)
        assert rows[product] == (product, 1, 0, ["1", "2"], None)
    else:
        assert list(rows.values()) == by_product(decode(expected))


def test_the_longest_ids_still_make_an_id_that_decodes() -> None:
    long = "x" * 256
    ((_, _, value),) = bought_baskets(OrderEvent(long, long, 5, long, occurred_at=6, items=(OrderLine(long),)), 1)
    assert decode(value).own == (long,)
