"""Payments as a process on Kafka: what it says of the two groups that it is a member of."""

import asyncio
import urllib.request
from pathlib import Path

import pytest
from fleet import Fleet, Shop, free_port, get, new_prefix, wait_until
from relaying import shop_database

from streams.cluster import Cluster
from streams.producers import Producer
from topologies.demo.processes import Children


async def migrated(directory: Path) -> None:
    async with shop_database(directory):
        pass


@pytest.mark.timeout(120)
def test_both_groups_and_what_they_put_aside_are_in_the_metrics(kafka: Cluster, tmp_path: Path) -> None:
    shop, port = Shop(kafka, new_prefix("paying")), free_port()
    asyncio.run(migrated(tmp_path))
    environment = {
        **Fleet(kafka, tmp_path, shop.settings.prefix).environment(),
        "MILLRACE_DATABASE": f"sqlite:///{tmp_path}/orders.db",
    }
    prefix, url = shop.settings.prefix, f"http://127.0.0.1:{port}"

    def shown(*lines: str) -> bool:
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
            page = response.read().decode()
        return all(line in page for line in lines)

    with Children(tmp_path / "logs", environment) as children:
        child = children.start("payments", ["payments", "--port", str(port)])
        wait_until(lambda: get(f"{url}/readyz")[0] == 200, "ready")
        with Producer(kafka) as producer:
            for topic in ("order-events", "payment-notifications"):
                producer.produce(f"{prefix}{topic}", b"user-1", b"{")
        wait_until(
            lambda: shown("millrace_payments_undecodable_total 1.0", "millrace_saga_undecodable_total 1.0"), "put aside"
        )
        for group in ("order-payment-group", "order-saga-group"):
            assert shown(f'millrace_group_lag{{group="{prefix}{group}"', f'connected{{group="{prefix}{group}"}} 1.0')
        children.end(child)
        assert child.process.returncode == 0, child.log.read_text()
