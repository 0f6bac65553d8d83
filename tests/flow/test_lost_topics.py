"""A topic that holds a part of the state is gone, cut or another one: refused by name, never gone on with."""

from pathlib import Path

import pytest
from shop import sell, shop

from streams.errors import MillraceError
from streams.log import TP
from tables.lost import ChangelogLost
from tables.store import Store, StoreLocked
from topologies.driver import Driver

CHANGELOG = "shop-takings-changelog"
PROGRESS = "shop-progress"


def delete(driver: Driver, topic: str) -> None:
    """Delete a topic and make it anew, empty."""
    for number in range(2):
        driver.log._records[TP(topic, number)].clear()
        driver.log._ends[TP(topic, number)] = 0


@pytest.mark.parametrize("topic", [CHANGELOG, PROGRESS])
@pytest.mark.parametrize("wipe", [False, True])
def test_a_lost_topic_of_the_state_is_refused_at_a_start_by_its_name(topic: str, wipe: bool) -> None:
    with Driver(shop()) as driver:
        sell(driver, 1, 1)
        driver.flush()
        delete(driver, topic)
        with pytest.raises(ChangelogLost, match=f"{topic} .*millrace replay"):
            driver.restart(wipe=wipe)


def test_a_changelog_made_anew_under_a_running_worker_is_refused_with_its_next_flush() -> None:
    with Driver(shop()) as driver:
        sell(driver, 1, 1)
        driver.flush()
        delete(driver, CHANGELOG)
        sell(driver, 2, 2)
        driver.deliver()
        with pytest.raises(ChangelogLost, match=CHANGELOG):
            driver.worker.flush()


@pytest.mark.parametrize("wipe", [False, True])
def test_a_changelog_made_anew_is_refused_also_when_it_has_as_many_records_as_the_former(wipe: bool) -> None:
    with Driver(shop()) as driver:
        driver.topic_ids[CHANGELOG] = "first"
        driver.restart()
        sell(driver, 1, 1)
        driver.flush()
        driver.topic_ids[CHANGELOG] = "second"
        with pytest.raises(ChangelogLost, match=CHANGELOG):
            driver.restart(wipe=wipe)


def test_a_state_directory_with_lock_in_its_name_is_not_taken_for_a_locked_one(tmp_path: Path) -> None:
    path = tmp_path / "clock" / "0"
    path.parent.mkdir()
    path.write_text("a file where the directory should be")
    with pytest.raises(MillraceError) as refused:
        Store(path, ["t"])
    assert not isinstance(refused.value, StoreLocked)
