"""Publishing on the driver: it settles at what a computation over everything at once gives, whatever comes between."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shop import MINUTE, SALES, Sale, sell

from streams.intake import EventTime
from streams.log import TP, LogError
from streams.topics import Topic
from tables.aggregates import Sum
from tables.publishing import PAGE, Publication, Shelf
from tables.renewal import begin_anew, next_epoch, read_progress
from tables.table import Table
from topologies.driver import Driver, run
from topologies.kept_topics import kept_topics
from topologies.topology import Topology

SHARES = Topic("shares", key="user-<userId>", partitions=2, cleanup="compact", retention_s=None)
MIRRORS = Topic("mirrors", key="user-<userId>", partitions=2, cleanup="compact", retention_s=None)
USERS = range(6)
CHECKED = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def by_user(sale: Any) -> list[tuple[str, int]]:
    return [(f"{sale.user_id}", sale.amount)]


def record_key(user: str) -> bytes:
    return f"user-{user}".encode()


def own(shelf: Shelf, user: str) -> int:
    return sum(states[0] for _, states in shelf.cells("sales_by_user", user))


def share(shelf: Shelf, user: str) -> bytes | None:
    """A user's sum, and those of the two users beside it as published."""
    if not shelf.cells("sales_by_user", user):
        return None
    amount = own(shelf, user)
    if amount == 1_300:
        raise ValueError("thirteen")
    beside = []
    for other in (int(user) - 1, int(user) + 1):
        raw = shelf.copies[SHARES.name].get(record_key(f"{other}"))
        beside.append(0 if raw is None else msgspec.json.decode(raw)["own"])
    return msgspec.json.encode({"own": amount, "beside": beside})


def mirror(shelf: Shelf, user: str) -> bytes | None:
    """What is published of the user, where anything is."""
    return shelf.copies[SHARES.name].get(record_key(user))


def sharing(*, mirrored: bool = False) -> Topology:
    topology = Topology("sharing").source(SALES, time=EventTime(MINUTE, MINUTE))
    topology.add(SALES, Table("sales_by_user", {"amount": Sum()}, by_user, retention_s=7_200))
    topology.publish(Publication(SHARES, ("sales_by_user",), share, record_key, settles=True))
    if mirrored:
        topology.publish(Publication(MIRRORS, ("sales_by_user",), mirror, record_key, copies=(SHARES,)))
    return topology


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver(sharing()) as driver:
        yield driver


def spend(driver: Driver, user: int, amount: int, at_s: float = 0) -> None:
    sell(driver, amount, at_s, user=user, partition=user % 2)


def published(driver: Driver, topic: Topic = SHARES) -> dict[str, Any]:
    return {key.removeprefix("user-"): value for key, value in driver.latest(topic.name).items()}


def batch(sums: dict[int, int]) -> dict[str, Any]:
    """What should be published of these sums."""
    return {str(u): {"own": n, "beside": [sums.get(u - 1, 0), sums.get(u + 1, 0)]} for u, n in sums.items()}


def test_results_that_need_each_other_settle_at_those_of_a_batch(driver: Driver) -> None:
    for user in USERS:
        spend(driver, user, 10 + user)
    driver.flush()
    driver.publish()
    assert published(driver) == batch({user: 10 + user for user in USERS})


def test_only_what_is_flushed_is_published_as_touched_and_others_follow(driver: Driver) -> None:
    for user in USERS:
        spend(driver, user, 10)
    driver.flush()
    driver.publish()
    before = len(driver.records(SHARES.name))
    spend(driver, 2, 5, at_s=70)
    assert driver.publish() == 0
    driver.flush()
    assert driver.publish() == 3  # itself, and its two neighbours
    assert len(driver.records(SHARES.name)) == before + 3
    assert published(driver) == batch({user: 15 if user == 2 else 10 for user in USERS})


def test_nothing_is_written_twice_for_nothing(driver: Driver) -> None:
    for user in USERS:
        spend(driver, user, 10)
    driver.flush()
    assert driver.publish() > 0
    assert driver.publish() == 0
    for wipe in (False, True):
        driver.restart(wipe=wipe)
        assert driver.publish() == 0
    values: dict[Any, list[Any]] = defaultdict(list)
    for record in driver.records(SHARES.name):
        values[record.key].append(record.value)
    assert all(a != b for said in values.values() for a, b in pairwise(said))


@pytest.mark.parametrize("wipe", [False, True])
def test_what_a_crash_kept_from_being_published_is_found_by_the_pass_after_it(driver: Driver, wipe: bool) -> None:
    spend(driver, 1, 10)
    spend(driver, 2, 20)
    driver.flush()
    driver.restart(wipe=wipe)
    assert driver.publish() > 0
    assert published(driver) == batch({1: 10, 2: 20})


def test_what_was_published_of_events_that_a_crash_took_back_is_put_right(driver: Driver) -> None:
    spend(driver, 1, 10)
    driver.flush()
    spend(driver, 1, 5)
    driver.deliver()
    driver.publish()
    assert published(driver)["1"]["own"] in (10, 15)
    driver.restart()
    driver.publish()
    assert published(driver)["1"]["own"] == 10
    driver.flush()
    driver.publish()
    assert published(driver) == batch({1: 15})


def test_a_failing_append_loses_nothing(driver: Driver) -> None:
    for user in USERS:
        spend(driver, user, 10)
    driver.flush()
    for left in (0, 1, 2, 0):
        driver.log.fail_append_after(left)
        with pytest.raises(LogError):
            driver.publish()
    driver.publish()
    assert published(driver) == batch(dict.fromkeys(USERS, 10))


def test_a_key_that_cannot_be_computed_holds_up_no_other(driver: Driver) -> None:
    for user in USERS:
        spend(driver, user, 1_300 if user == 3 else 10)
    driver.flush()
    driver.publish()
    assert published(driver).keys() == {str(user) for user in USERS if user != 3}
    spend(driver, 3, 1)
    driver.flush()
    driver.publish()
    assert published(driver) == batch({user: 1_301 if user == 3 else 10 for user in USERS})


def test_each_key_has_one_writer_and_one_partition(driver: Driver) -> None:
    for user in USERS:
        spend(driver, user, 10)
    driver.flush()
    driver.publish()
    for number in range(SHARES.partitions):
        keys = {record.key for record in driver.log.records(TP(SHARES.name, number))}
        assert keys == {record_key(f"{user}") for user in USERS if user % 2 == number}


def test_two_workers_settle_at_the_same_as_one(driver: Driver) -> None:
    other = driver.add_worker("w1")
    driver.worker.assign([0], 1)
    other.assign([1], 1)
    for user in USERS:
        spend(driver, user, 10 + user)
    for worker in (driver.worker, other):
        worker.deliver()
        worker.flush()
    driver.publish(other)
    assert published(driver) == batch({user: 10 + user for user in USERS})
    driver.worker.assign([], 2)
    other.assign([0, 1], 2)
    assert driver.publish(other) == 0
    other.crash()


def test_a_stale_record_of_a_zombie_is_put_right(driver: Driver) -> None:
    spend(driver, 1, 10)
    driver.flush()
    driver.publish()
    stale = driver.log.records(TP(SHARES.name, 1))[-1]
    spend(driver, 1, 10)
    driver.flush()
    driver.publish()
    driver.feed(SHARES.name, stale.value, stale.key, partition=1)
    driver.publish()
    assert published(driver) == batch({1: 20})


def test_what_a_zombie_had_applied_further_is_published_by_its_new_owner(driver: Driver) -> None:
    spend(driver, 1, 10)
    driver.flush()
    zombie, owner = driver.worker, driver.add_worker("w1")
    owner.assign([0, 1], 1)
    driver.worker = owner
    driver.publish()
    spend(driver, 1, 5)
    zombie.deliver()
    zombie.flush()  # ahead of its successor, which finds it in the changelog and takes it over
    driver.advance(61)
    owner.flush()
    driver.flush()  # the same sale: it is contained already, and changes nothing
    driver.publish()
    assert published(driver) == batch({1: 15})
    zombie.crash()


def test_what_reads_another_publication_follows_it_when_nothing_was_published_at_first() -> None:
    with Driver(sharing(mirrored=True)) as driver:
        for user in USERS:
            spend(driver, user, 10 + user)
        driver.flush()
        driver.publish()
        expected = batch({user: 10 + user for user in USERS})
        assert published(driver) == published(driver, MIRRORS) == expected
        spend(driver, 2, 5)
        driver.flush()
        driver.publish()
        found = published(driver, MIRRORS)
        assert found.keys() == expected.keys()
        assert found["4"] == expected["4"]


Deed = tuple[str, int, int]
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("sell"), st.integers(0, 5), st.integers(1, 12)),
        st.tuples(st.just("step"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("flush"), st.just(0), st.just(0)),
        st.tuples(st.just("fail"), st.integers(0, 4), st.just(0)),
        st.tuples(st.just("crash"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("compact"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@CHECKED
@given(deeds, st.randoms(use_true_random=False), st.sampled_from([20, 3_600]))
def test_whatever_happens_it_settles_at_the_batch(given: list[Deed], chance: Random, each_s: int) -> None:
    """Also where retention, two hours, drops most of it on the way."""
    with Driver(sharing()) as driver:
        for at, (deed, a, b) in enumerate(given):
            if deed == "sell":
                spend(driver, a, b, at_s=at * each_s)
            elif deed == "step":
                step(driver, a)
            elif deed == "flush":
                driver.deliver()
                driver.worker.flush()
            elif deed == "fail":
                driver.log.fail_append_after(a)
                step(driver, 1)
                driver.log.heal()
            elif deed == "crash":
                driver.restart(wipe=bool(a))
            else:
                driver.log.compact(SHARES.name)
        driver.flush()
        driver.publish(budget_s=chance.choice([0.0, 1.0]))
        sums: dict[int, int] = defaultdict(int)
        for (_, user), row in driver.rows("sales_by_user").items():
            sums[int(user)] += row["amount"]
        assert published(driver) == batch(sums)
        assert each_s > 20 or sum(sums.values()) == sum(b for deed, _, b in given if deed == "sell")


def step(driver: Driver, budget_s: float) -> None:
    try:
        driver.worker.publish(budget_s)
    except LogError:
        pass


def test_what_retention_has_dropped_is_published_no_longer(driver: Driver) -> None:
    for user in USERS:
        spend(driver, user, 10, at_s=0)
    driver.flush()
    driver.publish()
    for at_s in (36_000, 36_001):  # what is durable is past the old slices: they go with the flush after that
        for user in (0, 1, 2):
            spend(driver, user, 1, at_s=at_s)
        driver.flush()
    driver.publish()
    assert published(driver) == batch({0: 2, 1: 2, 2: 2})
    assert len(driver.readings("sales_by_user")) == 3


def spent_and_dropped(driver: Driver) -> dict[int, int]:
    """Publish of all users, then have retention drop three of them, which nothing has published yet."""
    for user in USERS:
        spend(driver, user, 10, at_s=0)
    driver.flush()
    driver.publish()
    for at_s in (36_000, 36_001):
        for user in (0, 1, 2):
            spend(driver, user, 1, at_s=at_s)
        driver.flush()
    return {0: 2, 1: 2, 2: 2}


@pytest.mark.parametrize("wipe", [False, True])
def test_what_retention_dropped_before_a_crash_is_published_no_longer(driver: Driver, wipe: bool) -> None:
    left = spent_and_dropped(driver)
    driver.restart(wipe=wipe)
    driver.publish()
    assert published(driver) == batch(left)
    assert driver.publish() == 0


def test_what_retention_dropped_at_a_former_owner_is_published_no_longer(driver: Driver) -> None:
    left = spent_and_dropped(driver)
    other = driver.add_worker("w1")
    driver.worker.assign([0], 1)
    other.assign([1], 1)
    driver.publish(other)
    assert published(driver) == batch(left)
    other.crash()


def test_drops_that_were_heard_of_and_not_written_are_published_when_the_log_is_back(driver: Driver) -> None:
    left = spent_and_dropped(driver)
    driver.worker.publishing.hear()
    driver.worker.publishing.close()
    driver.publish()
    assert published(driver) == batch(left)


@pytest.mark.parametrize("written", range(5))
def test_tombstones_that_a_torn_append_did_not_write_follow(driver: Driver, written: int) -> None:
    left = spent_and_dropped(driver)
    driver.restart()
    driver.log.fail_append_after(written)
    step(driver, 3600)
    driver.restart()
    driver.log.heal()
    driver.publish()
    assert published(driver) == batch(left)


def test_a_record_of_a_dropped_key_that_a_zombie_wrote_later_goes_again(driver: Driver) -> None:
    stale = {}
    left = spent_and_dropped(driver)
    for record in driver.log.records(TP(SHARES.name, 1)):
        stale[record.key] = record.value
    driver.publish()
    key = record_key("5")
    driver.feed(SHARES.name, stale[key], key, partition=1)
    driver.publish()
    assert published(driver) == batch(left)


def test_a_stale_record_of_a_zombie_is_put_right_where_nothing_reads_it() -> None:
    with Driver(sharing(mirrored=True)) as driver:
        for user in USERS:
            spend(driver, user, 10)
        driver.flush()
        driver.publish()
        driver.feed(MIRRORS.name, b'{"own": 1}', record_key("1"), partition=1)
        driver.publish()
        assert published(driver, MIRRORS) == published(driver)


def test_a_tombstone_of_a_zombie_is_put_right_where_nothing_reads_it() -> None:
    with Driver(sharing(mirrored=True)) as driver:
        for user in USERS:
            spend(driver, user, 10)
        driver.flush()
        driver.publish()
        driver.feed(MIRRORS.name, None, record_key("1"), partition=1)
        assert driver.publish() > 0
        assert published(driver, MIRRORS) == published(driver) == batch(dict.fromkeys(USERS, 10))
        assert driver.publish() == 0


def test_own_tombstones_that_have_to_be_read_back_cause_no_passes_for_ever() -> None:
    with Driver(sharing(mirrored=True)) as driver:
        for user in USERS:
            spend(driver, user, 10)
        driver.flush()
        driver.publish()
        driver.feed(MIRRORS.name, b"{}", record_key("7"), partition=1)
        run(driver.worker.publishing.follow(driver.log))
        run(driver.worker.publishing.catch_up(driver.log))
        driver.feed(MIRRORS.name, b"{}", record_key("9"), partition=1)  # the tombstone comes behind it
        run(driver.worker.publishing.step(3_600))
        assert driver.log.records(TP(MIRRORS.name, 1))[-1].value is None
        assert driver.publish() > 0
        assert published(driver, MIRRORS) == published(driver)
        assert driver.publish() == 0


def test_a_pass_under_way_keeps_no_store_locked_that_its_worker_lets_go(driver: Driver) -> None:
    users = range(PAGE + 4)  # of two slices, so that either partition has more than a page
    for at_s in (0, 60):
        for user in users:
            spend(driver, user, 5, at_s=at_s)
    driver.flush()
    step(driver, 0.0)
    assert not driver.worker.publishing.idle
    driver.worker.assign([0, 1], 1)
    assert [restored.private for restored in driver.worker.engine.restored] == [False, False]
    driver.publish()
    assert published(driver) == batch(dict.fromkeys(users, 10))


def begin(driver: Driver, starts: Mapping[TP, int]) -> None:
    """Drop what the group has in the log and begin it anew, as a replay in place does."""
    driver.worker.crash(wipe=True)
    group = driver.topology.group
    renewed = next_epoch(run(read_progress(group, driver.log)).values())
    for name in kept_topics(group):
        driver.log.delete(name)
    run(begin_anew(group, driver.log, starts, renewed, driver.topic_ids))
    driver.restart()


@pytest.mark.parametrize("wipe", [False, True])
def test_tables_that_are_built_anew_take_away_what_was_published_when_they_are_back(driver: Driver, wipe: bool) -> None:
    for user in USERS:
        spend(driver, user, 10)
    driver.flush()
    driver.publish()
    begin(driver, {TP(SALES.name, 1): 1})  # without the first user of the other partition
    for _ in range(3):
        driver.publish()
        assert published(driver).keys() == {f"{user}" for user in USERS}
        assert not driver.worker.publishing.idle
        next_one = driver.log.records(TP(SALES.name, 0), driver.worker.next[TP(SALES.name, 0)])[:1]
        driver.worker.deliver_records(TP(SALES.name, 0), next_one)
        driver.worker.flush()
        driver.restart(wipe=wipe)
    driver.flush()
    driver.publish()
    assert published(driver) == batch({user: 10 for user in USERS if user != 1})
    assert {record.key for record in driver.records(SHARES.name) if record.value is None} == {record_key("1")}
    assert driver.worker.publishing.idle


def test_offsets_at_the_end_of_a_source_that_hold_nothing_are_not_waited_for(driver: Driver) -> None:
    spend(driver, 1, 10)
    driver.flush()
    driver.feed(SHARES.name, b"{}", record_key("7"), partition=1)
    spend(driver, 1, 5)
    driver.publish()
    assert published(driver).keys() == {"1", "7"}
    driver.log.forget(SALES.name)
    for _ in range(2):  # they are looked into where nothing has moved since the last time
        driver.publish()
    assert published(driver) == batch({1: 10})
    assert driver.worker.publishing.idle


RESOLD = Topic("resold", Sale, partitions=2, dedupe_s=300)


def resell(sale: Sale) -> Iterator[tuple[int, bytes, bytes]]:
    yield sale.user_id % 2, record_key(f"{sale.user_id}"), msgspec.json.encode(sale)


def test_what_other_workers_have_yet_to_hand_on_is_waited_for_and_what_comes_of_it() -> None:
    topology = Topology("sharing").source(SALES, time=EventTime(MINUTE, MINUTE))
    topology.source(RESOLD, time=EventTime(MINUTE, MINUTE))
    topology.forward(SALES, RESOLD, resell)
    topology.add(RESOLD, Table("sales_by_user", {"amount": Sum()}, by_user, retention_s=7_200))
    topology.publish(Publication(SHARES, ("sales_by_user",), share, record_key, settles=True))
    with Driver(topology) as driver:
        for user in USERS:
            sell(driver, 10, 0, user=user, event_id=f"{user}", partition=1 - user % 2)
        driver.flush()
        driver.publish()
        driver.log.delete(RESOLD.name)
        begin(driver, {})
        one, other = driver.worker, driver.add_worker("w1")
        one.assign([0], 2)
        other.assign([1], 2)
        for worker in (one, other, one):  # the sales of either are counted by the other one
            driver.publish(other)
            assert published(driver).keys() == {f"{user}" for user in USERS}
            assert not one.publishing.idle or not other.publishing.idle
            worker.deliver()
            worker.flush()
        driver.publish(other)
        assert one.publishing.idle
        assert other.publishing.idle
        assert published(driver) == batch(dict.fromkeys(USERS, 10))
        assert all(record.value is not None for record in driver.records(SHARES.name))
        other.crash()


def by_buyer(sale: Any) -> list[tuple[str, int]]:
    return [(f"{sale.user_id}", sale.amount)] if sale.amount >= 100 else []


def test_a_pass_goes_over_the_keys_of_every_table() -> None:
    topology = Topology("sharing").source(SALES, time=EventTime(MINUTE, MINUTE))
    topology.add(SALES, Table("buyers", {"amount": Sum()}, by_buyer, retention_s=7_200))
    topology.add(SALES, Table("sales_by_user", {"amount": Sum()}, by_user, retention_s=7_200))
    topology.publish(Publication(SHARES, ("buyers", "sales_by_user"), share, record_key, settles=True))
    with Driver(topology) as driver:
        for user in USERS:
            spend(driver, user, 10 if user % 3 else 100)
        driver.flush()
        driver.restart()
        driver.publish()
        assert published(driver) == batch({user: 10 if user % 3 else 100 for user in USERS})


def test_a_topic_with_fewer_partitions_than_the_tables_have_is_refused() -> None:
    topology = Topology("sharing").source(SALES, time=EventTime(MINUTE, MINUTE))
    topology.add(SALES, Table("sales_by_user", {"amount": Sum()}, by_user))
    topology.publish(Publication(replace(SHARES, partitions=1), ("sales_by_user",), share, record_key))
    with pytest.raises(ValueError, match="shares"):
        Driver(topology)


def test_a_pass_longer_than_a_page_goes_over_each_key_of_all_slices_once() -> None:
    """A page is 1,000 stored cells; these are 2,800 of either partition."""
    asked: list[str] = []

    def counted(shelf: Shelf, user: str) -> bytes:
        asked.append(user)
        return msgspec.json.encode(own(shelf, user))

    topology = Topology("sharing").source(SALES, time=EventTime(MINUTE, 5 * MINUTE))
    topology.add(SALES, Table("sales_by_user", {"amount": Sum()}, by_user, retention_s=7_200))
    topology.add(SALES, Table("sales_again", {"amount": Sum()}, by_user, retention_s=7_200))
    topology.publish(Publication(MIRRORS, ("sales_again", "sales_by_user"), counted, record_key))
    with Driver(topology) as driver:
        for at_s in range(0, 240, 60):
            for user in range(700):
                spend(driver, user, 1, at_s=at_s)
        driver.flush()
        driver.publish()
        assert sorted(asked, key=int) == [f"{user}" for user in range(700)]
        assert published(driver, MIRRORS) == {f"{user}": 4 for user in range(700)}
