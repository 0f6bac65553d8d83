"""`millrace send` and `millrace read`: what is typed is what is read."""

import json
from uuid import uuid4

import pytest

from streams.cluster import Cluster
from streams.topics import Topic, ensure_topics
from topologies.cli import main


def millrace(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_what_was_sent_is_read_with_its_key(kafka: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    topic = f"typed-{uuid4().hex[:8]}"
    ensure_topics(kafka, [Topic(topic, partitions=2)])
    where = ("--bootstrap", kafka.bootstrap)
    assert millrace("read", topic, *where) == 0
    assert capsys.readouterr().out == ""
    assert millrace("send", topic, "one", "two", "three", "--key", "user-1", *where) == 0
    assert millrace("read", topic, *where) == 0
    read = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(record["key"], record["value"], record["offset"]) for record in read] == [
        ("user-1", "one", 0),
        ("user-1", "two", 1),
        ("user-1", "three", 2),
    ]
    assert millrace("read", topic, "--last", "1", *where) == 0
    assert json.loads(capsys.readouterr().out)["value"] == "three"


def test_a_topic_that_is_not_there_is_one_line(kafka: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("read", "nowhere"), ("send", "nowhere", "x")):
        assert millrace(*arguments, "--bootstrap", kafka.bootstrap) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert "nowhere" in said
