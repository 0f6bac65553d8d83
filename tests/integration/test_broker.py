import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.broker import Broker
from streams.cluster import Cluster
from streams.errors import BrokerUnreachable, MillraceError, PartitionMismatch
from streams.topics import Topic, ensure_topics
from topologies.cli import main


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    yield home
    Broker(home).down(wipe=True)


def fresh(name: str, partitions: int = 2) -> Topic:
    return Topic(f"{name}-{uuid4().hex[:8]}", partitions=partitions)


def produce(cluster: Cluster, topic: Topic, *values: bytes) -> None:
    producer = Producer(cluster.librdkafka(acks="all"))
    for value in values:
        producer.produce(topic.name, value, partition=0)
    assert producer.flush(20) == 0


def consume(cluster: Cluster, topic: Topic, count: int) -> list[bytes | None]:
    config = {"group.id": "none", "auto.offset.reset": "error", "enable.auto.commit": False}
    consumer = Consumer(cluster.librdkafka(**config))
    consumer.assign([TopicPartition(topic.name, 0, 0)])
    values = [record.value() for record in consumer.consume(count, timeout=20)]
    consumer.close()
    return values


def test_a_missing_topic_is_created_as_declared(kafka: Cluster) -> None:
    topic = fresh("created", partitions=5)
    ensure_topics(kafka, [topic, topic.dead_letters])
    ensure_topics(kafka, [topic, topic.dead_letters])
    found = AdminClient(kafka.librdkafka()).list_topics(timeout=10).topics
    assert len(found[topic.name].partitions) == len(found[topic.dead_letters.name].partitions) == 5


def test_another_number_of_partitions_is_named_with_the_way_out(kafka: Cluster) -> None:
    topic = fresh("mismatch", partitions=1)
    ensure_topics(kafka, [topic])
    with pytest.raises(PartitionMismatch, match=r"1 partition\(s\) but 4 are declared") as refused:
        ensure_topics(kafka, [topic.with_partitions(4)])
    assert topic.name in str(refused.value)
    assert "MILLRACE_PARTITIONS=1" in str(refused.value)


def test_a_topic_that_kafka_refuses_is_one_line(kafka: Cluster) -> None:
    with pytest.raises(MillraceError, match="could not be created") as refused:
        ensure_topics(kafka, [fresh("copies")], replication=3)
    assert "\n" not in str(refused.value)


def test_no_broker_is_told_with_its_address() -> None:
    with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1:1:"):
        ensure_topics(Cluster("127.0.0.1:1"), [fresh("nowhere")], timeout_s=1)


def test_data_and_address_outlive_a_restart_and_end_with_a_wipe(home: Path) -> None:
    broker, topic = Broker(home), fresh("kept")
    cluster = broker.up()
    assert broker.up() == cluster == Broker(home).cluster()
    ensure_topics(cluster, [topic])
    produce(cluster, topic, b"one", b"two")
    broker.down()
    assert broker.cluster() is None
    assert broker.up() == cluster
    assert consume(cluster, topic, 2) == [b"one", b"two"]
    broker.down(wipe=True)
    assert not broker.directory.exists()
    assert broker.cluster() is None


def test_a_killed_node_comes_back_with_its_data_on_its_port(kafka_broker: Broker, kafka: Cluster) -> None:
    topic = fresh("killed")
    ensure_topics(kafka, [topic])
    produce(kafka, topic, b"acknowledged")
    kafka_broker.kill(1)
    assert kafka_broker.cluster() is None
    kafka_broker.start_node(1)
    assert kafka_broker.cluster() == kafka
    assert consume(kafka, topic, 1) == [b"acknowledged"]


def test_a_port_taken_meanwhile_is_exchanged(home: Path) -> None:
    import socket

    broker = Broker(home)
    cluster = broker.up()
    broker.down()
    host, port = cluster.bootstrap.split(":")
    with socket.socket() as other:
        other.bind((host, int(port)))
        other.listen()
        moved = broker.up()
    assert moved != cluster
    ensure_topics(moved, [fresh("moved")])
    broker.down(wipe=True)


def test_settings_that_kafka_refuses_are_told_with_the_log(home: Path) -> None:
    broker = Broker(home, properties={"log.segment.bytes": "many"}, name="refused")
    with pytest.raises(MillraceError, match=r"log\.segment\.bytes"):
        broker.up()
    broker.down(wipe=True)


def test_the_command_line_tells_the_broker_as_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {}
    for command in (["up"], ["status"], ["down", "--wipe"]):
        with pytest.raises(SystemExit) as ended:
            main(["broker", *command, "--home", str(home), "--json"])
        assert ended.value.code == 0
        told[command[0]] = json.loads(capsys.readouterr().out)
    assert told["up"]["running"] is told["status"]["running"] is True
    assert told["status"]["bootstrap"] == told["up"]["bootstrap"]
    assert told["down"]["running"] is False


@pytest.mark.slow
def test_three_nodes_serve_while_one_is_dead(kafka3_broker: Broker, kafka3: Cluster) -> None:
    topic = fresh("replicated")
    ensure_topics(kafka3, [topic])
    kafka3_broker.kill(2)
    try:
        produce(kafka3, topic, b"while one is dead")
        assert kafka3_broker.cluster() == kafka3
    finally:
        kafka3_broker.start_node(2)
    assert consume(kafka3, topic, 1) == [b"while one is dead"]
    assert len(kafka3_broker.status().nodes) == 3
    with pytest.raises(MillraceError, match="has 3 node"):
        Broker(kafka3_broker.home, nodes=1).up()
