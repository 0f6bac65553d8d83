"""When a run begins and how densely it is filled, as plain numbers; and what the command refuses."""

from pathlib import Path

import pytest

from streams.errors import MillraceError
from streams.simulator.run import Sent, plan_run, timestamp_ms
from streams.simulator.settings import TOPICS, ShopSettings
from topologies.cli import main
from topologies.cli.simulate import topic_names
from topologies.cli.times import moment

NOW = 1_750_000_000_000
SHOP = ShopSettings()


def test_a_paced_run_at_the_speed_of_time_begins_now() -> None:
    plan = plan_run(SHOP, now_ms=NOW, events=1_000, rate=500)
    assert (plan.shop.start_ms, plan.shop.events_per_s) == (NOW, 500)


def test_a_run_faster_than_time_ends_now() -> None:
    plan = plan_run(SHOP, now_ms=NOW, events=6_000, rate=100, speed=60)
    assert plan.shop.events_per_s == pytest.approx(100 / 60)
    ends = plan.shop.start_ms + 6_000 / plan.shop.events_per_s * 1000
    assert ends == pytest.approx(NOW + 60_000)


def test_a_run_flat_out_ends_now_and_fills_time_with_2000_events_a_second() -> None:
    plan = plan_run(SHOP, now_ms=NOW, events=300_000)
    assert (plan.shop.start_ms, plan.shop.events_per_s) == (NOW - 150_000, 2000)
    thin = plan_run(SHOP, now_ms=NOW, events=300_000, speed=20)
    assert (thin.shop.start_ms, thin.shop.events_per_s) == (NOW - 3_000_000, 100)


def test_an_endless_fast_run_has_a_day_in_hand() -> None:
    assert plan_run(SHOP, now_ms=NOW, rate=100, speed=2).shop.start_ms == NOW - 86_400_000
    assert plan_run(SHOP, now_ms=NOW).shop.start_ms == NOW - 86_400_000
    assert plan_run(SHOP, now_ms=NOW, rate=100).shop.start_ms == NOW


def test_a_start_that_is_given_counts() -> None:
    assert plan_run(SHOP, now_ms=NOW, events=5, start_ms=NOW - 5).shop.start_ms == NOW - 5


@pytest.mark.parametrize(
    ("name", "value"),
    [("events", 0), ("rate", -1.0), ("rate", float("nan")), ("speed", 0.0), ("speed", float("inf"))],
)
def test_impossible_plans_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(MillraceError, match=name):
        plan_run(SHOP, now_ms=NOW, **{name: value})  # type: ignore[arg-type]  # wrong on purpose


def test_what_kafka_would_refuse_is_refused_with_the_way_out() -> None:
    assert timestamp_ms(NOW) is None
    with pytest.raises(MillraceError, match="give an earlier --start"):
        timestamp_ms(4_000_000_000_000)


def test_a_start_is_iso_or_epoch_ms() -> None:
    assert moment("1750000000000") == NOW
    assert moment("2025-06-15T15:06:40Z") == moment("2025-06-15 15:06:40") == moment("2025-06-16T00:06:40+09:00")
    assert moment("2025-06-15T15:06:40Z") == NOW
    for text in ("yesterday", "", "-1"):
        with pytest.raises(MillraceError, match="no time"):
            moment(text)


def test_topics_are_a_list_without_repeats() -> None:
    assert topic_names(None) == TOPICS
    assert topic_names("order-events, user-activity,order-events") == ("order-events", "user-activity")


def test_a_summary_is_one_line() -> None:
    sent = Sent(start_ms=NOW, reached_ms=NOW + 1000, events=10, seconds=2.0)
    sent.by_topic["order-events"] = 10
    assert str(sent) == (
        "10 events in 2.0 s (5/s); order-events 10; event time 2025-06-15T15:06:40Z to 2025-06-15T15:06:41Z"
    )


def test_a_ledger_without_a_directory_is_refused_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "--ledger", str(tmp_path / "none" / "ledger.json")])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: the ledger cannot be written")
