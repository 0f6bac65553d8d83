"""Times as they are typed, and tables as scripts read them."""

import time

import pytest

from streams.errors import MillraceError
from topologies.cli.showing import print_table
from topologies.cli.times import moment_or_ago, shown


def test_a_time_is_iso_epoch_or_so_long_ago() -> None:
    assert moment_or_ago("1970-01-01T00:00:01Z", "--at") == 1000
    assert moment_or_ago("1500", "--at") == 1500
    assert moment_or_ago("2h", "--at") == pytest.approx(time.time() * 1000 - 7_200_000, abs=5_000)


def test_what_is_no_time_names_its_option() -> None:
    with pytest.raises(MillraceError, match="--at 'yesterday' is no time"):
        moment_or_ago("yesterday", "--at")


def test_a_time_that_no_calendar_has_is_shown_as_it_is() -> None:
    assert shown(10**17) == str(10**17)
    assert shown(-1) == "1969-12-31 23:59:59.999Z"


def test_columns_stand_under_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("topic", "lag"), [("orders", 12345), ("x", None)])
    assert capsys.readouterr().out == "topic      lag\norders  12,345\nx            -\n"


def test_no_rows_are_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("topic",), [])
    assert capsys.readouterr().out == ""
