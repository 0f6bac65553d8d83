"""On real Kafka: of records malformed in every way, huge ones too, each is a dead letter, and all others count."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet, Shop, assert_exact, new_prefix, read_all, wait_applied
from malformed import Made, made, matches

from streams.cluster import Cluster
from streams.dead_letters import told
from streams.producers import Producer

# The broker judges what is too large, not the client.
UNCHECKED = {"message.max.bytes": 64 << 20}
BLOCK = 50_000


def send(cluster: Cluster, shop: Shop, records: Iterator[Made]) -> dict[str, Made]:
    """Send them, record what they must come to in the shop's ledger, and return what must be dead, by id."""
    ends, dead = [0] * shop.settings.partitions, {}
    with Producer(cluster, **UNCHECKED) as producer:
        for one in records:
            producer.produce(shop.orders, one.key, one.value, one.partition, timestamp_ms=one.at_ms)
            if one.event is None:
                dead[f"{shop.orders}-{one.partition}-{ends[one.partition]}"] = one
            else:
                assert one.key is not None
                shop.ledger.record(one.key, one.event, one.at_ms)
            ends[one.partition] += 1
    return dead


@pytest.mark.parametrize(
    ("count", "huge"),
    [(50_000, 20), pytest.param(1_000_000, 100, marks=[pytest.mark.slow, pytest.mark.timeout(1_200)])],
)
def test_every_malformed_record_is_put_aside_and_every_other_counts(
    kafka: Cluster, tmp_path: Path, count: int, huge: int
) -> None:
    with Fleet(kafka, tmp_path, new_prefix("malformed")) as fleet:
        shop = Shop(kafka, fleet.prefix)
        shop.create_topics()
        start_ms = (time.time_ns() // 1_000_000 // 60_000 - 24 * 60) * 60_000
        dead = send(kafka, shop, made(count, start_ms=start_ms, huge=huge))
        worker = fleet.start("w0")
        began = time.monotonic()
        wait_applied(shop, 90 if count < 100_000 else 600)
        took = time.monotonic() - began
        assert worker.end() == 0
        cells = assert_exact(shop)
        letters = [r for rs in read_all(kafka, f"{shop.orders}.dead-letters", 4).values() for r in rs]
        said = [(record, known) for record in letters if (known := told(record.headers)) is not None]
        assert {known.id for _, known in said} == dead.keys()
        for record, known in said:
            assert matches(dead[known.id], known.reason), (dead[known.id].kind, known.reason)
            assert (record.key, record.value) == (dead[known.id].key, dead[known.id].value)
        print(f"{count} records, {len(dead)} dead, {cells} cells exact, {count / took:,.0f} records/s")
