"""`millrace topics` and `millrace groups`: what the cluster has, what is done to it, and what is refused."""

import pytest
from operating import Operator, fresh, members

from streams.cluster import Cluster
from streams.topics import Topic, ensure_topics
from topologies.cli.groups import progress_topic
from topologies.sales import sales_topology
from topologies.settings import Settings


@pytest.fixture
def operator(kafka: Cluster, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(kafka, capsys)


def with_records(operator: Operator, count: int = 12) -> str:
    topic = fresh("grouped")
    ensure_topics(operator.cluster, [Topic(topic, partitions=3)])
    records = [f"user-{n}:{n}" for n in range(count)]
    operator.run("produce", topic, *records, "--partitioner", "round-robin")
    return topic


def committed(operator: Operator, group: str) -> dict[int, int]:
    (found,) = operator.json("groups", "describe", group)["groups"]
    return {one["partition"]: one["committed"] for one in found["positions"]}


def test_a_topic_lives_as_it_was_made(operator: Operator) -> None:
    topic = fresh("made")
    operator.run("topics", "create", topic, "-p", "3", "--config", "retention.ms=86400000")
    (found,) = operator.json("topics", "describe", topic)["topics"]
    assert [one["partition"] for one in found["partitions"]] == [0, 1, 2]
    assert (found["replication"], found["config"]["retention.ms"]) == (1, "86400000")
    assert topic in {one["topic"] for one in operator.json("topics", "list")["topics"]}
    assert "exists already" in operator.refuses("topics", "create", topic)
    assert operator.json("topics", "create", topic, "--if-missing")["created"] is False
    assert "3 partition(s) but 4" in operator.refuses("topics", "create", topic, "-p", "4", "--if-missing")
    assert operator.json("topics", "delete", topic, "--yes")["deleted"] == [topic]
    assert topic not in operator.run("topics", "list")
    assert operator.json("topics", "delete", topic, "--yes", "--if-exists")["deleted"] == []
    assert "there is no topic" in operator.refuses("topics", "delete", topic, "--yes")


def test_what_is_kafkas_own_is_neither_shown_nor_deleted(operator: Operator) -> None:
    topic, group = with_records(operator), fresh("any")
    operator.records(topic, "--group", group, "--from-beginning", "--to-end")
    assert "__consumer_offsets" not in operator.run("topics", "list")
    assert "__consumer_offsets" in operator.run("topics", "list", "--internal")
    assert "Kafka's own" in operator.refuses("topics", "delete", "__consumer_offsets", "--yes")


def test_a_setting_that_kafka_does_not_know_is_told(operator: Operator) -> None:
    assert "sideways" in operator.refuses("topics", "create", fresh("bad"), "--config", "sideways=1")
    assert "not name=value" in operator.refuses("topics", "create", fresh("bad"), "--config", "sideways")
    assert "letters, digits" in operator.refuses("topics", "create", "no spaces")


def test_offsets_are_first_end_and_that_of_a_time(operator: Operator) -> None:
    topic = with_records(operator)
    rows = operator.json("topics", "offsets", topic, "--at", "1h")["offsets"]
    assert [(r["partition"], r["first"], r["end"], r["offsets"], r["at"]) for r in rows] == [
        (0, 0, 4, 4, 0),
        (1, 0, 4, 4, 0),
        (2, 0, 4, 4, 0),
    ]
    later = operator.json("topics", "offsets", topic, "--at", "2100-01-01")["offsets"]
    assert [row["at"] for row in later] == [None, None, None]


def test_a_live_group_shows_who_has_which_partition_and_is_not_reset(operator: Operator) -> None:
    topic, group = with_records(operator), fresh("live")
    with members(operator.cluster, group, topic, 2, 3) as names:
        (found,) = operator.json("groups", "describe", group)["groups"]
        assert found["state"] == "STABLE"
        assert sorted(member["client"] for member in found["members"]) == names
        assigned = [one["partition"] for member in found["members"] for one in member["partitions"]]
        assert sorted(assigned) == [0, 1, 2]
        assert [(one["committed"], one["end"], one["lag"]) for one in found["positions"]] == [(None, 4, None)] * 3
        assert {"group": group, "state": "STABLE", "kind": "classic", "members": 2} in operator.json("groups", "list")[
            "groups"
        ]
        said = operator.refuses("groups", "reset", group, "--to-earliest", "--execute")
        assert "has 2 member(s), reader-0 at 127.0.0.1, reader-1 at 127.0.0.1: stop them first" in said


def test_a_member_without_a_partition_is_named(operator: Operator) -> None:
    topic, group = fresh("narrow"), fresh("wide")
    ensure_topics(operator.cluster, [Topic(topic, partitions=1)])
    with members(operator.cluster, group, topic, 2, 1):
        assert "without a partition: reader-" in operator.run("groups", "describe", group)


def test_a_reset_is_shown_first_and_done_only_when_told(operator: Operator) -> None:
    topic, group = with_records(operator), fresh("reset")
    operator.records(topic, "--group", group, "--from-beginning", "--to-end")
    assert committed(operator, group) == {0: 4, 1: 4, 2: 4}
    for dry in ((), ("--dry-run",)):
        planned = operator.json("groups", "reset", group, "--to-earliest", *dry)
        assert planned["executed"] is False
        assert [(one["before"], one["after"]) for one in planned["offsets"]] == [(4, 0)] * 3
    assert committed(operator, group) == {0: 4, 1: 4, 2: 4}
    operator.run("groups", "reset", group, "--shift-by=-1", "--execute")
    assert committed(operator, group) == {0: 3, 1: 3, 2: 3}
    operator.run("groups", "reset", group, "--topic", f"{topic}:0,2", "--to-offset", "99", "--execute")
    assert committed(operator, group) == {0: 4, 1: 3, 2: 4}
    operator.run("groups", "reset", group, "--to-datetime", "1h", "--execute")
    assert committed(operator, group) == {0: 0, 1: 0, 2: 0}
    assert len(operator.records(topic, "--group", group, "--to-end")) == 12


def test_a_group_that_is_yet_to_come_can_be_given_a_place(operator: Operator) -> None:
    topic, group = with_records(operator), fresh("to-come")
    assert "there is no group" in operator.refuses("groups", "describe", group)
    assert "there is no group" in operator.refuses("groups", "reset", group, "--to-latest")
    operator.run("groups", "reset", group, "--topic", topic, "--to-offset", "2", "--execute")
    assert committed(operator, group) == {0: 2, 1: 2, 2: 2}
    assert "no partition 7" in operator.refuses("groups", "reset", group, "--topic", f"{topic}:7", "--to-latest")


def test_a_group_whose_tables_keep_its_positions_is_sent_to_replay(operator: Operator) -> None:
    topic, group = with_records(operator), fresh("tables")
    operator.records(topic, "--group", group, "--from-beginning", "--to-end")
    ensure_topics(operator.cluster, [Topic(progress_topic(group), partitions=3, cleanup="compact")])
    for how in ("--dry-run", "--execute"):
        said = operator.refuses("groups", "reset", group, "--to-earliest", how)
        assert "`millrace replay TOPOLOGY --from" in said
    assert committed(operator, group) == {0: 4, 1: 4, 2: 4}
    assert "millrace replay" in operator.run("groups", "describe", group)


def test_a_group_of_ours_is_sent_to_the_replay_of_its_topology(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = fresh("shop") + "-"
    monkeypatch.setenv("MILLRACE_PREFIX", prefix)
    group = sales_topology(Settings.from_environment(cluster=operator.cluster)).group
    ensure_topics(operator.cluster, [group.progress])
    said = operator.refuses("groups", "reset", group.name, "--to-earliest")
    assert "`millrace replay analytics --from" in said
    operator.records(with_records(operator), "--group", group.name, "--from-beginning", "--to-end")
    # who gives the topology's name, or a part of the group's, is told the whole
    assert f"did you mean {group.name!r}?" in operator.refuses("groups", "describe", group.name[:-6])


def test_the_topic_of_positions_is_named_as_the_tables_name_it(kafka: Cluster) -> None:
    group = sales_topology(Settings.from_environment({}, cluster=kafka)).group
    assert progress_topic(group.name) == group.progress.name


@pytest.mark.parametrize("targets", [(), ("--to-earliest", "--to-latest"), ("--to-latest", "--dry-run", "--execute")])
def test_a_reset_wants_one_target(operator: Operator, targets: tuple[str, ...]) -> None:
    operator.run("groups", "reset", "any", *targets, code=2)


def test_somebody_elses_topic_of_that_name_does_not_count(operator: Operator) -> None:
    topic, group = with_records(operator), fresh("others")
    ensure_topics(operator.cluster, [Topic(progress_topic(group), partitions=1)])
    operator.run("groups", "reset", group, "--topic", topic, "--to-latest", "--execute")
    assert committed(operator, group) == {0: 4, 1: 4, 2: 4}


def test_a_cluster_that_is_away_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "127.0.0.1:1" in Operator(Cluster("127.0.0.1:1"), capsys).refuses("topics", "list")
