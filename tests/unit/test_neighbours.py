"""Neighbours equal a plain computation over all baskets, with and without decay."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from math import sqrt
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.baskets import by_product
from agents.neighbours import DAY_MS, FORMERLY_AS_OF, Day, Popular, neighbours, weighed
from streams.events import Neighbour, ProductBasket, ProductNeighbours
from tables.aggregates import Sum, Tally

LAST_DAY = 2_932_896  # 9999-12-31
Basket = tuple[int, str, tuple[str, ...]]
"""`(day, kind, products)`"""


class Counted:
    """The table of products by day, folded basket by basket."""

    def __init__(self, cap: int = 500) -> None:
        self._row: list[Any] = [Sum(), Sum(), Tally(cap), Tally(cap)]
        self.cells: defaultdict[str, dict[int, list[Any]]] = defaultdict(dict)

    def add(self, basket: Basket) -> None:
        day, kind, products = basket
        event = ProductBasket("id", kind, products, products, day * DAY_MS)  # type: ignore[arg-type]
        for product, *values in by_product(event):
            cell = self.cells[product].setdefault(day, [one.initial() for one in self._row])
            cell[:] = [one.add(state, value) for one, state, value in zip(self._row, cell, values, strict=True)]

    def days(self, product: str) -> list[Day]:
        return [(day * DAY_MS, *cell) for day, cell in sorted(self.cells[product].items())]

    def of(self, product: str, k: int, half_life: float | None = None) -> ProductNeighbours:
        def popularity(other: str) -> Popular:
            return weighed(((start, seen, bought) for start, seen, bought, _, _ in self.days(other)), half_life)

        return neighbours(product, self.days(product), popularity, k, half_life_days=half_life)


def plain(baskets: list[Basket], kind: str, product: str, half_life: float | None) -> list[tuple[str, float, float]]:
    """Every neighbour of a product with its cosine, by walking over all baskets; nearest first, ties by id."""
    count: Counter[str] = Counter()
    pairs: Counter[frozenset[str]] = Counter()
    for day, of, products in baskets:
        if of == kind:
            weight: Any = 1 if half_life is None else 2 ** ((day - 20_000) / half_life)
            for one in products:
                count[one] += weight
            for pair in combinations(products, 2):
                pairs[frozenset(pair)] += weight
    scored = [
        (other, together / sqrt(count[product] * count[other]), together)
        for pair, together in pairs.items()
        if product in pair
        for other in pair - {product}
    ]
    return sorted(scored, key=lambda one: (-one[1], one[0]))


def listed(found: tuple[Neighbour, ...]) -> list[tuple[str, float, float]]:
    return [(one.product_id, one.score, one.together) for one in found]


def drawn(chance: Random, products: int, number: int) -> Iterator[Basket]:
    for _ in range(number):
        chosen = {str(int(products * chance.random() ** 3)) for _ in range(chance.randint(1, 6))}
        yield 20_000 + chance.randrange(5), chance.choice(["seen", "bought"]), tuple(sorted(chosen))


baskets = st.lists(
    st.tuples(
        st.integers(20_000, 20_003),
        st.sampled_from(["seen", "bought"]),
        st.sets(st.sampled_from("abcdef"), min_size=1).map(lambda products: tuple(sorted(products))),
    ),
    max_size=30,
)


@settings(max_examples=80)
@given(baskets, st.sampled_from([None, 1.0, 7.0]))
def test_neighbours_are_those_of_a_batch_computation(given: list[Basket], half_life: float | None) -> None:
    counted = Counted()
    for basket in given:
        counted.add(basket)
    for product in "abcdef":
        found = counted.of(product, 10, half_life)
        for kind, hood in (("seen", found.seen), ("bought", found.bought)):
            newest = max(counted.cells[product], default=20_000)
            scale = 1 if half_life is None else 2 ** ((20_000 - newest) / half_life)
            expected = {
                other: (score, scale * together) for other, score, together in plain(given, kind, product, half_life)
            }
            assert {one.product_id for one in hood.neighbours} == expected.keys()
            assert hood.error == 0
            for one in hood.neighbours:
                assert (one.score, one.together) == pytest.approx(expected[one.product_id])


def test_without_decay_counts_scores_and_order_are_exactly_those_of_the_batch() -> None:
    given = list(drawn(Random(1), 200, 5_000))
    counted = Counted()
    for basket in given:
        counted.add(basket)
    for product in map(str, range(0, 200, 10)):
        found = counted.of(product, 10)
        assert listed(found.seen.neighbours) == plain(given, "seen", product, None)[:10]
        assert listed(found.bought.neighbours) == plain(given, "bought", product, None)[:10]


def test_a_full_tally_says_how_far_it_may_be_off() -> None:
    given = list(drawn(Random(2), 400, 5_000))
    counted = Counted(cap=20)
    for basket in given:
        counted.add(basket)
    expected = {other: together for other, _, together in plain(given, "seen", "0", None)}
    seen = counted.of("0", 10).seen
    assert seen.error > 0
    for one in seen.neighbours:
        assert expected[one.product_id] - seen.error <= one.together <= expected[one.product_id]


def test_decay_depends_on_no_particular_day() -> None:
    given = list(drawn(Random(3), 30, 500))
    earlier, later = Counted(), Counted()
    for day, kind, products in given:
        earlier.add((day, kind, products))
        later.add((day + 900, kind, products))
    for product in map(str, range(10)):
        one, other = earlier.of(product, 5, 7.0).seen, later.of(product, 5, 7.0).seen
        assert [n.score for n in one.neighbours] == pytest.approx([n.score for n in other.neighbours])


half_lives = st.floats(0, 10_000, exclude_min=True, allow_subnormal=True) | st.sampled_from([0.5, 1.0, 1.5, 7.0])
spread = st.lists(
    st.tuples(
        st.integers(0, 60),
        st.sampled_from(["seen", "bought"]),
        st.sets(st.sampled_from("abcdef"), min_size=2).map(lambda products: tuple(sorted(products))),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=200)
@given(spread, half_lives, st.integers(0, LAST_DAY - 60))
def test_scores_are_the_same_to_the_bit_in_any_year_and_above_0(
    given: list[Basket], half_life: float, first: int
) -> None:
    now, then = Counted(), Counted()
    for day, kind, products in given:
        now.add((20_000 + day, kind, products))
        then.add((first + day, kind, products))
    for product in now.cells:
        one, other = now.of(product, 10, half_life), then.of(product, 10, half_life)
        assert (one.seen, one.bought) == (other.seen, other.bought)
        assert other.as_of - one.as_of == (first - 20_000) * DAY_MS
        for neighbour in (*one.seen.neighbours, *one.bought.neighbours):
            assert 0 < neighbour.score < 1.000_001
            assert neighbour.together > 0


@given(st.integers(0, LAST_DAY), st.integers(0, LAST_DAY), half_lives)
def test_products_however_many_years_apart_are_compared(mine: int, other: int, half_life: float) -> None:
    days: list[Day] = [(mine * DAY_MS, 1, 0, [{"other": 1}, 0], [{}, 0])]
    popular = weighed([(other * DAY_MS, 10**9, 0)], half_life)
    (found,) = neighbours("p", days, lambda _: popular, half_life_days=half_life).seen.neighbours
    assert 0 < found.score <= 1


def test_what_was_weighed_from_a_fixed_day_before_is_still_understood() -> None:
    days: list[Day] = [(20_021 * DAY_MS, 4, 0, [{"other": 2}, 0], [{}, 0])]
    new = weighed([(20_007 * DAY_MS, 64, 0)], 7)
    old = Popular(128.0, 0.0)
    assert FORMERLY_AS_OF == 20_001 * DAY_MS
    assert neighbours("p", days, lambda _: old, half_life_days=7) == neighbours(
        "p", days, lambda _: new, half_life_days=7
    )


def test_a_product_that_nobody_knows_has_no_neighbours() -> None:
    found = neighbours("p", [], lambda _: Popular(0, 0), half_life_days=7)
    assert (found.seen.neighbours, found.bought.baskets, found.as_of) == ((), 0, 0)
