"""What the doctor concludes from what it saw: pure parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies.doctor.brokers import release_of
from topologies.doctor.clock import skew_ms
from topologies.doctor.finding import Finding, Fine, Report, Skipped
from topologies.doctor.groups import grows

WARNING = Finding("disk", "disk-full", "warning", "only 1 GiB free", "du -xh /")
ERROR = Finding("broker", "broker-missing", "error", "no Kafka broker runs here", "millrace broker up")


def test_a_report_without_findings_is_healthy_whatever_was_skipped() -> None:
    report = Report((Fine("clock", "right"), Skipped("views", "no view server")))
    assert report.healthy
    assert report.lines()[-1] == "healthy"
    assert report.as_dict()["findings"] == []


def test_errors_come_first_and_each_has_its_mend_below() -> None:
    report = Report((WARNING, ERROR))
    assert report.findings == [ERROR, WARNING]
    assert not report.healthy
    lines = report.lines()
    assert [line.split()[0] for line in lines] == ["error", "mend:", "warning", "mend:", "1"]
    assert lines[1].strip() == "mend: millrace broker up"
    assert lines[-1] == "1 error, 1 warning"


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_group_that_takes_what_comes_is_never_said_to_fall_behind(came: int, behind: int) -> None:
    assert not grows(came, taken=came, behind=behind)


@given(st.integers(10, 10**6))
def test_a_group_that_takes_nothing_is_said_to_fall_behind_once_more_waits_than_came(came: int) -> None:
    assert not grows(came, taken=0, behind=came)
    assert grows(came, taken=0, behind=came + 1)


@given(st.floats(0, 1e12), st.floats(0, 1e4), st.floats(-1e9, 1e9))
def test_skew_is_found_up_to_half_of_the_round_trip(sent: float, trip: float, skew: float) -> None:
    for share in (0.0, 0.5, 1.0):
        told = sent + share * trip + skew
        assert skew_ms(sent, told, sent + trip) == pytest.approx(skew, abs=trip / 2 + 1)


@pytest.mark.parametrize(
    ("known", "release"),
    [
        ({1: (0, 11)}, (0, 0)),
        ({1: (0, 12), 60: (0, 0)}, (2, 8)),
        ({1: (0, 16), 60: (0, 1), 65: (0, 0), 71: (0, 0), 75: (0, 0)}, (3, 8)),
        ({1: (4, 17), 60: (0, 2), 80: (0, 0)}, (4, 0)),
        ({1: (4, 18), 60: (0, 2), 80: (0, 1), 88: (0, 0)}, (4, 1)),
    ],
)
def test_a_release_is_told_by_the_requests_that_it_knows(
    known: dict[int, tuple[int, int]], release: tuple[int, int]
) -> None:
    assert release_of(known) == release
