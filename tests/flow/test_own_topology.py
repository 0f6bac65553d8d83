"""The README's topology of one's own, as its owner would test it: windows, late events, dead letters, restarts."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from clicks import CLICKS, topology
from views_shop import follow, open_model

from streams.events import OrderEvent
from streams.topics import Topic
from tables.aggregates import Count
from topologies.driver import Driver
from topologies.topology import Topology, record_time_ms
from topologies.views import BadParameter, newest_window

ROOT = Path(__file__).parents[2]
DEAD, LATE = CLICKS.dead_letters.name, CLICKS.late.name


def click(driver: Driver, page: str, at_s: float, user: int = 1) -> None:
    event = {"page": page, "userId": user, "occurredAt": round(at_s * 1000)}
    driver.feed("clicks", event, f"user-{user}", timestamp_ms=round(at_s * 1000))


def test_the_readme_shows_the_file_that_is_tested() -> None:
    example = (ROOT / "tests/flow/clicks.py").read_text()
    assert f"```python\n{example}```\n" in (ROOT / "README.md").read_text()
    assert len(example.splitlines()) < 40


def test_clicks_are_counted_by_page_in_slices_of_ten_seconds() -> None:
    with Driver(topology) as driver:
        for page, at_s, user in (("/", 1, 1), ("/", 2, 1), ("/", 9.999, 2), ("/cart", 3, 1), ("/", 10, 1)):
            click(driver, page, at_s, user)
        driver.flush()
        assert driver.rows("clicks_by_page") == {
            (0, "/"): {"clicks": 3, "visitors": 2},
            (0, "/cart"): {"clicks": 1, "visitors": 1},
            (10_000, "/"): {"clicks": 1, "visitors": 1},
        }


def test_a_click_after_the_grace_goes_to_the_late_topic() -> None:
    with Driver(topology) as driver:
        click(driver, "/", 9)
        click(driver, "/", 14.9)
        click(driver, "/", 9)  # its slice has ended, the grace of five seconds has not
        click(driver, "/", 15)
        click(driver, "/", 9)
        driver.flush()
        assert driver.rows("clicks_by_page")[0, "/"]["clicks"] == 2
        assert [event["occurredAt"] for event in driver.values(LATE)] == [9_000]


def test_what_is_no_click_goes_to_the_dead_letters_with_its_reason() -> None:
    with Driver(topology) as driver:
        driver.feed("clicks", b'{"page":', "user-1", timestamp_ms=1_000)
        driver.feed("clicks", {"page": "/"}, "user-1", timestamp_ms=1_000)
        click(driver, "/", 1)
        driver.flush()
        assert driver.rows("clicks_by_page") == {(0, "/"): {"clicks": 1, "visitors": 1}}
        dead = [(record.value, dict(record.headers)["reason"].decode()) for record in driver.records(DEAD)]
        assert [value for value, _ in dead] == [b'{"page":', b'{"page":"/"}']
        assert dead[0][1].startswith("not JSON")
        assert "userId" in dead[1][1]


@pytest.mark.parametrize("wipe", [False, True])
def test_clicks_are_counted_once_whatever_dies_in_between(wipe: bool) -> None:
    rng = random.Random(7)
    expected: Counter[tuple[int, str]] = Counter()
    with Driver(topology, batch=7) as driver:
        for at_s in range(80):
            page = rng.choice(["/", "/cart", "/books"])
            expected[at_s * 1000 // 10_000 * 10_000, page] += 1
            click(driver, page, at_s, user=1)
            if rng.random() < 0.2:
                driver.deliver()
            if rng.random() < 0.1:
                driver.log.fail_append_after(rng.randrange(4))
                driver.worker.flush()
            if rng.random() < 0.1:
                driver.restart(wipe=wipe)
        driver.flush()
        assert {cell: row["clicks"] for cell, row in driver.rows("clicks_by_page").items()} == expected


def test_the_view_ranks_the_pages_of_the_newest_window(tmp_path: Path) -> None:
    view = topology.views["/api/busiest"]
    with Driver(topology) as driver:
        model = open_model(topology, tmp_path / "copy")
        assert view(model, {}) == {"pages": []}
        click(driver, "/old", 1)
        for at_s, page in ((605, "/"), (612, "/cart"), (613, "/cart")):
            click(driver, page, at_s)
        driver.flush()
        follow(model, driver)
        assert view(model, {}) == {
            "pages": [{"page": "/cart", "clicks": 2, "visitors": 1}, {"page": "/", "clicks": 1, "visitors": 1}]
        }
        assert newest_window(model, "clicks_by_page", "10s").start_ms == 610_000
        assert view(model, {"window": "10s"}) == {"pages": [{"page": "/cart", "clicks": 2, "visitors": 1}]}
        with pytest.raises(BadParameter, match="multiple") as refused:
            view(model, {"window": "15s"})
        assert refused.value.body["parameter"] == "window"
        model.close()


class Tick(msgspec.Struct, frozen=True):
    """An event that carries no time, or one that its owner reads."""

    at: Any = None


def ticking(**source: Any) -> Topology:
    ticks = Topic("ticks", Tick, partitions=1)
    topology = Topology("ticking").source(ticks, **source)

    @topology.table(ticks, count=Count())
    def all_ticks(tick: Tick) -> list[tuple[str, int]]:
        return [("all", 1)]

    return topology


def test_an_event_without_a_time_field_has_its_records_timestamp() -> None:
    with Driver(ticking()) as driver:
        driver.feed("ticks", {}, timestamp_ms=61_000)
        driver.flush()
        assert driver.rows("all_ticks") == {(60_000, "all"): {"count": 1}}
    assert record_time_ms(None, 7) == 7


@pytest.mark.parametrize(
    ("at", "reason"), [(-1, "before 1970"), (0.5, "whole number"), ({}, "cannot be read"), (None, "cannot be read")]
)
def test_an_event_time_that_cannot_be_is_a_dead_letter_and_stops_nobody(at: object, reason: str) -> None:
    with Driver(ticking(time_of=lambda tick, timestamp_ms: tick.at * 1)) as driver:
        for value in (5_000, at, 6_000):
            driver.feed("ticks", {"at": value}, timestamp_ms=5_000)
        driver.flush()
        assert driver.rows("all_ticks") == {(0, "all"): {"count": 2}}
        (dead,) = driver.records("ticks.dead-letters")
        assert reason in dict(dead.headers)["reason"].decode()


def test_a_topic_declared_twice_and_differently_is_refused() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        ticking().table(Topic("ticks", OrderEvent), name="others", count=Count())(lambda event: [])
