"""Whatever is asked, changed, evicted in between: a rollup says what merging every partial anew would say."""

from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tables import rollup
from tables.aggregates import Distinct, Quantiles, Sum
from tables.rollup import Partials, Rollup
from tables.table import Table

SLICE = 1_000
SLICES = 130
TABLE = Table("t", {"sum": Sum(), "ids": Distinct(), "values": Quantiles()}, fold=lambda event: ())

slices = st.integers(0, SLICES - 1)
keys = st.sampled_from("abc")
puts = st.tuples(
    st.just("put"), st.integers(0, 2), st.dictionaries(st.tuples(slices, keys), st.integers(0, 9), max_size=8)
)
drops = st.tuples(st.just("drop"), st.integers(0, 2), st.lists(st.tuples(slices, keys), max_size=4))
asks = st.tuples(st.sampled_from(["all", "one", "steps"]), slices, st.integers(1, SLICES))


def cell(value: int, stamp: int) -> bytes:
    made = TABLE.row.new_cell()
    made[0] = stamp
    made[4:] = [value, TABLE.aggregates["ids"].add(made[5], value), {value: 1}]
    return TABLE.row.encode(made, 0)


class Shelf:
    """Every partial, and the rollup that was told of each change."""

    def __init__(self, budget: int) -> None:
        self.values: dict[tuple[int, str], dict[int, bytes]] = {}
        self.slices_read = 0
        self.keys_read = 0
        self.rollup = Rollup(TABLE, SLICE, Partials(self.of_slice, self.of_key), budget)

    def of_slice(self, start: int) -> dict[str, dict[int, bytes]]:
        self.slices_read += 1
        return {key: dict(found) for (at, key), found in self.values.items() if at == start}

    def of_key(self, start: int, key: str) -> dict[int, bytes]:
        self.keys_read += 1
        return dict(self.values.get((start, key), {}))

    def change(self, partition: int, changes: dict[tuple[int, str], bytes | None]) -> None:
        for cell_, raw in changes.items():
            found = self.values.setdefault(cell_, {})
            if raw is not None:
                found[partition] = raw
            else:
                found.pop(partition, None)
            if not found:
                del self.values[cell_]
        self.rollup.change(partition, changes)

    def weighed(self) -> int:
        return sum(block.weight for block in self.rollup._blocks.values())

    def expected(self, start: int, end: int) -> dict[str, Any]:
        cells: dict[str, list[Any]] = {}
        for (at, key), found in self.values.items():
            if start <= at < end:
                cells.setdefault(key, []).extend(TABLE.row.decode(raw)[1] for raw in found.values())
        return {key: TABLE.row.results(TABLE.row.merge(one)) for key, one in cells.items()}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollup, "HOT_SLICES", 2)
    monkeypatch.setattr(rollup, "SPANS_KEPT", 2)
    monkeypatch.setattr(rollup, "ALONE_KEPT", 20)
    monkeypatch.setattr(rollup, "STEP_S", 0.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(puts, drops, asks), max_size=40), st.sampled_from([0, 3_000, 1 << 20]))
def test_it_says_what_merging_everything_anew_says(steps: list[Any], budget: int) -> None:
    shelf = Shelf(budget)
    for number, (what, first, second) in enumerate(steps):
        if what == "put":
            shelf.change(first, {(at * SLICE, key): cell(v, number) for (at, key), v in second.items()})
        elif what == "drop":
            shelf.change(first, dict.fromkeys((at * SLICE, key) for at, key in second))
        else:
            start, end = first * SLICE, min(first + second, SLICES) * SLICE
            expected = shelf.expected(start, end)
            if what == "one":
                assert shelf.rollup.result(start, end, "a") == expected.get("a")
                assert shelf.rollup.result(start, end, "a") == expected.get("a")
                assert shelf.weighed() == shelf.rollup.weight
                continue
            if what == "steps":
                deque(shelf.rollup.steps(start, end), maxlen=0)
            assert shelf.rollup.results(start, end) == expected
            assert shelf.rollup.keys(start, end) == set(expected)
        assert shelf.weighed() == shelf.rollup.weight


@settings(max_examples=60, deadline=None)
@given(
    st.lists(puts, max_size=6),
    st.lists(st.one_of(puts, drops, asks), max_size=30),
    st.sampled_from([0, 3_000, 1 << 20]),
)
def test_what_changes_between_the_steps_of_a_merge_is_in_its_results(
    first: list[Any], meanwhile: list[Any], budget: int
) -> None:
    shelf, whole = Shelf(budget), (0, SLICES * SLICE)
    for number, (_, partition, values) in enumerate(first):
        shelf.change(partition, {(at * SLICE, key): cell(v, number) for (at, key), v in values.items()})
    shelf.rollup.results(*whole)
    for number, (what, one, two) in enumerate(meanwhile, len(first)):
        stepping = shelf.rollup.steps(*whole)
        next(stepping, None)
        if what == "put":
            shelf.change(one, {(at * SLICE, key): cell(v, number) for (at, key), v in two.items()})
        elif what == "drop":
            shelf.change(one, dict.fromkeys((at * SLICE, key) for at, key in two))
        else:
            asked = (one * SLICE, min(one + two, SLICES) * SLICE)
            if what == "one":
                assert shelf.rollup.result(*asked, "a") == shelf.expected(*asked).get("a")
            else:
                shelf.rollup.results(*asked)
        for _ in range(number % 7):
            next(stepping, None)
        if number % 3:
            deque(stepping, maxlen=0)
            assert shelf.rollup.results(*whole) == shelf.expected(*whole)
        assert shelf.weighed() == shelf.rollup.weight


def test_a_step_merges_no_more_than_it_has_time_for_and_one_that_has_time_merges_all() -> None:
    shelf = Shelf(1 << 20)
    keys = [f"key {number}" for number in range(100)]
    shelf.change(0, {(0, key): cell(1, 0) for key in keys})
    shelf.rollup.results(0, SLICE)
    shelf.change(1, {(0, key): cell(2, 1) for key in keys})
    stepping = shelf.rollup.steps(0, SLICE)
    next(stepping)
    [block] = shelf.rollup._blocks.values()
    assert len(block.stale) == 99
    assert 99 <= sum(1 for _ in stepping) <= 200
    assert shelf.rollup.results(0, SLICE) == shelf.expected(0, SLICE)
    shelf.change(1, {(0, key): cell(3, 2) for key in keys})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollup, "STEP_S", 60.0)
        assert list(shelf.rollup.steps(0, SLICE)) == []


CHANGED = 20
HOUR = (0, 60 * SLICE)


def put_all(shelf: Shelf, stamp: int, slices: int = CHANGED, keys: str = "abcdefghijkl") -> None:
    shelf.change(0, {(at * SLICE, key): cell(stamp, stamp) for at in range(slices) for key in keys})


def changed_hour(budget: int = 1 << 20) -> Shelf:
    """An hour that was asked for, of which the first slices have changed in all keys since."""
    shelf = Shelf(budget)
    put_all(shelf, 0, slices=60)
    shelf.rollup.results(*HOUR)
    put_all(shelf, 1)
    shelf.slices_read = shelf.keys_read = 0
    return shelf


def test_all_keys_of_a_wide_stretch_are_brought_up_to_date_with_one_read_of_each_changed_slice() -> None:
    shelf = changed_hour()
    assert shelf.rollup.results(*HOUR) == shelf.expected(*HOUR)
    assert (shelf.slices_read, shelf.keys_read) == (CHANGED, 0)


@pytest.mark.parametrize("asked", [HOUR, (0, 120 * SLICE), (SLICE, 121 * SLICE)])
def test_a_question_about_one_key_of_a_changed_stretch_reads_that_key_of_the_changed_slices_and_no_slice(
    asked: tuple[int, int],
) -> None:
    shelf = changed_hour()
    read = CHANGED if asked == HOUR else CHANGED + 60  # of the second hour nothing is held
    assert shelf.rollup.result(*asked, "g") == shelf.expected(*asked)["g"]
    assert shelf.slices_read == 0
    assert shelf.keys_read <= read
    shelf.rollup.result(*asked, "g")
    assert shelf.slices_read == 0


def test_what_changes_between_the_steps_of_a_merge_is_read_once_more_and_not_once_a_key() -> None:
    shelf = changed_hour()
    for number, _ in enumerate(shelf.rollup.steps(*HOUR)):
        if number == 2 * CHANGED:
            put_all(shelf, 2)
    assert shelf.rollup.results(*HOUR) == shelf.expected(*HOUR)
    assert shelf.slices_read <= 2 * CHANGED


@pytest.mark.parametrize("stepping", [False, True])
@pytest.mark.parametrize("budget", [0, 30_000])
def test_slices_are_read_a_few_times_at_most_where_there_is_no_room_for_their_blocks(
    budget: int, *, stepping: bool
) -> None:
    shelf = changed_hour(budget)
    if stepping:
        deque(shelf.rollup.steps(*HOUR), maxlen=0)
    assert shelf.rollup.results(*HOUR) == shelf.expected(*HOUR)
    assert shelf.slices_read <= 60 * (len(rollup.LEVELS) if stepping else 1)
    assert shelf.keys_read == 0


@given(slices, st.integers(1, SLICES))
def test_parts_make_up_the_stretch_with_the_fewest_blocks_of_a_level(first: int, length: int) -> None:
    shelf = Shelf(1 << 20)
    start, end = first * SLICE, (first + length) * SLICE
    parts = shelf.rollup.parts(start, end)
    if length == 1:
        assert parts == []
        return
    assert [part[0] for part in parts] == [start, *(part[1] for part in parts[:-1])]
    assert parts[-1][1] == end
    assert all(a % (b - a) == 0 and b - a < end - start for a, b in parts)
    assert len(parts) <= 24 * (length // 1440 + 1) + 2 * (4 + 2 + 3)


def test_the_budget_bounds_what_is_kept() -> None:
    shelf = Shelf(20_000)
    for at in range(SLICES):
        shelf.change(0, {(at * SLICE, key): cell(at, at) for key in "abc"})
    for at in range(SLICES):
        shelf.rollup.results(at * SLICE, (at + 1) * SLICE)
        assert shelf.rollup.weight <= 20_000
