"""`millrace bench recommendations --quality` on a small shop, and what it judges with."""

from collections import Counter
from itertools import combinations
from math import sqrt

import pytest

from bench.commands.recommendations import lines
from bench.held_out import Query, by_popularity, hit_rate, kept, queries
from bench.item_cosine import ItemCosine, agree, imported
from bench.quality import Asked, quality
from bench.visits import Visit, Visited, sent, time_of
from streams.errors import MillraceError
from streams.events import OrderEvent, OrderLine, UserActivity
from streams.simulator.settings import ShopSettings

DAY = 86_400_000


def test_a_streamed_shop_equals_the_batch_and_implicit_and_finds_what_is_bought_next() -> None:
    pytest.importorskip("implicit")
    found = quality(Asked(products=60, sessions=1_000, users=150, purchases=200))
    for kind in ("seen", "bought"):
        of = found[kind]
        assert (of["pairs_wrong"], of["popularity_wrong"], of["nearest_differ"], of["counts_low_by"]) == (0, 0, 0, 0)
        assert of["products_compared"] > 50
    assert found["planted"]["recall_by_bought"] > 0.9
    held_out = found["held_out"]
    assert held_out["ours"] > held_out["popularity"]
    assert held_out["ours"] > held_out["implicit"]
    told = "\n".join(lines(found))
    assert "0 pair counts and 0 popularities differ" in told
    assert "hit rate@10" in told


def test_the_cosine_of_implicit_is_the_one_of_the_definition() -> None:
    pytest.importorskip("implicit")
    rows = [{"a", "b"}, {"a", "b", "c"}, {"a"}, {"c", "d"}]
    n = Counter(product for row in rows for product in row)
    pairs = Counter(frozenset(pair) for row in rows for pair in combinations(sorted(row), 2))
    model = ItemCosine(rows, 10)
    for product in "abcd":
        expected = {q: pairs[frozenset((product, q))] / sqrt(n[product] * n[q]) for q in "abcd" if q != product}
        found = dict(model.neighbours(product, 10))
        assert found == pytest.approx({q: score for q, score in expected.items() if score})


def test_a_library_that_is_missing_is_told_of_in_a_line() -> None:
    with pytest.raises(MillraceError, match="compare"):
        imported("not_there_at_all")


def test_lists_agree_only_where_scores_and_names_above_the_last_score_do() -> None:
    ours = [("a", 0.9), ("b", 0.5), ("c", 0.5)]
    assert agree(ours, [("a", 0.9), ("c", 0.5), ("b", 0.5)], 2)
    assert not agree(ours, [("x", 0.9), ("b", 0.5), ("c", 0.5)], 2)
    assert not agree(ours, [("a", 0.9), ("b", 0.4)], 2)
    assert not agree(ours, [("a", 0.9)], 2)
    assert agree([], [], 10)


def viewed(product: int, at: int) -> UserActivity:
    return UserActivity("product.viewed", 1, product_id=product, occurred_at=at)


def ordered(number: int, at: int, *products: int) -> OrderEvent:
    return OrderEvent(number, 1, 5, None, occurred_at=at, items=tuple(OrderLine(product) for product in products))


def test_a_query_holds_what_was_done_before_the_target_was_first_touched() -> None:
    visits = [
        Visit("1", [viewed(7, 1), ordered(1, 2, 7)]),
        Visit("1", [viewed(5, 10), viewed(6, 11), viewed(5, 12), ordered(2, 13, 5, 6)]),
    ]
    (query,) = queries(visits, 1, 10)
    assert query == Query([("7", "bought", 2), ("7", "viewed", 1), ("5", "viewed", 10)], "6")
    assert queries(visits, 2, 10) == []


def test_a_target_that_was_bought_before_is_no_query() -> None:
    assert queries([Visit("1", [ordered(1, 2, 6)]), Visit("1", [viewed(5, 10), ordered(2, 13, 5, 6)])], 1, 10) == []


def test_popularity_names_what_is_bought_most_and_nothing_bought_before() -> None:
    history = [Visit("1", [ordered(n, n, 1, *([2] if n else []), *([3] if n > 1 else []))]) for n in range(3)]
    answer = by_popularity(history)
    assert answer(Query([("1", "bought", 3)], "2")) == ["2", "3"]
    assert hit_rate([Query([("1", "bought", 3)], "2"), Query([("2", "bought", 3)], "9")], answer) == 0.5


def test_of_what_is_known_the_newest_touches_of_three_days_are_kept() -> None:
    known = [("a", "viewed", DAY * day + at) for day in range(5) for at in range(40)]
    found = kept([*known, ("b", "bought", 0)])  # type: ignore[list-item]
    assert len(found) == 3 * 30 + 1
    assert min(at for _, action, at in found if action == "viewed") == 2 * DAY + 10


def test_records_are_sent_out_of_order_and_some_orders_twice() -> None:
    visited = Visited(ShopSettings(products=50, users=20, pairs=5), 500, 1)
    records = list(sent(visited.visits, 1))
    times = [time_of(record.event) for record in records]
    assert times != sorted(times)
    assert [record.at for record in records] == sorted(record.at for record in records)
    ids = Counter(record.event.event_id for record in records)
    assert max(ids.values()) == 2
    assert len(ids) == sum(len(visit.events) for visit in visited.visits)
