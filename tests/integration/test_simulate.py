"""A simulated shop on real Kafka: every event where its key belongs, in order, and the ledger as sent."""

import json
import subprocess
import sys
from collections import defaultdict
from itertools import islice
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from streams.cluster import Cluster
from streams.codecs import decoder
from streams.events import OrderEvent
from streams.partitioners import key_hash
from streams.producers import Producer
from streams.simulator.emission import emitted
from streams.simulator.ledger import Ledger
from streams.simulator.run import plan_run, run
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS, Topic, ensure_topics
from topologies.cli import main

NOW = 1_750_000_000_000

# The share of orders goes with the hour: a test that begins now would expect another number each time.
EVENING = "2026-01-01T20:00:00Z"


def read(cluster: Cluster, topic: str, partitions: int) -> dict[int, list[tuple[bytes, bytes]]]:
    config = {"group.id": uuid4().hex, "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer(cluster.librdkafka(**config))
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found: dict[int, list[tuple[bytes, bytes]]] = {partition: [] for partition in range(partitions)}
    open_partitions = set(found)
    while open_partitions:
        record = consumer.poll(10)
        assert record is not None, "nothing came for 10 s"
        partition = record.partition()
        assert partition is not None
        error = record.error()
        if error is None:
            found[partition].append((record.key() or b"", record.value() or b""))
        else:
            assert error.code() == KafkaError._PARTITION_EOF, error
            open_partitions.discard(partition)
    consumer.close()
    return found


def test_partitions_hold_their_keys_events_in_the_order_they_were_sent(kafka: Cluster) -> None:
    ensure_topics(kafka, [ORDER_EVENTS])
    before = read(kafka, ORDER_EVENTS.name, 4)
    shop = ShopSettings(seed=77, topics=(ORDER_EVENTS.name,))
    plan = plan_run(shop, now_ms=NOW, events=3_000)
    book = Ledger()
    with Producer(kafka) as producer:
        sent = run(plan, producer, ledger=book)
    expected: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
    for _, key, value, _ in islice(emitted(plan.shop), 3_000):
        expected[key_hash(key, 4)].append((key, value))
    after = read(kafka, ORDER_EVENTS.name, 4)
    assert {p: records[len(before[p]) :] for p, records in after.items()} == expected
    assert (sent.events, sent.by_topic["order-events"]) == (3_000, 3_000)
    assert sum(s.counted + s.late + s.duplicates for s in book.sources) == 3_000


def test_a_stopped_run_says_so_and_its_ledger_is_what_was_sent(kafka: Cluster, tmp_path: Path) -> None:
    ensure_topics(kafka, [ORDER_EVENTS])
    before = sum(map(len, read(kafka, ORDER_EVENTS.name, 4).values()))
    ledger = tmp_path / "ledger.json"
    sending = subprocess.Popen(
        [
            *(sys.executable, "-c", "from topologies.cli import main; main()", "simulate", "--rate", "2000"),
            *("--ledger", str(ledger), "--bootstrap", kafka.bootstrap, "--json"),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        while sum(map(len, read(kafka, ORDER_EVENTS.name, 4).values())) == before:
            assert sending.poll() is None
    finally:
        sending.terminate()  # SIGINT is ignored by what a shell starts in the background
        out, _ = sending.communicate(timeout=30)
    told = json.loads(out)
    answers = json.loads(ledger.read_bytes())
    assert (sending.returncode, told["stopped"]) == (0, True)
    counted = sum(answers["counted"]) + sum(answers["late"]) + sum(answers["duplicates"])
    assert counted == told["topics"]["order-events"] > 0
    assert counted == sum(map(len, read(kafka, ORDER_EVENTS.name, 4).values())) - before


def test_the_command_sends_and_writes_the_ledger(
    kafka: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = tmp_path / "ledger.json"
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "-n", "2000", "--start", EVENING, "--bootstrap", kafka.bootstrap, "--ledger", str(ledger)])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("2,000 events in")
    assert sum(json.loads(ledger.read_bytes())["counted"]) > 100


def test_producer_of_this_package_places_keys_as_key_hash_does(kafka: Cluster) -> None:
    topic = Topic(f"placed-{uuid4().hex[:8]}", partitions=7)
    ensure_topics(kafka, [topic])
    keys = [b"user-%d" % user for user in range(300)] + ["é".encode(), b"x" * 100]
    with Producer(kafka) as producer:
        for key in keys:
            producer.produce(topic.name, key, key)
    for partition, records in read(kafka, topic.name, 7).items():
        assert all(key_hash(key, 7) == partition for key, _ in records)


def test_orders_decode_as_they_were_meant(kafka: Cluster) -> None:
    decode = decoder(OrderEvent)
    for records in read(kafka, ORDER_EVENTS.name, 4).values():
        for _, value in records:
            decode(value)
