"""A whole shop under customers, with everything killed meanwhile: all of its books agree, to the last piece and point.

`millrace bench shop` does the same with as many orders as one likes.
"""

from pathlib import Path
from typing import Any

import pytest

from bench.command_side import Trial, measure
from bench.customers import Habits
from bench.databases import NoServer, mariadb
from bench.shop_processes import BROKER
from topologies.orders.database import database_url


def told(home: Path, trial: Trial, on: str = "sqlite") -> dict[str, Any]:
    if on == "sqlite":
        return measure(database_url(f"sqlite:///{home}/orders.db", {}, home), home, trial, print)
    try:
        with mariadb() as server:
            return measure(server.url, home, trial, print)
    except NoServer as error:
        pytest.skip(str(error))


def assert_exact(found: dict[str, Any], trial: Trial) -> None:
    print(found)
    assert found["wrong"] == []
    assert found["orders"] == trial.habits.orders
    assert found["placed"] == 0
    assert found["paid"] > 0
    assert found["cancelled"] > 0
    for victim in trial.victims:
        assert found["kills"][victim] == trial.kills


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_book_agrees_after_each_part_was_killed_on_sqlite(tmp_path: Path) -> None:
    trial = Trial(Habits(400, 16), kills=1, also=1, users=40, products=20, pieces=80)
    assert_exact(told(tmp_path, trial), trial)


@pytest.mark.slow
@pytest.mark.databases
@pytest.mark.timeout(300)
def test_every_book_agrees_after_each_part_was_killed_on_mariadb(tmp_path: Path) -> None:
    trial = Trial(Habits(1_500, 64), kills=2, also=0, users=150, products=30, pieces=200, seed=2)
    assert_exact(told(tmp_path, trial, "mariadb"), trial)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_acknowledged_order_is_lost_when_one_of_three_brokers_is_killed_and_then_another(tmp_path: Path) -> None:
    trial = Trial(Habits(400, 16), kills=2, also=0, nodes=3, users=40, products=20, pieces=80, victims=[BROKER])
    assert_exact(told(tmp_path, trial), trial)
