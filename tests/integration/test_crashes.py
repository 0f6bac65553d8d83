"""Workers on real Kafka that are killed, wiped, paused and joined by others: every cell as the ledger has it."""

import signal
from pathlib import Path

import faulty
import msgspec
import pytest
from fleet import SESSION_S, Fleet, Shop, assert_exact, committed, new_prefix, read_all, wait_applied, wait_until

from streams.cluster import Cluster
from streams.events import OrderEvent

pytestmark = pytest.mark.slow


@pytest.mark.timeout(180)
def test_five_kills_in_one_run_one_with_its_state_deleted_change_no_cell(kafka: Cluster, tmp_path: Path) -> None:
    shop = Shop(kafka, new_prefix("kills"))
    ready = []
    with Fleet(kafka, tmp_path, shop.settings.prefix) as fleet:
        with shop.load(4_000):
            worker = fleet.start("w0")
            for kill in range(5):
                shop.wait_for(3_000)
                worker.kill()
                if kill == 2:
                    fleet.wipe_state()
                worker = fleet.start("w0", wait=False)
                ready.append(round(worker.wait_ready(), 2))
        wait_applied(shop)
        cells = assert_exact(shop)
    print(f"{shop.sent} events, {cells} cells exact, ready after {ready} s")
    assert max(ready) < 10


@pytest.mark.timeout(180)
def test_workers_that_share_join_and_leave_change_no_cell(kafka: Cluster, tmp_path: Path) -> None:
    shop = Shop(kafka, new_prefix("joins"))
    with Fleet(kafka, tmp_path, shop.settings.prefix) as fleet:
        with shop.load(4_000):
            fleet.start("w0")
            fleet.start("w1", wait=False)
            fleet.wait_shared(["w0", "w1"])
            shop.wait_for(4_000)
            third = fleet.start("w2", wait=False)
            fleet.wait_shared(["w0", "w1", "w2"])
            shop.wait_for(4_000)
            assert third.end() == 0
            fleet.wait_shared(["w0", "w1"])
            shop.wait_for(4_000)
        wait_applied(shop)
        assert_exact(shop)
        ended = {name: worker.end(signal.SIGINT) for name, worker in fleet.workers.items() if name != "w2"}
        assert ended == {"w0": 0, "w1": 0}
        for worker in fleet.workers.values():
            assert "Traceback" not in worker.text(), worker.text()[-5000:]


@pytest.mark.timeout(180)
def test_a_worker_paused_beyond_its_session_comes_back_as_a_zombie_and_changes_no_cell(
    kafka: Cluster, tmp_path: Path
) -> None:
    shop = Shop(kafka, new_prefix("zombie"))
    with Fleet(kafka, tmp_path, shop.settings.prefix) as fleet:
        with shop.load(4_000):
            paused, other = fleet.start("w0"), fleet.start("w1", wait=False)
            for _ in range(2):
                fleet.wait_shared(["w0", "w1"])
                shop.wait_for(2_000)
                paused.send_signal(signal.SIGSTOP)
                wait_until(lambda: other.owns() == {0, 1, 2, 3}, "the other has all partitions", 10 * SESSION_S)
                shop.wait_for(2_000)
                paused.send_signal(signal.SIGCONT)
            fleet.wait_shared(["w0", "w1"])
            shop.wait_for(2_000)
        wait_applied(shop)
        assert_exact(shop)
        for worker in fleet.workers.values():
            assert "Traceback" not in worker.text(), worker.text()[-5000:]


@pytest.mark.timeout(180)
def test_a_worker_that_comes_back_to_a_group_of_nobody_does_not_set_it_back(kafka: Cluster, tmp_path: Path) -> None:
    """What it had applied and not committed lies behind what its successor, which has ended since, has committed."""
    shop = Shop(kafka, new_prefix("nobody"))
    with Fleet(kafka, tmp_path, shop.settings.prefix, settings={"MILLRACE_FLUSH_S": "10"}) as fleet:
        paused = fleet.start("w0")
        for _ in range(5):  # a flush may come in between: then there is nothing that was not committed
            shop.send(1_000)
            wait_until(lambda: paused.applied(shop.orders) == shop.sent, "the first has applied what there is")
            paused.send_signal(signal.SIGSTOP)
            if behind := sum(committed(kafka, shop.group.name, shop.orders, 4).values()) < shop.sent:
                break
            paused.send_signal(signal.SIGCONT)
        assert behind
        shop.send(1_000)
        fleet.settings = {}
        other = fleet.start("w1")
        wait_applied(shop)
        assert other.end() == 0
        paused.send_signal(signal.SIGCONT)
        wait_until(lambda: paused.owns() == {0, 1, 2, 3}, "the first has all partitions again")
        shop.send(1_000)
        wait_applied(shop)
        assert_exact(shop)
        assert paused.end() == 0


def as_counted(event: OrderEvent) -> OrderEvent:
    """Poison adds nothing, but it has been seen, and time goes on with it: like a payment."""
    return msgspec.structs.replace(event, event_type="order.paid") if faulty.is_poison(event) else event


@pytest.mark.timeout(180)
def test_folds_that_raise_in_the_middle_of_a_batch_lose_and_double_nothing(kafka: Cluster, tmp_path: Path) -> None:
    shop = Shop(kafka, new_prefix("poison"), as_counted=as_counted, duplicates=0.0, late_sessions=0.0)
    with Fleet(kafka, tmp_path, shop.settings.prefix, "faulty:topology") as fleet:
        with shop.load(3_000):
            fleet.start("w0")
            shop.wait_for(5_000)
            fleet.start("w1", wait=False)
            fleet.wait_shared(["w0", "w1"])
            shop.wait_for(5_000)
            fleet.workers["w1"].kill()
            shop.wait_for(3_000)
            fleet.start("w1")
            fleet.workers["w1"].end()
            wait_until(lambda: fleet.workers["w0"].owns() == {0, 1, 2, 3}, "the first has all again")
        wait_applied(shop)
        assert_exact(shop)
    letters = [r for rs in read_all(kafka, f"{shop.orders}.dead-letters", 4).values() for r in rs]
    reasons = {dict(r.headers)["reason"] for r in letters}
    assert reasons == {b"table sales_by_total: ValueError: never again"}
    poisoned = {dict(r.headers)["id"] for r in letters}
    assert len(poisoned) == sum(faulty.is_poison(event) for event in shop.events)
