"""Where a reset sets a partition: always at a place that there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.admin.groups import Position
from streams.admin.resetting import Move, Target
from streams.admin.topics import Stretch
from streams.errors import MillraceError
from streams.log import TP

HELD = Stretch(TP("t", 0), first=10, end=20, at=15)
TARGETS = st.sampled_from(["earliest", "latest", "datetime", "offset", "shift"])


def test_each_target_is_what_its_name_says() -> None:
    assert Target("earliest").of(HELD, 12) == 10
    assert Target("latest").of(HELD, 12) == 20
    assert Target("datetime", 0).of(HELD, 12) == 15
    assert Target("offset", 13).of(HELD, 12) == 13
    assert Target("shift", 3).of(HELD, 12) == 15


@given(TARGETS, st.integers(-(2**62), 2**62), st.integers(0, 100), st.integers(0, 100), st.integers(0, 200))
def test_no_target_lies_outside_of_the_partition(kind: str, number: int, first: int, size: int, committed: int) -> None:
    held = Stretch(TP("t", 0), first, first + size, None)
    assert first <= Target(kind, number).of(held, committed) <= first + size  # type: ignore[arg-type]  # one of them


def test_a_time_after_the_last_record_is_the_end() -> None:
    assert Target("datetime", 99).of(Stretch(TP("t", 0), 10, 20, None), 12) == 20


def test_where_the_group_never_was_there_is_nothing_to_shift() -> None:
    with pytest.raises(MillraceError, match=r"no position in t\[0\]"):
        Target("shift", 1).of(HELD, None)


def test_a_move_tells_what_comes_again_and_what_is_passed_over() -> None:
    assert Move(TP("t", 0), before=12, after=10, end=20).again == 2
    assert Move(TP("t", 0), before=12, after=20, end=20).again == -8
    assert Move(TP("t", 0), before=None, after=10, end=20).again == 0


def test_lag_is_known_only_where_something_was_committed() -> None:
    assert Position(TP("t", 0), 12, 10, 20).lag == 8
    assert Position(TP("t", 0), None, 10, 20).lag is None
    assert Position(TP("t", 0), 4, 10, 20).lost == 6
