"""Interleavings found by looking for them: each once lost, doubled or kept something for ever."""

from shop import amounts, sell, shop

from streams.log import TP
from tables.accumulators import encode_key
from tables.engine import Engine
from topologies.driver import Driver, Worker, run

CHANGELOG = "shop-takings-changelog"
SALES_0 = TP("sales", 0)


def deliver_one(worker: Worker, offset: int) -> None:
    worker.deliver_records(SALES_0, worker._driver.log.records(SALES_0, offset, offset + 1))


def test_the_first_batch_of_a_partitions_first_life_may_be_lost_on_the_way() -> None:
    with Driver(shop()) as driver:
        for i in range(4):
            sell(driver, 1, i)
        deliver_one(driver.worker, 3)  # 0 to 2 were fetched for a generation that is over
        driver.flush()
        assert amounts(driver) == {0: 4}


def test_a_first_life_that_starts_where_an_operator_put_it_says_so() -> None:
    with Driver(shop()) as driver:
        for i in range(4):
            sell(driver, 1, i)
        late = driver.add_worker("w1")
        late.assign([0, 1], 1)
        assert late.engine.partitions[0].feeds["sales"].since == {"takings": 0}


def test_an_owner_killed_before_it_settles_with_a_zombie_leaves_that_to_the_next_one() -> None:
    with Driver(shop()) as driver:
        zombie = driver.worker
        for i in range(4):
            sell(driver, 10, i)
        zombie.deliver()
        owner = driver.add_worker("w1")
        owner.assign([0, 1], generation=1)
        deliver_one(owner, 0)
        zombie.flush()  # ahead of the owner, with a progress of its own
        driver.log.fail_append_after(2)
        owner.flush()  # its older accumulators land after the zombie's, and it dies before it has looked
        owner.crash()
        heir = driver.worker = driver.add_worker("w2")
        heir.assign([0, 1], generation=2)
        sell(driver, 1, 5, partition=1)
        sell(driver, 1, 5, user=2)
        driver.flush()
        driver.log.compact(CHANGELOG)
        heir.crash(wipe=True)
        heir.assign([0, 1], generation=3)
        driver.flush()
        assert amounts(driver) == {0: 42}
        assert amounts(driver, "user 1") == {0: 41}


def test_what_is_settled_is_remembered_across_a_crash_of_the_one_who_should_settle_it() -> None:
    with Driver(shop()) as driver:
        zombie = driver.worker
        for i in range(4):
            sell(driver, 10, i)
        zombie.deliver()
        owner = driver.add_worker("w1")
        owner.assign([0, 1], generation=1)
        deliver_one(owner, 0)
        zombie.flush()
        driver.log.fail_append_after(2)
        owner.flush()
        owner.crash()
        heir = driver.worker = driver.add_worker("w2")
        heir.assign([0, 1], generation=2)
        heir.crash()  # has read the disorder into its store, and dies before its first flush
        heir.assign([0, 1], generation=3)
        sell(driver, 1, 5, user=2)
        driver.flush()
        driver.log.compact(CHANGELOG)
        heir.crash(wipe=True)
        heir.assign([0, 1], generation=4)
        driver.flush()
        assert amounts(driver, "user 1") == {0: 40}


def test_a_state_lost_between_a_windows_end_and_its_tombstones_leaves_no_window_behind() -> None:
    with Driver(shop()) as driver:
        sell(driver, 10, 1)
        driver.flush()
        sell(driver, 20, 10_000)
        driver.deliver()
        driver.worker.flush()  # this progress is the first that covers the end of the old window
        driver.restart(wipe=True)
        sell(driver, 30, 10_001)
        driver.flush()
        driver.log.compact(CHANGELOG)
        assert amounts(driver) == {9960: 50}
        store = driver.worker.engine.partitions[0].store
        assert list(store.scan("takings", encode_key(0, ""), encode_key(9_960_000, ""))) == []


def test_a_partial_that_comes_again_after_its_final_leaves_nothing_behind() -> None:
    with Driver(shop()) as driver:
        for partition in (0, 1):
            sell(driver, 1, 1, partition=partition)
            sell(driver, 1, 300, partition=partition)
        driver.flush()
        repeated = {p: driver.log.records(TP("shop-takings-partials", p)) for p in (0, 1)}
        sell(driver, 1, 301)
        driver.flush()
        finals = dict(driver.latest("sales-final"))
        for number, records in repeated.items():
            for record in records:
                driver.log.put(TP("shop-takings-partials", number), record)  # type: ignore[arg-type]
        driver.flush()
        for at in (400, 500):
            for partition in (0, 1):
                sell(driver, 1, at, partition=partition)
            driver.flush()
        sell(driver, 1, 501)
        driver.flush()
        assert {k: v for k, v in driver.latest("sales-final").items() if k in finals} == finals
        for held in driver.worker.engine.partitions.values():
            (cache,) = held.feeds["shop-takings-partials"].caches
            assert [w for w in cache.windows if w < 300_000] == []
            assert list(held.store.scan("takings-finals", encode_key(0, ""), encode_key(240_000, ""))) == []


def test_a_restore_that_a_revoke_overtakes_holds_nothing() -> None:
    with Driver(shop()) as driver:
        sell(driver, 1, 1)
        driver.flush()
        engine: Engine = driver.worker.engine
        ends = driver.log.end_offsets

        async def revoked_meanwhile(tps):  # type: ignore[no-untyped-def]
            driver.log.end_offsets = ends  # type: ignore[method-assign]
            await engine.release()
            return await ends(tps)

        driver.log.end_offsets = revoked_meanwhile  # type: ignore[method-assign]
        assert run(engine.restore([0, 1], 3)) == {}
        assert engine.partitions == {}
        driver.worker.assign([0, 1], 4)  # and its stores are free again
        assert [r.private for r in engine.restored] == [False, False]


def test_ids_read_again_after_a_restore_outlive_a_flush_of_the_second_stage_alone() -> None:
    with Driver(shop()) as driver:
        first = driver.worker
        sell(driver, 1, 1, event_id="a")
        driver.flush()
        second = driver.add_worker("w1")
        second.assign([0, 1], generation=1)
        for at, event_id in ((2, "b"), (200, "c")):
            sell(driver, 1, at, event_id=event_id)
        second.deliver_records(SALES_0, driver.log.records(SALES_0, 1))
        second.flush()  # hands a closed window to the second stage, which has not read it
        second.crash()
        first.assign([0, 1], generation=2)  # knows "a" by itself, and "b" and "c" from the source
        first.deliver()
        first.flush()
        sell(driver, 1, 201, event_id="d")
        driver.flush()
        first.crash()
        first.assign([0, 1], generation=3)
        sell(driver, 1, 202, event_id="c")
        driver.flush()
        assert amounts(driver) == {0: 2, 180: 2}
