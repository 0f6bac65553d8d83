"""Laws of every aggregate: no order, no split, no way over the wire changes a result."""

import random
from collections import Counter
from functools import reduce
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tables.aggregates import (
    Aggregate,
    Count,
    Distinct,
    Last,
    Max,
    Min,
    Moments,
    Quantiles,
    Sum,
    Tally,
    TopK,
    Trail,
)

INTS = st.integers(-(2**63), 2**63 - 1)
IDS = INTS | st.text(min_size=1)
AMOUNTS = st.integers(0, 2**53) | st.just(0)
KINDS: dict[str, tuple[Aggregate[Any], st.SearchStrategy[Any]]] = {
    "sum": (Sum(), INTS),
    "count": (Count(), st.integers(0, 5)),
    "min": (Min(), INTS | st.none()),
    "max": (Max(), INTS | st.none()),
    "last": (Last(), st.none() | st.tuples(st.integers(0, 3), st.sampled_from([1, 2, "a"]), INTS)),
    "top-k": (TopK(3), st.none() | st.tuples(st.integers(0, 5), st.sampled_from([1, 2, "a", "b"]))),
    "distinct": (Distinct(), IDS | st.none()),
    "small distinct": (Distinct(lg_k=7), st.integers(0, 400)),
    "quantiles": (Quantiles(), AMOUNTS | st.floats(0, 1e12) | st.none()),
    "trail": (Trail(4), st.none() | st.tuples(st.integers(0, 9), st.sampled_from("vc"), st.sampled_from("abcd"))),
    "moments": (Moments(4), st.none() | st.tuples(st.integers(0, 5), st.sampled_from("+-"), st.sampled_from("abc"))),
    "tally": (Tally(3), st.none() | st.lists(st.sampled_from("abcdef"), unique=True)),
}

each = pytest.mark.parametrize("kind", KINDS)


def folded(aggregate: Aggregate[Any], values: list[Any]) -> Any:
    return reduce(aggregate.add, values, aggregate.initial())


def over_the_wire(aggregate: Aggregate[Any], state: Any) -> Any:
    packed = msgspec.msgpack.encode(aggregate.dump(state))
    return aggregate.load(msgspec.msgpack.decode(packed, strict=False))


@each
@settings(max_examples=40)
@given(data=st.data())
def test_merge_is_associative_commutative_and_equal_to_adding(kind: str, data: st.DataObject) -> None:
    aggregate, strategy = KINDS[kind]
    parts = [data.draw(st.lists(strategy, max_size=60)) for _ in range(3)]
    a, b, c = (folded(aggregate, part) for part in parts)
    direct = aggregate.result(folded(aggregate, [value for part in parts for value in part]))
    merge, result = aggregate.merge, aggregate.result
    assert result(merge(merge(a, b), c)) == direct
    assert result(merge(a, merge(b, c))) == direct
    assert result(merge(c, merge(b, a))) == direct
    assert result(merge(a, aggregate.initial())) == result(a) == result(merge(aggregate.initial(), a))


@each
@settings(max_examples=40)
@given(data=st.data(), seed=st.integers(0, 999))
def test_order_changes_no_result(kind: str, data: st.DataObject, seed: int) -> None:
    aggregate, strategy = KINDS[kind]
    values = data.draw(st.lists(strategy, max_size=200))
    shuffled = random.Random(seed).sample(values, len(values))
    assert aggregate.result(folded(aggregate, shuffled)) == aggregate.result(folded(aggregate, values))


@each
@settings(max_examples=40)
@given(data=st.data())
def test_merge_result_and_dump_change_nothing(kind: str, data: st.DataObject) -> None:
    aggregate, strategy = KINDS[kind]
    a, b, more = (folded(aggregate, data.draw(st.lists(strategy, max_size=30))) for _ in range(3))
    before = [repr(aggregate.dump(state)) for state in (a, b)]
    merged = aggregate.merge(a, b)
    aggregate.result(a)
    for value in data.draw(st.lists(strategy, max_size=5)):
        merged = aggregate.add(merged, value)
    aggregate.merge(merged, more)
    assert [repr(aggregate.dump(state)) for state in (a, b)] == before


@each
@settings(max_examples=40)
@given(data=st.data())
def test_a_way_over_the_wire_changes_nothing(kind: str, data: st.DataObject) -> None:
    aggregate, strategy = KINDS[kind]
    if kind == "sum":
        strategy = st.integers(-(2**40), 2**40)  # wider sums need the row's encoding
    first, rest = (data.draw(st.lists(strategy, max_size=60)) for _ in range(2))
    loaded = over_the_wire(aggregate, folded(aggregate, first))
    assert aggregate.result(loaded) == aggregate.result(folded(aggregate, first))
    assert aggregate.result(reduce(aggregate.add, rest, loaded)) == aggregate.result(folded(aggregate, first + rest))


@each
@settings(max_examples=40)
@given(data=st.data())
def test_generated_source_equals_add(kind: str, data: st.DataObject) -> None:
    aggregate, strategy = KINDS[kind]
    values = data.draw(st.lists(strategy, max_size=60))
    names: dict[str, Any] = {"this": aggregate, "cell": [None, aggregate.initial()]}
    statements = compile(aggregate.add_source("cell[1]", "value", "this"), "<add>", "exec")
    for value in values:
        names["value"] = value
        exec(statements, names)
    assert aggregate.dump(names["cell"][1]) == aggregate.dump(folded(aggregate, values))


@pytest.mark.parametrize("lg_k", [7, 10, 12])
def test_distinct_is_free_of_order_in_every_mode_of_the_sketch(lg_k: int) -> None:
    chance, distinct = random.Random(lg_k), Distinct(lg_k)
    edge = 3 * 2**lg_k // 32  # where the sketch turns from a set into registers
    for size in [7, 8, 9, edge - 1, edge, edge + 1, edge + 2, 2**lg_k, 20_000]:
        ids = [chance.getrandbits(60) for _ in range(size)]
        results = set()
        for _ in range(3):
            chance.shuffle(ids)
            cut = chance.randrange(size)
            a, b = folded(distinct, ids[:cut]), folded(distinct, ids[cut:])
            results |= {distinct.result(s) for s in (folded(distinct, ids), distinct.merge(a, b))}
            results.add(distinct.result(reduce(distinct.add, ids[:cut], over_the_wire(distinct, b))))
        assert len(results) == 1
        assert results.pop() == pytest.approx(size, rel=5 / 2 ** (lg_k / 2))


def test_distinct_tells_ints_strings_and_signs_apart() -> None:
    ids = [0, 1, -1, 2**63 - 1, -(2**63), "1", "-1", "anna", "한글"]
    assert Distinct().result(folded(Distinct(), [*ids, *ids, None])) == len(ids)


@given(values=st.lists(AMOUNTS, min_size=1, max_size=200), rank=st.floats(0, 1))
def test_quantiles_are_as_accurate_as_they_say(values: list[int], rank: float) -> None:
    quantiles = Quantiles(0.02, (rank,))
    (found,) = (quantiles.result(folded(quantiles, values)) or {}).values()
    exact = sorted(values)[int(rank * (len(values) - 1))]
    assert found == pytest.approx(exact, rel=0.02 + 1e-5)


@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("inf")])
def test_quantiles_refuse_what_has_no_bucket(value: float) -> None:
    with pytest.raises(ValueError, match="numbers of 0 and above"):
        Quantiles().add({}, value)


def test_quantiles_memo_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tables.aggregates.quantiles.MEMO", 100)
    quantiles = Quantiles()
    folded(quantiles, list(range(1000)))
    assert len(quantiles.memo) <= 100


def test_top_k_keeps_the_largest_by_value_then_id() -> None:
    pairs = [(5, "a"), (9, "c"), (5, "b"), (5, "b"), (1, "z"), (9, "c"), (7, 3)]
    assert TopK(4).result(folded(TopK(4), pairs)) == [[9, "c"], [7, 3], [5, "b"], [5, "a"]]


def test_empty_results_say_that_nothing_was_added() -> None:
    results = {kind: aggregate.result(aggregate.initial()) for kind, (aggregate, _) in KINDS.items()}
    assert results == {
        "sum": 0,
        "count": 0,
        "min": None,
        "max": None,
        "last": None,
        "top-k": [],
        "distinct": 0,
        "small distinct": 0,
        "quantiles": None,
        "trail": {"steps": [], "dropped": False},
        "moments": {"moments": [], "dropped": False},
        "tally": {"counts": {}, "error": 0},
    }


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: TopK(0),
        lambda: Distinct(3),
        lambda: Quantiles(0),
        lambda: Quantiles(ranks=(2,)),
        lambda: Trail(0),
        lambda: Moments(0),
        lambda: Tally(0),
    ],
)
def test_wrong_parameters_are_refused_at_construction(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"got|give"):
        wrong()


def test_descriptions_are_stable() -> None:
    assert [aggregate.describe() for aggregate, _ in KINDS.values()] == [
        "sum",
        "count",
        "min",
        "max",
        "last",
        "top-k(k=3)",
        "distinct(hll, lg_k=12)",
        "distinct(hll, lg_k=7)",
        "quantiles(ddsketch, accuracy=0.01)",
        "trail(cap=4)",
        "moments(cap=4)",
        "tally(misra-gries, cap=3)",
    ]


@given(
    steps=st.lists(st.tuples(st.integers(0, 30), st.sampled_from("vc"), st.sampled_from("abcdef"))),
    cap=st.integers(1, 8),
)
def test_a_trail_is_the_earliest_first_times(steps: list[tuple[int, str, str]], cap: int) -> None:
    firsts: dict[tuple[str, str], int] = {}
    for at, action, thing in steps:
        firsts[action, thing] = min(at, firsts.get((action, thing), at))
    expected = sorted([at, *pair] for pair, at in firsts.items())
    result = Trail(cap).result(folded(Trail(cap), steps))
    assert result == {"steps": expected[:cap], "dropped": len(expected) > cap}


@given(moments=st.lists(st.tuples(st.integers(0, 30), st.sampled_from("+-"))), cap=st.integers(1, 8))
def test_moments_are_the_smallest_of_the_set(moments: list[tuple[int, str]], cap: int) -> None:
    expected = [list(moment) for moment in sorted(set(moments))]
    result = Moments(cap).result(folded(Moments(cap), moments))
    assert result == {"moments": expected[:cap], "dropped": len(expected) > cap}


@given(
    parts=st.lists(st.lists(st.lists(st.sampled_from("abcdefghijkl"), unique=True), max_size=30), max_size=4),
    cap=st.integers(1, 6),
)
def test_a_tally_is_low_by_at_most_its_error_and_that_is_bounded(parts: list[list[list[str]]], cap: int) -> None:
    tally = Tally(cap)
    counts, error = tally.merge_all([over_the_wire(tally, folded(tally, part)) for part in parts])
    exact = Counter(key for part in parts for keys in part for key in keys)
    assert len(counts) <= 2 * cap
    assert error <= exact.total() / (cap + 1)
    assert all(exact[key] - error <= counts.get(key, 0) <= exact[key] for key in exact)
    assert set(counts) <= set(exact)
    if len(exact) <= 2 * cap:
        assert (counts, error) == (dict(exact), 0)
