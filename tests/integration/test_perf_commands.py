"""`millrace perf`: what it counts is what the topic has, and nothing stays behind."""

import pytest
from operating import Operator, fresh

from streams.cluster import Cluster
from streams.topics import Topic, ensure_topics


@pytest.fixture
def operator(kafka: Cluster, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(kafka, capsys)


def test_what_was_measured_is_in_the_topic(operator: Operator) -> None:
    topic = fresh("load")
    ensure_topics(operator.cluster, [Topic(topic, partitions=3)])
    told = operator.json("perf", "produce", topic, "--records", "5000", "--size", "700")
    assert (told["records"], told["bytes"]) == (5000, 5000 * 700)
    latency = told["latencyMs"]
    ordered = [latency[name] for name in ("p50", "p95", "p99", "p99.9", "max")]
    assert 0 < ordered[0]
    assert ordered == sorted(ordered)
    assert latency["average"] <= latency["max"]
    rows = operator.json("topics", "offsets", topic)["offsets"]
    assert sum(row["offsets"] for row in rows) == 5000
    read = operator.json("perf", "consume", topic, "--records", "5000")
    assert (read["records"], read["bytes"]) == (5000, 5000 * 700)
    assert read["recordsPerSecond"] <= read["fetchRecordsPerSecond"]
    groups = operator.json("groups", "list")["groups"]
    assert not [one for one in groups if one["group"].startswith("millrace-perf-")]


def test_a_rate_is_kept(operator: Operator) -> None:
    topic = fresh("paced")
    ensure_topics(operator.cluster, [Topic(topic, partitions=1)])
    told = operator.json("perf", "produce", topic, "--records", "500", "--size", "10", "--rate", "1000", "--acks", "1")
    assert 0.49 < told["seconds"] < 5


def test_records_that_do_not_come_are_told(operator: Operator) -> None:
    topic = fresh("short")
    ensure_topics(operator.cluster, [Topic(topic, partitions=1)])
    operator.run("produce", topic, "k:v")
    said = operator.refuses("perf", "consume", topic, "--records", "2", "--timeout", "2")
    assert "1 of 2 records came" in said
