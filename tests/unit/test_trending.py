"""Trends: what rises is found, what is merely busy is not, and one user cannot make one."""

from math import log
from random import Random

import pytest

from agents.trending import Pace, Trends

SLICE = 900_000
HOUR = 3_600_000
DAY = 24 * HOUR


def shop(days: float = 3) -> Trends:
    """A steady shop of 50 products, product n drawing about n users in each slice of 15 minutes."""
    trends, chance = Trends(), Random(5)
    for at in range(SLICE, int(days * DAY) + 1, SLICE):
        trends.add(at, {f"p{n}": max(0, n + chance.randint(-2, 2)) for n in range(1, 51)})
    return trends


def test_a_steady_rate_is_expected_to_go_on() -> None:
    trends = shop(6)
    level = trends.pace.decayed(trends.levels["p40"], 6 * DAY)
    assert level.now == pytest.approx(40 * trends.pace.most_of_one_user(SLICE), rel=0.2)
    (trend,) = trends.top(6 * DAY, among=["p40"])
    assert trend.expected == pytest.approx(trend.users, rel=0.1)
    assert trend.lift == pytest.approx(1, abs=0.1)


def test_what_rises_comes_first_though_others_draw_more() -> None:
    trends = shop()
    for at in range(3 * DAY + SLICE, 3 * DAY + 2 * HOUR, SLICE):
        trends.add(at, {f"p{n}": n for n in range(1, 51)} | {"p7": 21})
    first, second, *_ = trends.top(3 * DAY + 2 * HOUR)
    assert first.key == "p7"
    assert first.lift > 2
    assert first.score > 3 * second.score


def test_an_evening_is_no_trend() -> None:
    trends = shop()
    end = 3 * DAY + 2 * HOUR
    for at in range(3 * DAY + SLICE, end, SLICE):
        trends.add(at, {f"p{n}": 2 * n for n in range(1, 51)} | {"new": 8})
    first, *others = trends.top(end)
    assert first.key == "new"
    assert max(trend.score for trend in others) < first.score / 2
    assert all(trend.lift < 1.5 for trend in others if trend.users > 50)


def test_one_user_makes_no_trend_however_often_they_click() -> None:
    trends = shop()
    before = [trend.key for trend in trends.top(3 * DAY)]
    trends = shop()
    for at in range(DAY, 3 * DAY + 1, SLICE):
        trends.add(at, {"bot": 1})  # a thousand clicks are one distinct user
    assert trends.levels["bot"].now == pytest.approx(HOUR / log(2) / SLICE, rel=0.1)
    assert [trend.key for trend in trends.top(3 * DAY)] == before


def test_a_new_shop_ranks_by_users() -> None:
    trends = Trends()
    trends.add(SLICE, {"a": 5, "b": 9, "c": 2})
    assert [trend.key for trend in trends.top(SLICE)] == ["b", "a"]


def test_a_shop_where_nothing_happened_has_no_trends() -> None:
    assert Trends().top(DAY) == []


def test_slices_in_another_order_come_to_the_same() -> None:
    slices = [(at, {"a": at // SLICE % 7, "b": 3}) for at in range(SLICE, DAY, SLICE)]
    one, other = Trends(), Trends()
    for at, users in slices:
        one.add(at, users)
    for at, users in Random(1).sample(slices, len(slices)):
        other.add(at, users)
    first, second = (
        {trend.key: (trend.users, trend.expected, trend.score) for trend in trends.top(DAY)} for trends in (one, other)
    )
    assert first.keys() == second.keys()
    for key in first:
        assert first[key] == pytest.approx(second[key])


def test_what_nobody_asks_for_is_forgotten() -> None:
    trends = shop(1)
    trends.add(DAY, {"rare": 1})
    assert trends.forget(8 * DAY) == 1
    assert "rare" not in trends.levels


@pytest.mark.parametrize("wrong", [{"now_half_life_ms": DAY}, {"now_half_life_ms": 0}, {"min_users": 0}, {"prior": 0}])
def test_a_pace_that_means_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Pace(**wrong)
