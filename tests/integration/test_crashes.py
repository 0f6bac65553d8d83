"""Workers on real Kafka that are killed, wiped, paused and joined by others: every cell as the ledger has it."""

from pathlib import Path

import pytest
from fleet import Fleet, Shop, assert_exact, new_prefix, wait_applied

from streams.cluster import Cluster


@pytest.mark.slow
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
