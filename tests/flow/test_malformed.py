"""Of records malformed in every way each becomes a dead letter with its reason, and all others count, exactly."""

from collections import Counter

from fleet import expected_row
from malformed import BAD, HUGE, ODD, PARTITIONS, Made, made, matches

from streams.cluster import Cluster
from streams.dead_letters import told
from streams.log import TP, Entry
from streams.simulator.ledger import BY, Ledger
from topologies.driver import Driver
from topologies.sales import sales_topology
from topologies.settings import Settings

COUNT = 20_000
SETTINGS = Settings(cluster=Cluster("nowhere:1"), home=None, state_dir=None)  # type: ignore[arg-type]  # not used


def feed(driver: Driver, records: list[Made]) -> tuple[Ledger, dict[str, Made]]:
    """Feed them, and say what they must come to: sales, and dead letters by id."""
    ledger, dead = Ledger(PARTITIONS), {}
    for one in records:
        tp = TP("order-events", one.partition)
        offset = driver.log.put(tp, Entry(one.key, one.value), one.at_ms)
        if one.event is None:
            dead[f"{tp.topic}-{tp.partition}-{offset}"] = one
        else:
            assert one.key is not None
            ledger.record(one.key, one.event, one.at_ms)
    return ledger, dead


def assert_all_accounted_for(driver: Driver, ledger: Ledger, dead: dict[str, Made]) -> None:
    for by in BY:
        expected = {k: expected_row(c, with_customers=by != "product") for k, c in ledger.cells(by).items()}
        assert driver.rows(f"sales_by_{by}") == expected
    letters = driver.records("order-events.dead-letters")
    reasons = {said.id: said.reason for r in letters if (said := told(r.headers)) is not None}
    assert reasons.keys() == dead.keys()
    wrong = {(one.kind, reasons[name]) for name, one in dead.items() if not matches(one, reasons[name])}
    assert not wrong
    for record in letters:
        said = told(record.headers)
        assert said is not None
        assert (record.key, record.value) == (dead[said.id].key, dead[said.id].value)


def test_every_malformed_record_is_put_aside_with_its_reason_and_every_other_counts() -> None:
    records = list(made(COUNT, share=0.02))
    assert len(Counter(one.kind for one in records)) > len(BAD) + len(HUGE) + len(ODD) - 3
    with Driver(sales_topology(SETTINGS), batch=5_000) as driver:
        ledger, dead = feed(driver, records)
        driver.flush()
        assert_all_accounted_for(driver, ledger, dead)


def test_neither_batches_nor_crashes_change_what_becomes_of_malformed_records() -> None:
    with Driver(sales_topology(SETTINGS), batch=37) as driver:
        for part in range(4):
            records = list(made(500, share=0.3, seed=part, start_ms=part * 300_000, huge=1_000_000))
            renamed = [one for one in records if one.event is None]  # eventIds of the parts are the same: bad ones only
            ledger, dead = feed(driver, records if part == 0 else renamed)
            if part == 0:
                all_ledger, all_dead = ledger, dead
            else:
                all_dead |= dead
            driver.deliver()
            driver.restart(wipe=part % 2 == 1)
            driver.deliver()
            driver.log.fail_append_after(part * 7)
            driver.worker.flush()
            driver.restart()
            driver.flush()
        assert_all_accounted_for(driver, all_ledger, all_dead)
