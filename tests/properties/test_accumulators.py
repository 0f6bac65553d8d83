"""Laws of accumulators: the generated loop does what the slow one would, once, and bytes lose nothing."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tables.accumulators import (
    DIRTY,
    EVENTS,
    FIRST,
    STAMP,
    STATES,
    Cell,
    RowSpec,
    UnknownFormat,
    WindowsMap,
    decode_key,
    encode_key,
    stamp_of,
)
from tables.aggregates import Count, Distinct, Last, Max, Min, Quantiles, Sum, TopK

SPEC = RowSpec(
    {
        "placed": Sum(),
        "orders": Count(),
        "least": Min(),
        "most": Max(),
        "last": Last(),
        "largest": TopK(2),
        "customers": Distinct(7),
        "value": Quantiles(),
    }
)
AMOUNTS = st.none() | st.integers(0, 10**6)
PAIRS = st.none() | st.tuples(st.integers(0, 9), st.sampled_from(["a", "b", 1]))
ROWS = st.tuples(
    st.sampled_from(["total", "a", "b"]),
    st.integers(-(10**6), 10**6),
    st.integers(0, 3),
    AMOUNTS,
    AMOUNTS,
    st.none() | st.tuples(st.integers(0, 9), st.sampled_from(["a", "b", 1]), st.integers(0, 99)),
    PAIRS,
    st.none() | st.integers(0, 200) | st.text(min_size=1, max_size=2),
    AMOUNTS,
)
Event = tuple[int, list[tuple[Any, ...]]]
EVENTS_OF = st.lists(st.tuples(st.sampled_from([0, 60_000, 120_000]), st.lists(ROWS, max_size=3)), max_size=30)


class Memory:
    """The cells of a table that is only in memory, and what a caller of `apply` keeps for it."""

    def __init__(self) -> None:
        self.windows: WindowsMap = {}
        self.dirty: list[tuple[int, str, Cell]] = []

    def load(self, window: int, key: str) -> Cell:
        cell = self.windows.setdefault(window, {})[key] = SPEC.new_cell()
        return cell

    def apply(self, events: list[Event], base: int = 0, checked: bool = False) -> None:
        loop = SPEC.apply_checked if checked else SPEC.apply
        offsets = list(range(base, base + len(events)))
        windows, rows = [window for window, _ in events], [event_rows for _, event_rows in events]
        loop(offsets, windows, rows, self.windows, self.load, self.dirty)

    def flush(self) -> None:
        for *_, cell in self.dirty:
            cell[DIRTY] = False
        self.dirty.clear()

    def bytes(self) -> dict[tuple[int, str], bytes]:
        cells = ((w, k, cell) for w, found in self.windows.items() for k, cell in found.items())
        return {(w, k): SPEC.encode(cell, 0) for w, k, cell in cells}


def naive(events: list[Event]) -> Memory:
    memory = Memory()
    for offset, (window, rows) in enumerate(events):
        for key, *values in rows:
            cell = memory.windows.get(window, {}).get(key) or memory.load(window, key)
            cell[EVENTS] += cell[STAMP] != offset
            cell[STAMP] = offset
            cell[FIRST] = offset if cell[FIRST] == -1 else cell[FIRST]
            for i, (aggregate, value) in enumerate(zip(SPEC.aggregates.values(), values, strict=True), STATES):
                cell[i] = aggregate.add(cell[i], value)
    return memory


def applied(events: list[Event]) -> Memory:
    memory = Memory()
    memory.apply(events)
    return memory


@given(events=EVENTS_OF)
def test_both_loops_equal_adding_event_by_event(events: list[Event]) -> None:
    checked = Memory()
    checked.apply(events, checked=True)
    assert applied(events).bytes() == checked.bytes() == naive(events).bytes()


@given(events=EVENTS_OF, cuts=st.lists(st.integers(0, 30), max_size=4))
def test_the_split_into_batches_changes_nothing(events: list[Event], cuts: list[int]) -> None:
    split = Memory()
    edges = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    for start, end in pairwise(edges):
        split.apply(events[start:end], start)
        split.flush()
    assert split.bytes() == applied(events).bytes()


@given(events=EVENTS_OF, again=st.integers(0, 30))
def test_a_batch_delivered_again_is_applied_once(events: list[Event], again: int) -> None:
    memory = applied(events)
    before = memory.bytes()
    memory.flush()
    start = min(again, len(events))
    memory.apply(events[start:], start, checked=True)
    assert memory.bytes() == before
    assert memory.dirty == []


@given(events=EVENTS_OF, torn=st.data())
def test_replay_over_cells_that_are_ahead_ends_as_one_run(events: list[Event], torn: st.DataObject) -> None:
    full, memory = applied(events), Memory()
    for window, cells in full.windows.items():
        for key, cell in cells.items():
            if torn.draw(st.booleans()):
                _, memory.windows.setdefault(window, {})[key] = SPEC.decode(SPEC.encode(cell, 0))
    memory.apply(events, checked=True)
    assert {at: SPEC.decode(raw)[1][:STATES] for at, raw in memory.bytes().items()} == {
        at: SPEC.decode(raw)[1][:STATES] for at, raw in full.bytes().items()
    }
    for window, cells in full.windows.items():
        for key, cell in cells.items():
            again = memory.windows[window][key]
            assert SPEC.results(SPEC.merge([again])) == SPEC.results(SPEC.merge([cell]))


@given(events=EVENTS_OF)
def test_each_touched_cell_is_dirty_once(events: list[Event]) -> None:
    memory = applied(events)
    touched = {(window, row[0]) for window, rows in events for row in rows}
    assert len(memory.dirty) == len(touched)
    assert {(window, key) for window, key, _ in memory.dirty} == touched
    assert all(cell is memory.windows[window][key] and cell[DIRTY] for window, key, cell in memory.dirty)


def test_two_rows_of_one_event_on_one_cell_both_count_and_are_one_event() -> None:
    spec = RowSpec({"n": Sum()})
    for loop in (spec.apply, spec.apply_checked):
        memory = Memory()
        cell = spec.new_cell()
        loop([7], [0], [[("a", 2), ("a", 3)]], {0: {"a": cell}}, memory.load, memory.dirty)
        assert cell == [7, 7, 1, True, 5]


@settings(max_examples=50)
@given(events=EVENTS_OF, epoch=st.integers(0, 2**32 - 1))
def test_bytes_lose_nothing(events: list[Event], epoch: int) -> None:
    for cells in applied(events).windows.values():
        for cell in cells.values():
            raw = SPEC.encode(cell, epoch)
            found, loaded = SPEC.decode(raw)
            assert found == epoch
            assert loaded[:STATES] == [*cell[:DIRTY], False]
            assert SPEC.encode(loaded, epoch) == raw


@given(value=st.integers(-(2**200), 2**200))
def test_sums_beyond_64_bits_survive(value: int) -> None:
    spec = RowSpec({"sum": Sum(), "top": TopK(2)})
    cell = [5, 3, 2, True, value, [(-(2**70), "a"), (value, "b")]]
    assert spec.decode(spec.encode(cell, 1)) == (1, [5, 3, 2, False, *cell[STATES:]])


STAMPS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1))


@given(one=STAMPS, other=STAMPS)
def test_stamps_compare_as_bytes_like_epoch_and_offset(one: tuple[int, int], other: tuple[int, int]) -> None:
    spec = RowSpec({"sum": Sum()})
    a, b = (stamp_of(spec.encode([offset, 0, 1, False, 0], epoch)) for epoch, offset in (one, other))
    assert (a < b, a == b) == (one < other, one == other)


@given(a=st.tuples(st.integers(0, 2**63), st.text()), b=st.tuples(st.integers(0, 2**63), st.text()))
def test_keys_sort_by_slice_then_key(a: tuple[int, str], b: tuple[int, str]) -> None:
    assert decode_key(encode_key(*a)) == a
    assert (encode_key(*a) < encode_key(*b)) == ((a[0], a[1].encode()) < (b[0], b[1].encode()))


@given(events=EVENTS_OF, shares=st.lists(st.integers(0, 2), min_size=30, max_size=30))
def test_merged_partials_equal_one_accumulator(events: list[Event], shares: list[int]) -> None:
    one_window = [(0, rows) for _, rows in events]
    partials = [applied([e for e, s in zip(one_window, shares, strict=False) if s == share]) for share in range(3)]
    for key, cell in applied(one_window).windows.get(0, {}).items():
        cells = [found for p in partials if (found := p.windows.get(0, {}).get(key)) is not None]
        before = [SPEC.encode(found, 0) for found in cells]
        assert SPEC.results(SPEC.merge(cells)) == SPEC.results(SPEC.merge([cell]))
        assert [SPEC.encode(found, 0) for found in cells] == before


def test_merging_no_cells_gives_what_nothing_gives() -> None:
    assert SPEC.results(SPEC.merge([])) == SPEC.results(SPEC.new_cell()[STATES:])


def test_the_fingerprint_changes_with_names_order_and_parameters_only() -> None:
    def of(**aggregates: Any) -> str:
        return RowSpec(aggregates).fingerprint

    assert of(a=Sum(), b=Count()) == of(a=Sum(), b=Count()) == "c3993c0df2dd"
    assert len({of(a=Sum(), b=Count()), of(b=Count(), a=Sum()), of(a=Sum(), c=Count()), of(a=Sum())}) == 4
    assert of(a=TopK(2)) != of(a=TopK(3))
    assert of(a=Quantiles(ranks=(0.5,))) == of(a=Quantiles())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x01short",
        RowSpec({f"a{i}": Sum() for i in range(9)}).encode([1, 1, 1, False, *range(9)], 0),
        b"\x02" + SPEC.encode(SPEC.new_cell(), 0)[1:],
        SPEC.encode(SPEC.new_cell(), 0)[:-1],
    ],
    ids=["empty", "short", "a longer row", "a newer version", "cut"],
)
def test_bytes_of_another_kind_are_refused_in_one_line(raw: bytes) -> None:
    with pytest.raises(UnknownFormat, match="bytes are no value of the row placed"):
        SPEC.decode(raw)


GROWN = RowSpec({**SPEC.aggregates, "refunds": Sum(), "buyers": Distinct(7)})


@given(events=EVENTS_OF)
def test_a_cell_from_before_aggregates_were_appended_reads_as_if_they_were_empty(events: list[Event]) -> None:
    for raw in applied(events).bytes().values():
        epoch, cell = GROWN.decode(raw)
        before = SPEC.decode(raw)[1]
        assert SPEC.encode(cell[: STATES + len(SPEC.layout)], epoch) == raw
        assert GROWN.results(cell[STATES:]) == {**SPEC.results(before[STATES:]), "refunds": 0, "buyers": 0}


@given(events=EVENTS_OF)
def test_who_only_reads_leaves_out_aggregates_that_it_does_not_know(events: list[Event]) -> None:
    for raw in applied(events).bytes().values():
        epoch, cell = GROWN.decode(raw)
        longer = GROWN.encode(cell, epoch)
        assert SPEC.encode(SPEC.read(longer), epoch) == raw
        with pytest.raises(UnknownFormat, match="newer"):
            SPEC.decode(longer)


def test_a_row_of_the_wrong_width_touches_no_cell() -> None:
    memory = Memory()
    with pytest.raises(ValueError, match="unpack"):
        memory.apply([(0, [("total", 1)])])
    assert memory.windows == {}


def test_a_row_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one aggregate"):
        RowSpec({})
