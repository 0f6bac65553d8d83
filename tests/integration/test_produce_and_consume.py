"""`millrace produce` and `millrace consume`: what is typed is what is read."""

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fleet import MILLRACE
from operating import Operator, fresh

from streams.cluster import Cluster
from streams.dead_letters import dead_letter
from streams.log import TP
from streams.memory_log import MemoryRecord
from streams.partitioners import key_hash
from streams.producers import Producer
from streams.topics import Topic, ensure_topics


@pytest.fixture
def operator(kafka: Cluster, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(kafka, capsys)


@pytest.fixture
def topic(kafka: Cluster) -> str:
    name = fresh("typed")
    ensure_topics(kafka, [Topic(name, partitions=3)])
    return name


def last_of_all(key: bytes | None, partitions: int) -> int:
    """A partitioner of one's own."""
    return partitions - 1


def out_of_bounds(key: bytes | None, partitions: int) -> int:
    """One that is wrong."""
    return partitions


def test_what_was_sent_is_read_with_its_key(operator: Operator, topic: str) -> None:
    assert operator.records(topic, "--from-beginning") == []
    operator.run("produce", topic, "one", "two", "three", "--key", "user-1")
    read = operator.records(topic, "--from-beginning")
    assert [(record["key"], record["value"], record["offset"]) for record in read] == [
        ("user-1", "one", 0),
        ("user-1", "two", 1),
        ("user-1", "three", 2),
    ]
    assert {record["partition"] for record in read} == {key_hash(b"user-1", 3)}
    assert [record["value"] for record in operator.records(topic, "--last", "1")] == ["three"]
    assert [record["value"] for record in operator.records(topic, "--from-offset", "1", "--max", "1")] == ["two"]


def test_lines_of_a_file_keep_their_order_within_a_key(operator: Operator, topic: str, tmp_path: Path) -> None:
    lines = tmp_path / "records.txt"
    lines.write_bytes(b"".join(b"user-%d:%d\r\n" % (number % 7, number) for number in range(700)))
    told = operator.json("produce", topic, "--file", str(lines))
    assert told["records"] == 700
    assert sum(one["records"] for one in told["partitions"]) == 700
    read = operator.records(topic, "--from-beginning")
    for user in range(7):
        assert [int(r["value"]) for r in read if r["key"] == f"user-{user}"] == list(range(user, 700, 7))


def test_what_consume_prints_is_what_produce_takes(
    operator: Operator, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.run("produce", topic, 'user-1:{"a":1}', "user-2:zwei Wörter", "user-3:")
    printed = operator.run("consume", topic, "--from-beginning", "--print", "key,value", "--separator", ":")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(printed.encode())))
    operator.run("produce", topic)
    read = [(record["key"], record["value"]) for record in operator.records(topic, "--from-beginning")]
    assert sorted(read) == sorted(2 * [("user-1", '{"a":1}'), ("user-2", "zwei Wörter"), ("user-3", "")])


def test_headers_and_tombstones_arrive(operator: Operator, topic: str) -> None:
    arguments = ("--header", "source=desk", "--headers-in-lines", "--null", "NULL", "--partition", "2")
    operator.run("produce", topic, "trace:7\tuser-1:NULL", *arguments)
    (read,) = operator.records(topic, "--from-beginning")
    assert (read["partition"], read["value"]) == (2, None)
    assert read["headers"] == {"source": "desk", "trace": "7"}
    assert operator.run("consume", topic, "--last", "1", "--print", "headers,value") == "source:desk,trace:7\tnull\n"


@pytest.mark.parametrize(
    ("partitioner", "spread"),
    [("round-robin", {0: 4, 1: 4, 2: 4}), (f"{__name__}:last_of_all", {2: 12})],
)
def test_a_partitioner_decides_whatever_the_key(
    operator: Operator, topic: str, partitioner: str, spread: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, __name__.rpartition(".")[2], sys.modules[__name__])
    records = [f"user-1:{number}" for number in range(12)]
    told = operator.json("produce", topic, *records, "--partitioner", partitioner)
    assert {one["partition"]: one["records"] for one in told["partitions"]} == spread


def test_random_partitions_are_all_used(operator: Operator, topic: str) -> None:
    told = operator.json("produce", topic, *[f"user-1:{n}" for n in range(90)], "--partitioner", "random")
    assert [one["partition"] for one in told["partitions"]] == [0, 1, 2]


def test_a_partitioner_that_is_wrong_is_said_with_the_key(operator: Operator, topic: str) -> None:
    said = operator.refuses("produce", topic, "user-1:x", "--partitioner", f"{__name__}:out_of_bounds")
    assert "gave 3 for key b'user-1': it must give 0 to 2" in said


def test_what_was_read_from_a_time_on_is_what_came_then(operator: Operator, topic: str) -> None:
    with Producer(operator.cluster) as producer:
        for second in range(1, 6):
            producer.produce(topic, b"user-1", b"%d" % second, timestamp_ms=1_790_000_000_000 + 1000 * second)
    read = operator.records(topic, "--from-time", "1790000003500")
    assert [record["value"] for record in read] == ["4", "5"]
    assert operator.records(topic, "--from-time", "1790000009000") == []


def test_a_group_goes_on_where_it_was(operator: Operator, topic: str) -> None:
    group = fresh("readers")
    operator.run("produce", topic, *[f"user-{n}:{n}" for n in range(9)])
    first = operator.records(topic, "--group", group, "--from-beginning", "--max", "4")
    # partitions from which nothing was read have a position, too: nothing is passed over
    second = operator.records(topic, "--group", group, "--to-end")
    assert sorted(int(record["value"]) for record in first + second) == list(range(9))
    assert operator.records(topic, "--group", group, "--to-end") == []


def test_one_that_follows_ends_in_order_and_leaves_the_group(operator: Operator, topic: str) -> None:
    group = fresh("followers")
    where = ("--bootstrap", operator.cluster.bootstrap)
    command = [sys.executable, "-c", MILLRACE, "consume", topic, "--group", group, "--from-beginning", *where]
    operator.run("produce", topic, "user-1:1", "user-2:2")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout is not None
            assert sorted(following.stdout.readline().split()[-1] for _ in range(2)) == ["1", "2"]
            following.send_signal(signal.SIGINT)
            assert following.communicate(timeout=30) == ("", "")
            assert following.returncode == 0
        finally:
            following.kill()
    (found,) = operator.json("groups", "describe", group)["groups"]
    assert (found["state"], found["lag"]) == ("EMPTY", 0)


def test_a_dead_letter_is_read_with_its_reason(operator: Operator, topic: str) -> None:
    record = MemoryRecord(17, 1_790_000_000_000, b"user-1", b'{"orderId":', [("trace", b"7")])
    key, value, headers = dead_letter(TP("order-events", 3), record, "not JSON: it ends")
    with Producer(operator.cluster) as producer:
        producer.produce(topic, key, value, headers=headers)
    (read,) = operator.records(topic, "--from-beginning")
    assert read["deadLetter"] == {
        "id": "order-events-3-17",
        "reason": "not JSON: it ends",
        "stage": "intake",
        "source": {"topic": "order-events", "partition": 3, "offset": 17, "timestamp": 1_790_000_000_000},
        "cut": 0,
    }
    said = operator.run("consume", topic, "--from-beginning")
    assert 'order-events-3-17: not JSON: it ends (intake)  user-1  trace:7  {"orderId":' in said


def test_bytes_that_are_no_text_are_not_lost(operator: Operator, topic: str) -> None:
    with Producer(operator.cluster) as producer:
        producer.produce(topic, b"k", b"\xff\x00")
    (read,) = operator.records(topic, "--from-beginning")
    assert read["valueBase64"] == "/wA="


def test_a_topic_that_is_not_there_is_one_line(operator: Operator, topic: str) -> None:
    for arguments in (("consume", "nowhere", "--from-beginning"), ("produce", "nowhere", "k:x")):
        assert "there is no topic 'nowhere'" in operator.refuses(*arguments)
    assert f"did you mean '{topic}'?" in operator.refuses("consume", topic + "s", "--from-beginning")


def test_json_without_a_key_is_refused_before_anything_is_sent(operator: Operator, topic: str) -> None:
    assert "--key" in operator.refuses("produce", topic, '{"orderId":1}')
    assert operator.records(topic, "--from-beginning") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("consume", "t", "--from-beginning", "--last", "1"),
        ("consume", "t", "--group", "g", "--from-time", "1h"),
        ("consume", "t", "--print", "sideways"),
        ("produce", "t", "k:v", "--key", "k", "--no-key"),
        ("produce", "t", "k:v", "--partitioner", "sideways"),
        ("produce", "t", "k:v", "--acks", "2"),
    ],
)
def test_options_that_contradict_are_wrong_usage(operator: Operator, arguments: tuple[str, ...]) -> None:
    operator.run(*arguments, code=2)
