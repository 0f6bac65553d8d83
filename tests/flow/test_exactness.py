"""What a table says after crashes, torn flushes, seeks and zombies: exactly what a plain loop would say."""

import random
from collections import Counter, defaultdict
from typing import Any

import pytest
from shop import MINUTE, SALES, SECOND, amounts, by_user, sell, shop

from streams.intake import EventTime
from streams.log import TP, Entry
from tables.accumulators import encode_key
from tables.aggregates import Tally
from tables.layout import StateUnfit
from tables.table import Table
from topologies.driver import Driver
from topologies.topology import Topology

CHANGELOG = "shop-takings-changelog"


def test_unflushed_batches_are_applied_again_after_a_crash() -> None:
    with Driver(shop()) as driver:
        sell(driver, 10, 1)
        driver.flush()
        sell(driver, 5, 2)
        driver.deliver()
        driver.restart()
        driver.flush()
        assert amounts(driver) == {0: 15}


@pytest.mark.parametrize("entries", range(7))
@pytest.mark.parametrize("wipe", [False, True])
def test_a_flush_torn_after_any_number_of_records_changes_no_total(entries: int, wipe: bool) -> None:
    with Driver(shop()) as driver:
        for i in range(6):
            sell(driver, 10 + i, i, user=i % 3, partition=i % 2)
        driver.deliver()
        driver.log.fail_append_after(entries)
        driver.worker.flush()
        driver.restart(wipe=wipe)
        sell(driver, 1, 7)
        driver.flush()
        assert amounts(driver) == {0: 76}


def test_a_seek_inside_the_living_process_applies_nothing_twice() -> None:
    with Driver(shop()) as driver:
        sell(driver, 10, 1)
        sell(driver, 20, 2)
        driver.deliver()
        driver.worker.seek("sales", 0, 0)
        driver.deliver()
        driver.flush()
        assert amounts(driver) == {0: 30}


def test_a_batch_of_an_earlier_generation_is_dropped() -> None:
    with Driver(shop()) as driver:
        sell(driver, 10, 1)
        tp = TP("sales", 0)
        records = driver.log.records(tp)
        driver.worker.assign([0, 1], generation=7)
        assert driver.worker.engine.apply(tp, records, None, 6) == 0
        driver.flush()
        assert amounts(driver) == {0: 10}


def test_records_lost_on_the_way_to_the_agent_are_read_again() -> None:
    with Driver(shop()) as driver:
        for i in range(4):
            sell(driver, 1, i)
        tp = TP("sales", 0)
        driver.worker.deliver_records(tp, driver.log.records(tp, 0, 1))
        driver.worker.deliver_records(tp, driver.log.records(tp, 3, 4))  # 1 and 2 never came
        driver.flush()
        assert amounts(driver) == {0: 4}


def test_a_hole_in_the_log_itself_does_not_stop_delivery() -> None:
    with Driver(shop()) as driver:
        sell(driver, 1, 1, user=1)
        sell(driver, 2, 2, user=2)
        sell(driver, 4, 3, user=1)
        driver.worker.deliver(batch=1)
        driver.flush()
        sell(driver, 8, 4, user=1)
        sell(driver, 16, 5, user=1)
        driver.log.compact("sales")
        driver.flush()
        assert amounts(driver) == {0: 7 + 16}  # the 8 was compacted away before anyone read it


def test_state_wiped_is_restored_from_the_changelog_alone() -> None:
    with Driver(shop()) as driver:
        for i in range(50):
            sell(driver, i, i * 3, user=i % 7, partition=i % 2)
        driver.flush()
        before = driver.rows("takings")
        driver.restart(wipe=True)
        driver.log.compact(CHANGELOG)
        driver.flush()
        assert driver.rows("takings") == before


def test_a_zombies_stale_flush_loses_also_after_compaction_and_without_local_state() -> None:
    with Driver(shop()) as driver:
        zombie = driver.worker
        for i in range(4):
            sell(driver, 10, i)
        zombie.deliver()
        owner = driver.add_worker("w1")
        owner.assign([0, 1], generation=1)
        sell(driver, 5, 5)
        owner.deliver()
        owner.flush()
        zombie.flush()  # wakes up, and its older accumulators land after the owner's newer ones
        sell(driver, 1, 6, partition=1)
        driver.now_s += 100  # past the owner's look at the ends of its changelogs
        driver.worker = owner
        driver.flush()
        driver.log.compact(CHANGELOG)
        owner.crash(wipe=True)
        owner.assign([0, 1], generation=2)
        sell(driver, 2, 7)
        driver.flush()
        assert amounts(driver) == {0: 48}


def a_dead_zombie_wrote_last(driver: Driver) -> None:
    zombie = driver.worker
    for i in range(4):
        sell(driver, 10, i)
    zombie.deliver()
    owner = driver.worker = driver.add_worker("w1")
    owner.assign([0, 1], generation=1)
    sell(driver, 5, 5)
    driver.flush()
    driver.log.fail_append_after(2)
    zombie.flush()  # its cells are the last ones of their keys, and it dies before it could say better
    zombie.crash()


def test_a_zombies_stale_cells_lose_in_a_restore_before_anybody_has_looked() -> None:
    with Driver(shop()) as driver:
        a_dead_zombie_wrote_last(driver)
        assert amounts(driver) == {0: 45}
        driver.restart(wipe=True)
        sell(driver, 2, 7)
        driver.flush()
        assert amounts(driver) == {0: 47}


def test_a_cell_that_a_dead_zombie_wrote_last_is_said_again_before_compaction_can_take_the_better_one() -> None:
    with Driver(shop()) as driver:
        a_dead_zombie_wrote_last(driver)
        driver.restart(wipe=True)  # finds it, and dies before it has said so
        driver.restart()
        driver.flush()
        driver.log.compact(CHANGELOG)
        driver.restart(wipe=True)
        assert amounts(driver) == {0: 45}


def test_an_owner_that_is_behind_a_zombie_adopts_what_is_ahead() -> None:
    with Driver(shop()) as driver:
        zombie = driver.worker
        sell(driver, 10, 1)
        zombie.deliver()
        zombie.flush()
        sell(driver, 20, 2)
        sell(driver, 40, 3, user=2)
        zombie.deliver()
        owner = driver.add_worker("w1")
        owner.assign([0, 1], generation=1)
        owner.deliver_records(TP("sales", 0), driver.log.records(TP("sales", 0), 1, 2))
        zombie.flush()  # its progress is ahead of the owner's
        owner.flush()
        driver.log.compact(CHANGELOG)
        owner.crash(wipe=True)
        owner.assign([0, 1], generation=2)
        driver.worker = owner
        driver.flush()
        assert amounts(driver) == {0: 70}
        assert amounts(driver, "user 1") == {0: 30}


def test_late_events_go_aside_and_are_decided_alike_after_a_crash() -> None:
    with Driver(shop()) as driver:
        sell(driver, 1, 30)
        sell(driver, 2, 119)
        sell(driver, 4, 31)  # the minute has ended, its grace has not
        sell(driver, 8, 120)
        sell(driver, 16, 32)  # late now
        driver.deliver()
        driver.restart()
        driver.flush()
        assert amounts(driver) == {0: 5, 60: 2, 120: 8}
        assert [r.value for r in driver.records("sales.late")] == [
            r.value for r in driver.log.records(TP("sales", 0), 4, 5)
        ]


def test_side_outputs_come_twice_only_with_the_same_id() -> None:
    with Driver(shop()) as driver:
        driver.feed("sales", b"{", partition=0)
        driver.deliver()
        driver.log.fail_append_after(1)  # the dead letter is out, the progress is not
        driver.worker.flush()
        driver.restart()
        driver.flush()
        ids = [dict(r.headers)["id"] for r in driver.records("sales.dead-letters")]
        assert set(ids) == {b"sales-0-0"}


def test_duplicates_are_dropped_across_a_restart() -> None:
    with Driver(shop()) as driver:
        sell(driver, 10, 1, event_id="a")
        sell(driver, 10, 1, event_id="a")
        driver.flush()
        driver.restart()
        sell(driver, 10, 1, event_id="a")
        sell(driver, 10, 301, event_id="b")
        sell(driver, 10, 302, event_id="a")  # its first was at 1 s: 300 s before the watermark, and so just seen
        sell(driver, 10, 800, event_id="c")
        sell(driver, 10, 801, event_id="a")  # long ago by now
        driver.flush()
        assert amounts(driver) == {0: 10, 300: 10, 780: 20}


def test_an_event_from_the_future_is_a_dead_letter_and_makes_nobody_late() -> None:
    with Driver(shop(max_ahead_ms=600 * SECOND)) as driver:
        sell(driver, 1, 10)
        value = {"userId": 1, "amount": 5, "occurredAt": 10_000_000_000_000}
        driver.feed("sales", value, partition=0, timestamp_ms=11_000)
        sell(driver, 2, 12)
        driver.flush()
        assert amounts(driver) == {0: 3}
        (dead,) = driver.records("sales.dead-letters")
        assert b"ahead" in dict(dead.headers)["reason"]


def test_an_event_that_a_fold_cannot_take_is_parked_and_the_rest_of_its_batch_applied() -> None:
    def fold(sale):  # type: ignore[no-untyped-def]
        if sale.amount == 13:
            raise ZeroDivisionError("unlucky")
        return by_user(sale)

    with Driver(shop(fold)) as driver:
        for amount in (1, 13, 2):
            sell(driver, amount, 1)
        driver.flush()
        assert amounts(driver) == {0: 3}
        (dead,) = driver.records("sales.dead-letters")
        assert dict(dead.headers)["reason"] == b"table takings: ZeroDivisionError: unlucky"


def test_an_event_whose_row_has_the_wrong_shape_is_parked_not_half_applied() -> None:
    def fold(sale):  # type: ignore[no-untyped-def]
        return [("all", "ten" if sale.amount == 13 else sale.amount, sale.user_id)]

    with Driver(shop(fold)) as driver:
        for amount in (1, 13, 2):
            sell(driver, amount, 1)
        driver.flush()
        assert amounts(driver) == {0: 3}
        assert len(driver.records("sales.dead-letters")) == 1


def test_an_agent_that_raises_once_loses_nothing_and_counts_nothing_twice() -> None:
    raised = set()

    def fold(sale):  # type: ignore[no-untyped-def]
        if sale.amount not in raised:
            raised.add(sale.amount)
            raise OSError("just this once")
        return by_user(sale)

    with Driver(shop(fold)) as driver:
        for amount in (1, 2, 4):
            sell(driver, amount, 1)
        driver.flush()
        assert amounts(driver) == {0: 7}
        assert driver.records("sales.dead-letters") == []


def test_a_closed_window_is_dropped_only_after_a_progress_covers_it() -> None:
    with Driver(shop()) as driver:
        sell(driver, 10, 1)
        driver.flush()
        sell(driver, 20, 10_000)
        driver.deliver()
        driver.worker.flush()
        assert amounts(driver) == {0: 10, 9960: 20}  # this flush's progress is the first that covers the end
        sell(driver, 30, 10_001)
        driver.flush()
        assert amounts(driver) == {9960: 50}
        store = driver.worker.engine.partitions[0].store
        kept = list(store.scan("takings", encode_key(0, ""), encode_key(9_960_000, "")))
        assert kept == []


def test_an_expired_window_does_not_come_back_with_a_zombies_put() -> None:
    with Driver(shop()) as driver:
        sell(driver, 10, 1)
        driver.flush()
        (put, *_) = driver.log.records(TP(CHANGELOG, 0))
        sell(driver, 20, 10_000)
        driver.flush()
        sell(driver, 30, 10_001)
        driver.flush()
        driver.log.put(TP(CHANGELOG, 0), Entry(put.key, put.value))
        driver.restart(wipe=True)
        sell(driver, 40, 10_002)
        driver.flush()
        store = driver.worker.engine.partitions[0].store
        assert list(store.scan("takings", encode_key(0, ""), encode_key(9_960_000, ""))) == []


def test_final_results_are_the_merged_results_of_closed_windows() -> None:
    with Driver(shop()) as driver:
        sell(driver, 1, 1, user=1, partition=0)
        sell(driver, 2, 2, user=2, partition=1)
        sell(driver, 4, 300, user=1, partition=0)
        driver.flush()
        assert driver.latest("sales-final") == {}  # partition 1 may still bring something
        sell(driver, 8, 300, user=2, partition=1)
        driver.flush()
        finals = driver.latest("sales-final")
        assert finals[("takings", 0, "all")]["amount"] == 3
        assert finals[("takings", 0, "all")]["users"] == 2
        assert {key[1] for key in finals} == {0}


def test_final_results_are_the_same_after_crashes_anywhere() -> None:
    def finals(crash_every: int | None) -> dict[object, object]:
        with Driver(shop(), batch=3) as driver:
            for i in range(60):
                sell(driver, i, i * 10, user=i % 5, partition=i % 2)
                if crash_every and i % crash_every == 0:
                    driver.deliver()
                    driver.log.fail_append_after(i % 11)
                    driver.worker.flush()
                    driver.restart(wipe=i % 2 == 0)
            driver.flush()
            return dict(driver.latest("sales-final"))

    assert finals(3) == finals(None) != {}


def test_a_quiet_partition_makes_results_provisional_and_never_final() -> None:
    with Driver(shop()) as driver:
        sell(driver, 1, 1, user=1, partition=0)
        sell(driver, 4, 300, user=1, partition=0)
        driver.flush()
        driver.advance(31)
        driver.flush()
        assert driver.latest("sales-final")[("takings", 0, "all")]["final"] is False
        sell(driver, 2, 2, user=2, partition=1)
        sell(driver, 8, 300, user=2, partition=1)
        driver.flush()
        final = driver.latest("sales-final")[("takings", 0, "all")]
        assert (final["final"], final["amount"]) == (True, 3)


def test_a_source_topic_that_lost_records_is_refused_with_the_way_out() -> None:
    with Driver(shop()) as driver:
        sell(driver, 1, 1)
        driver.flush()
        driver.log._records[TP("sales", 0)].clear()
        driver.log._ends[TP("sales", 0)] = 0
        with pytest.raises(StateUnfit, match="replay the group"):
            driver.restart()


def test_clean_cells_of_closed_windows_leave_memory() -> None:
    with Driver(shop()) as driver:
        for minute in range(200):
            for user in range(20):
                sell(driver, 1, minute * 60 + user, user=user)
            if minute % 10 == 0:
                driver.flush()
        driver.flush()
        (cache,) = driver.worker.engine.partitions[0].feeds["sales"].caches
        assert len(cache.windows) <= 3


def met(sale: Any) -> list[tuple[str, list[str]]]:
    """By user, sixty things that were in the same sale: some 1,000 bytes."""
    return [(f"user {sale.user_id}", [f"product-{sale.amount + i:08d}" for i in range(60)])]


def meetings() -> Topology:
    topology = Topology("meetings").source(SALES, time=EventTime(MINUTE, 30 * MINUTE))
    topology.add(SALES, Table("met", {"with": Tally(500)}, met, retention_s=7_200))
    return topology


def in_memory(driver: Driver) -> dict[int, list[int]]:
    """By slice, how large the cells that partition 0 has in memory are when encoded."""
    (cache,) = driver.worker.engine.partitions[0].feeds["sales"].caches
    encode = cache.table.row.encode
    return {window: [len(encode(cell, 0)) for cell in cells.values()] for window, cells in cache.windows.items()}


def test_large_cells_of_open_slices_leave_memory_by_their_size_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tables.cache.MAX_BYTES", 50_000)
    with Driver(meetings()) as driver:
        for minute in range(20):
            for user in range(10):
                sell(driver, user, minute * 60, user=user)
            driver.flush()
            held = in_memory(driver)
            assert sum(map(sum, held.values())) <= 50_000
            assert sorted(held) == [at * MINUTE for at in range(max(0, minute - 3), minute + 1)]
        sell(driver, 0, 60, user=3)  # read again, and it counts for what it is
        driver.flush()
        assert sum(map(sum, in_memory(driver).values())) <= 50_000
        assert len(driver.rows("met")) == 200


def test_cells_that_grow_after_they_were_written_leave_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tables.cache.MAX_BYTES", 20_000)
    with Driver(meetings()) as driver:
        for turn in range(16):
            for user in range(5):
                sell(driver, turn * 60, turn, user=user)
            driver.flush()
            assert sum(map(sum, in_memory(driver).values())) <= 20_000
        assert {len(row["with"]["counts"]) for row in driver.rows("met").values()} == {960}


@pytest.mark.parametrize("seed", range(6))
def test_what_left_memory_counts_on_as_if_it_had_stayed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tables.cache.MAX_BYTES", 5_000)
    random_ = random.Random(seed)
    want: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    with Driver(meetings()) as driver:
        for i in range(200):
            amount, at, user = random_.randrange(100), i * 6 + random_.randrange(600), random_.randrange(4)
            want[at // 60 * MINUTE, f"user {user}"].update(f"product-{amount + j:08d}" for j in range(60))
            sell(driver, amount, at, user=user)
            act = random_.random()
            if act < 0.3:
                driver.flush()
            elif act < 0.35:
                driver.log.fail_append_after(random_.randrange(4))
                driver.deliver()
                driver.worker.flush()
            elif act < 0.4:
                driver.restart(wipe=act < 0.37)
        driver.flush()
        found = {cell: row["with"]["counts"] for cell, row in driver.rows("met").items()}
        assert found == want


@pytest.mark.parametrize("seed", range(12))
def test_any_run_of_batches_flushes_crashes_and_torn_flushes_ends_with_the_plain_loops_totals(seed: int) -> None:
    random_ = random.Random(seed)
    want: Counter[int] = Counter()
    with Driver(shop()) as driver:
        for i in range(300):
            amount, at = random_.randrange(100), i + random_.randrange(5)
            want[at // 60 * 60] += amount
            sell(driver, amount, at, user=i % 9, event_id=str(i), partition=random_.randrange(2))
            act = random_.random()
            if act < 0.1:
                driver.worker.deliver(batch=random_.randrange(1, 20))
            elif act < 0.2:
                driver.worker.flush()
            elif act < 0.25:
                driver.log.fail_append_after(random_.randrange(40))
            elif act < 0.3:
                driver.restart(wipe=random_.random() < 0.3)
            elif act < 0.33:
                driver.worker.seek("sales", random_.randrange(2), 0)
            elif act < 0.35:
                driver.log.compact(CHANGELOG)
        driver.flush()
        assert amounts(driver) == dict(want)
        assert SALES.dedupe_s
