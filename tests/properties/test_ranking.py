"""Top-n that goes on from its last answer says what ranking everything anew says, ties included."""

import heapq
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from views_shop import MINUTE, T0, follow, line, open_model, order, sales

from tables.read_model import ReadModel
from topologies.driver import Driver
from topologies.views import queries
from topologies.views.news import News
from topologies.views.ranking import Ranking, Top

KEYS = st.integers(0, 40).map("k{}".format)
VALUES = st.dictionaries(KEYS, st.none() | st.integers(-3, 12), max_size=20)
TABLE = "sales_by_product"


@given(st.integers(1, 6), VALUES, st.lists(VALUES, max_size=30))
def test_whatever_changes_the_first_are_those_of_all(
    n: int, begin: dict[str, int | None], changes: list[dict[str, int | None]]
) -> None:
    ranking, ranks = Ranking(n), {key: (-value, key) for key, value in begin.items() if value is not None}
    ranking.rank(ranks.values())
    for change in changes:
        found = {key: None if value is None else (-value, key) for key, value in change.items()}
        ranks.update({key: rank for key, rank in found.items() if rank is not None})
        for key in [key for key, rank in found.items() if rank is None]:
            ranks.pop(key, None)
        if not ranking.change(found):
            ranking.rank(ranks.values())
        assert ranking.first() == heapq.nsmallest(n, ranks.values())


def test_all_are_ranked_again_only_when_half_of_the_kept_fell_behind() -> None:
    ranking = Ranking(10)
    ranking.rank((-value, f"k{value}") for value in range(1_000))
    for key in range(980, 990):
        assert ranking.change({f"k{key}": (0, f"k{key}")})
    assert not ranking.change({"k995": (0, "k995")})


class Shop:
    """Sales of a few products, and the channels' rankings beside them."""

    def __init__(self, directory: Path) -> None:
        self.driver = Driver(sales(partitions=2))
        self.model: ReadModel = open_model(self.driver.topology, directory)
        self.news = News()
        asked = list(product(("revenue", "placed", "units", "orders"), (1, 3), ("", "\x1fUSD")))
        self.tops = {one: Top(self.model, self.news, TABLE, *one) for one in asked}

    def sell(self, minute: int, number: int, amount: int, **fields: Any) -> None:
        items = [line(number, "books", amount)]
        order(self.driver, T0 + minute * MINUTE, amount, number, items=items, partition=number % 2, **fields)

    def apply(self) -> None:
        self.driver.flush()
        self.news.tell(follow(self.model, self.driver))

    def check(self) -> None:
        window = queries.top_window(self.model, TABLE, 3 * MINUTE, None)
        for asked, top in self.tops.items():
            assert top.rows(window) == queries.top_rows(self.model, TABLE, window, *asked)

    def close(self) -> None:
        self.model.close()
        self.driver.close()


SALE = st.tuples(
    st.integers(0, 8),
    st.integers(1, 12),
    st.integers(1, 3),
    st.sampled_from([{}, {}, {"eventType": "order.cancelled"}, {"eventType": "order.refunded"}, {"currency": "USD"}]),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(SALE, max_size=6), min_size=1, max_size=8))
def test_a_channel_says_what_the_plain_answer_says(flushes: list[list[tuple[int, int, int, dict[str, Any]]]]) -> None:
    with TemporaryDirectory() as directory:
        shop = Shop(Path(directory) / "copy")
        for flush in flushes:
            for minute, number, amount, fields in flush:
                shop.sell(minute, number, amount, **fields)
            shop.apply()
            shop.check()
        shop.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path / "copy")
    yield shop
    shop.close()


def test_only_changed_keys_are_ranked_again(shop: Shop) -> None:
    for number in range(100):
        shop.sell(0, number, number + 1)
    shop.apply()
    shop.check()
    assert [top.reranked for (*_, mark), top in shop.tops.items() if not mark] == [0] * 8
    for number in (1, 2, 99):
        shop.sell(0, number, 500)
    shop.apply()
    shop.check()
    assert [top.reranked for (*_, mark), top in shop.tops.items() if not mark] == [3] * 8


def test_a_copy_that_began_anew_is_ranked_anew(shop: Shop) -> None:
    shop.sell(0, 1, 5)
    shop.apply()
    shop.check()
    shop.model.reset()
    shop.news.tell(None)
    shop.check()
    follow(shop.model, shop.driver)
    shop.news.tell(None)
    shop.check()
