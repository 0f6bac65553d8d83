"""One worker on real Kafka: first answers, bad records, a plain agent beside, expiry, a broker that goes and comes."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from fleet import Fleet, Shop, assert_exact, committed, free_port, new_prefix, read_all, wait_applied, wait_until

from streams.broker import Broker
from streams.cluster import Cluster
from streams.producers import Producer
from streams.topics import Topic, ensure_topics
from tables.accumulators import decode_key
from tables.reading import read_cells
from tables.store import Store


def placed(shop: Shop) -> int:
    """The total's money over all windows."""
    table = next(t for t in shop.group.tables if t.name == "sales_by_total")
    cells = read_cells(table, read_all(shop.cluster, shop.group.changelog(table).name, 4))
    return sum(reading.results["placed"] for reading in cells.values())


def test_a_console_order_is_in_the_table_within_two_seconds_and_half_of_one_in_the_dead_letters(
    kafka: Cluster, tmp_path: Path
) -> None:
    shop = Shop(kafka, new_prefix("console"))
    with Fleet(kafka, tmp_path, shop.settings.prefix) as fleet, Producer(kafka) as producer:
        worker = fleet.start("w0")
        producer.produce(shop.orders, b"user-123", b'{"orderId":1,"userId":123,"amount":50000}')
        producer.produce(shop.orders, b"user-123", b'{"orderId":')
        producer.produce(shop.orders, b"user-124", b'{"orderId":2,"userId":124,"amount":7}')
        producer.flush()
        began = time.monotonic()
        wait_until(lambda: placed(shop) == 50_007, "both orders in the table", 20)
        took = time.monotonic() - began
        letters = wait_until(
            lambda: [r for rs in read_all(kafka, f"{shop.orders}.dead-letters", 4).values() for r in rs],
            "a dead letter",
        )
        assert worker.owns() == {0, 1, 2, 3}
    print(f"in the changelog after {took:.2f} s")
    assert took < 2 + 3  # and room for a busy machine
    (letter,) = letters
    headers = dict(letter.headers)
    assert (letter.key, letter.value) == (b"user-123", b'{"orderId":')
    assert b"JSON" in headers["reason"] or b"truncated" in headers["reason"]
    assert headers["source-topic"].decode() == shop.orders


def test_a_plain_faust_agent_in_the_same_app_works_and_commits(kafka: Cluster, tmp_path: Path) -> None:
    shop = Shop(kafka, new_prefix("beside"))
    notes, answers = (Topic(f"{shop.settings.prefix}{name}", partitions=4) for name in ("notes", "answers"))
    shop.create_topics()
    ensure_topics(kafka, [notes, answers])
    fleet = Fleet(kafka, tmp_path, shop.settings.prefix)
    port = free_port()
    command = [sys.executable, "-m", "faust", "-A", "beside", "worker", "-l", "info", "--web-port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(command, env=fleet.environment(), stdout=log, stderr=log, start_new_session=True)
    try:
        with Producer(kafka) as producer:
            for i in range(200):
                producer.produce(notes.name, b"%d" % i, b"note %d" % i)
        shop.send(3_000)
        said = [b"read note %d" % i for i in range(200)]
        wait_until(lambda: heard(kafka, answers) == sorted(said), "every note answered", 60)
        ends = {p: sum(1 for _ in rs) for p, rs in read_all(kafka, notes.name, 4).items()}
        wait_until(lambda: committed(kafka, shop.group.name, notes.name, 4) == ends, "the notes committed", 30)
        wait_applied(shop)
        assert_exact(shop)
        worker.terminate()
        assert worker.wait(30) == 0
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait(10)
    assert "Traceback" not in (tmp_path / "log").read_text()


def heard(kafka: Cluster, topic: Topic) -> list[bytes]:
    return sorted(r.value or b"" for rs in read_all(kafka, topic.name, topic.partitions).values() for r in rs)


def set_config(cluster: Cluster, topic: str, **config: str) -> None:
    """Set a topic's configs, with dots for the underscores."""
    entries = [
        ConfigEntry(k.replace("_", "."), v, incremental_operation=AlterConfigOpType.SET) for k, v in config.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient(cluster.librdkafka())
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(20)


@pytest.mark.timeout(180)
def test_a_window_past_its_retention_is_gone_from_rocksdb_and_from_the_changelog(
    kafka: Cluster, tmp_path: Path
) -> None:
    shop = Shop(kafka, new_prefix("expiry"), events_per_s=20.0, late_sessions=0.0)
    settings = {"MILLRACE_RETENTION_S": "300"}
    table = next(t for t in shop.group.tables if t.name == "sales_by_total")
    topic = shop.group.changelog(table).name
    with Fleet(kafka, tmp_path, shop.settings.prefix, settings=settings) as fleet:
        worker = fleet.start("w0")
        set_config(
            kafka, topic, segment_ms="500", min_compaction_lag_ms="0", min_cleanable_dirty_ratio="0.01",
            delete_retention_ms="100",
        )  # fmt: skip
        for _ in range(6):
            shop.send(3_000)
            wait_applied(shop)
        first = min(w for w, _ in shop.ledger.cells("total"))
        edges = [s.watermark - 300_000 - 60_000 for s in shop.ledger.sources]

        def swept() -> bool:
            shop.send(100)  # segments roll when something is appended
            wait_applied(shop)
            found = read_all(kafka, topic, 4)
            return not [r for p, rs in found.items() for r in rs if decode_key(r.key or b"")[0] < edges[p]]

        wait_until(swept, "old windows out of the changelog", 60, 0.5)
        assert worker.end() == 0
        for number, edge in enumerate(edges):
            store = Store(fleet.state / shop.group.name / str(number), [t.name for t in shop.group.tables])
            starts = {decode_key(key)[0] for key, _ in store.scan(table.name, b"", b"\xff")}
            store.close()
            assert starts
            assert min(starts) >= edge > first


@pytest.mark.timeout(180)
@pytest.mark.parametrize("away_s", [2.0, pytest.param(45.0, marks=pytest.mark.slow)])
def test_a_worker_outlives_its_broker_and_changes_no_cell(
    kafka_broker: Broker, kafka: Cluster, tmp_path: Path, away_s: float
) -> None:
    shop = Shop(kafka, new_prefix("outage"))
    with Fleet(kafka, tmp_path, shop.settings.prefix) as fleet:
        with shop.load(4_000):
            worker = fleet.start("w0")
            shop.wait_for(3_000)
            kafka_broker.kill(1)
            time.sleep(away_s)  # how long it is away is what this is about
            kafka_broker.start_node(1)
            shop.wait_for(3_000)
        assert worker.process.poll() is None, worker.text()[-3000:]
        wait_applied(shop)
        assert_exact(shop)
        assert worker.end() == 0
        assert "Traceback" not in worker.text(), worker.text()[-5000:]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_worker_that_is_ended_without_its_broker_ends_and_what_it_had_not_flushed_is_not_lost(
    kafka_broker: Broker, kafka: Cluster, tmp_path: Path
) -> None:
    shop = Shop(kafka, new_prefix("farewell"))
    with Fleet(kafka, tmp_path, shop.settings.prefix) as fleet:
        worker = fleet.start("w0")
        shop.send(3_000)
        kafka_broker.kill(1)
        try:
            assert worker.end(limit_s=20) == 1
        finally:
            kafka_broker.start_node(1)
        text = worker.text()
        assert "Traceback" not in text
        assert next(line for line in text.splitlines() if line.startswith("error: ")).startswith(
            "error: Kafka does not"
        )
        fleet.start("w0")
        wait_applied(shop)
        assert_exact(shop)
