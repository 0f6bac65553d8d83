"""Figures of `millrace perf` mean what Kafka's own tools mean by them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.admin.perf import MEGABYTE, Consumed, Load, Produced, percentiles


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1, exclude_max=True))
def test_a_percentile_is_the_sorted_value_at_its_share_of_the_count(latencies: list[float], share: float) -> None:
    assert percentiles(latencies, [share]) == (sorted(latencies)[math.floor(share * len(latencies))],)


def test_of_one_latency_all_percentiles_are_that() -> None:
    assert percentiles([3.5]) == (3.5, 3.5, 3.5, 3.5)


def test_a_megabyte_is_1024_times_1024_bytes() -> None:
    done = Produced(1024, 1024 * 1024, 2.0, 1.0, 1.0, (1.0, 1.0, 1.0, 1.0))
    assert (done.rate, done.megabytes) == (512, 0.5)
    assert Consumed(10, 5 * MEGABYTE, 2.0, 1.0).megabytes == 2.5


def test_fetching_is_counted_without_joining() -> None:
    done = Consumed(1000, 1000, seconds=4.0, join_s=2.0)
    assert (done.rate, done.fetch_rate) == (250, 500)


@pytest.mark.parametrize(("acks", "idempotent"), [("all", True), ("1", False), ("0", False)])
def test_only_what_all_replicas_have_is_idempotent(acks: str, idempotent: bool) -> None:
    assert Load(1, acks=acks).config()["enable.idempotence"] is idempotent


@pytest.mark.parametrize("bad", [{"records": 0}, {"records": 1, "size": 0}, {"records": 1, "rate": -1.0}])
def test_an_impossible_load_cannot_be_declared(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Load(**bad)  # type: ignore[arg-type]  # wrong on purpose
