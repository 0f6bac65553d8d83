"""Laws of windows: they cover time as they say, and merging their slices equals folding them directly."""

from functools import reduce
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tables.aggregates import Sum
from tables.windows import Hopping, Sliding, Tumbling, Window, parse_duration, slice_start, slices_of

TIMES = st.integers(-(10**6), 2**45)
SLICES = st.integers(1, 100_000)
SPANS = st.tuples(TIMES, st.integers(1, 10**6)).map(lambda t: (t[0], t[0] + t[1]))


@st.composite
def hoppings(draw: st.DrawFn) -> Hopping:
    slice_ms = draw(SLICES)
    hops = draw(st.integers(1, 10))
    return Hopping(slice_ms * (hops + draw(st.integers(0, 20))), slice_ms * hops, slice_ms)


tumblings = st.builds(lambda slice_ms, n: Tumbling(slice_ms * n, slice_ms), SLICES, st.integers(1, 60))


@given(at=TIMES, slice_ms=SLICES)
def test_a_slice_holds_its_time_and_is_aligned_to_the_epoch(at: int, slice_ms: int) -> None:
    start = slice_start(at, slice_ms)
    assert start <= at < start + slice_ms
    assert start % slice_ms == 0


@given(at=TIMES, tumbling=tumblings)
def test_each_time_is_in_exactly_one_tumbling_window(at: int, tumbling: Tumbling) -> None:
    windows = list(tumbling.windows_at(at))
    assert windows == [tumbling.window_at(at)]
    assert at in windows[0]


@given(span=SPANS, slice_ms=st.integers(10_000, 100_000), n=st.integers(1, 9))
def test_tumbling_windows_cover_a_span_and_do_not_overlap(span: tuple[int, int], slice_ms: int, n: int) -> None:
    windows = list(Tumbling(slice_ms * n, slice_ms).windows(*span))
    assert span[0] in windows[0]
    assert span[1] - 1 in windows[-1]
    assert all(a.end_ms == b.start_ms for a, b in pairwise(windows))


@given(at=TIMES, hopping=hoppings())
def test_the_windows_at_a_time_are_all_that_hold_it(at: int, hopping: Hopping) -> None:
    found = list(hopping.windows_at(at))
    near = range(slice_start(at, hopping.hop_ms) - 40 * hopping.hop_ms, at + 1, hopping.hop_ms)
    assert found == [w for start in near if at in (w := Window(start, start + hopping.size_ms))]
    assert found == list(hopping.windows(at, at + 1))
    assert hopping.size_ms // hopping.hop_ms <= len(found) <= -(-hopping.size_ms // hopping.hop_ms)


@given(times=st.lists(st.integers(0, 10**6), max_size=60), hopping=hoppings())
def test_merging_slices_equals_folding_the_window_directly(times: list[int], hopping: Hopping) -> None:
    slices: dict[int, int] = {}
    for at in times:
        start = slice_start(at, hopping.slice_ms)
        slices[start] = Sum().add(slices.get(start, 0), at)
    for window in hopping.windows_at(times[0] if times else 0):
        merged = reduce(Sum().merge, (slices.get(start, 0) for start in hopping.slices(window)), 0)
        assert merged == sum(at for at in times if at in window)


@given(at=TIMES, slice_ms=SLICES, n=st.integers(1, 60))
def test_a_sliding_window_ends_with_the_running_slice(at: int, slice_ms: int, n: int) -> None:
    sliding = Sliding(slice_ms * n, slice_ms)
    window = sliding.window_to(at)
    assert window == next(sliding.windows_at(at))
    assert list(sliding.slices(window))[-1] == slice_start(at, slice_ms)
    assert len(sliding.slices(window)) == n


@given(number=st.integers(1, 10**9 - 1), unit=st.sampled_from([("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)]))
def test_durations_are_whole_numbers_of_their_unit(number: int, unit: tuple[str, int]) -> None:
    assert parse_duration(f"{number}{unit[0]}") == number * unit[1] * 1000


@pytest.mark.parametrize("text", ["", "5", "m", "0m", "-1m", "1.5m", "1M", "5 m", "1m ", "1h30m", "٣m", "1w"])
def test_other_texts_are_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="such as 5m"):
        parse_duration(text)


def test_windows_that_cut_slices_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the slice"):
        Tumbling(90_000)
    with pytest.raises(ValueError, match="multiple of the slice"):
        Hopping(120_000, 30_000)
    with pytest.raises(ValueError, match="gaps"):
        Hopping(60_000, 120_000)
    with pytest.raises(ValueError, match="longer than 0"):
        Sliding(60_000, 0)
    with pytest.raises(ValueError, match="whole slices"):
        slices_of(Window(0, 90_000), 60_000)
    with pytest.raises(ValueError, match="empty"):
        Window(5, 5)


def test_an_empty_span_has_no_windows() -> None:
    assert list(Tumbling(60_000).windows(60_000, 60_000)) == []
