"""`millrace` beside Kafka's own tools: the same topics, offsets, lags, assignments and records.

The tools are those of Kafka 4.3.1, the newest release of `org.apache.kafka:kafka-tools`: it was not published with
4.4.0, the broker's version. They are built with the clients of their own release and agree with the broker on the
version of each request, as any client does; `streams.broker.tools` pins every jar by its hash.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from operating import Operator, fresh, members

from streams.broker import Broker
from streams.broker.tools import listed, run_tool
from streams.cluster import Cluster
from streams.partitioners import key_hash
from topologies.cli import main

pytestmark = pytest.mark.timeout(240)
GROUPS = "consumer.group.ConsumerGroupCommand"
CONSUMER = "consumer.ConsoleConsumer"
PRINTED = ("partition", "offset", "timestamp", "headers", "key")


@pytest.fixture
def operator(kafka: Cluster, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(kafka, capsys)


@pytest.fixture(scope="module")
def topic(kafka_broker: Broker) -> str:
    """One made by `millrace`, with records of both makers: keys, headers, an empty value, letters beyond ASCII.

    Read by all tests here, and changed by none.
    """
    cluster = kafka_broker.cluster()
    assert cluster is not None
    name, at = fresh("both"), ("--bootstrap", cluster.bootstrap)
    ended_well("topics", "create", name, "--partitions", "3", "--config", "max.message.bytes=2000000", *at)
    ended_well("produce", name, *[f"user-{n}:ours {n}" for n in range(40)], *at)
    ended_well("produce", name, "a:1,b:x y\tuser-7:Wörter", "\tuser-8:", "--headers-in-lines", *at)
    theirs = "".join(f"h:{n}\tuser-{n}:theirs {n}\n" for n in range(40))
    properties = ("parse.key=true", "key.separator=:", "parse.headers=true")
    given = [word for one in properties for word in ("--reader-property", one)]
    run_tool("ConsoleProducer", "--bootstrap-server", cluster.bootstrap, "--topic", name, *given, typed=theirs)
    return name


def ended_well(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


def where(operator: Operator) -> tuple[str, str]:
    return "--bootstrap-server", operator.cluster.bootstrap


def tools(operator: Operator, *calls: tuple[str, ...]) -> list[str]:
    """What several calls print; each is a Java process that takes seconds to start."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda call: run_tool(call[0], *where(operator), *call[1:]), calls))


def number(text: str) -> int | None:
    return None if text == "-" else int(text)


def their_positions(table: str) -> dict[int, tuple[int | None, int | None, int | None]]:
    """Of GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG ...: committed, end and lag by partition."""
    return {int(r[2]): (number(r[3]), number(r[4]), number(r[5])) for r in listed(table)}


def our_positions(described: Any) -> dict[int, tuple[int | None, int | None, int | None]]:
    (group,) = described["groups"]
    return {one["partition"]: (one["committed"], one["end"], one["lag"]) for one in group["positions"]}


def test_both_know_the_same_topics_and_offsets(operator: Operator, topic: str) -> None:
    names, described, ends, starts, newest = tools(
        operator,
        ("TopicCommand", "--list", "--exclude-internal"),
        ("TopicCommand", "--describe", "--topic", topic),
        ("GetOffsetShell", "--topic", topic),
        ("GetOffsetShell", "--topic", topic, "--time", "earliest"),
        ("GetOffsetShell", "--topic", topic, "--time", "max-timestamp"),
    )
    ours = operator.json("topics", "list")["topics"]
    assert {topic, *(one["topic"] for one in ours)} == set(names.split())
    (found,) = operator.json("topics", "describe", topic)["topics"]
    heading, *lines = described.strip().splitlines()
    assert re.search(r"TopicId: (\S+)", heading)[1] == found["id"]  # type: ignore[index]  # it is always told
    assert f"PartitionCount: {len(found['partitions'])}\tReplicationFactor: {found['replication']}" in heading
    assert all(f"{name}={value}" in heading for name, value in found["config"].items())
    placed = [re.search(r"Partition: (\d+)\tLeader: (\d+)\tReplicas: (\S+)\tIsr: (\S+)", line) for line in lines]
    assert [one.groups() for one in placed if one] == [
        (str(p["partition"]), str(p["leader"]), joined(p["replicas"]), joined(p["inSync"])) for p in found["partitions"]
    ]
    rows = operator.json("topics", "offsets", topic, "--at", "newest")["offsets"]
    for shell, field in ((ends, "end"), (starts, "first"), (newest, "at")):
        assert shell.split() == [f"{topic}:{row['partition']}:{row[field]}" for row in rows]


def joined(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))


def test_both_print_the_same_records(operator: Operator, topic: str) -> None:
    shown = [word for name in PRINTED for word in ("--formatter-property", f"print.{name}=true")]
    (printed,) = tools(operator, (CONSUMER, "--topic", topic, "--from-beginning", "--max-messages", "82", *shown))
    theirs = sorted(printed.rstrip("\n").split("\n"))
    columns = ("consume", topic, "--from-beginning", "--print", "timestamp,partition,offset,headers,key,value")
    ours = sorted(in_their_words(line) for line in operator.run(*columns).rstrip("\n").split("\n"))
    assert len(ours) == 82
    assert ours == theirs
    # and both put a key where the other one puts it
    records = operator.records(topic, "--from-beginning")
    assert [record["partition"] for record in records] == [key_hash(record["key"].encode(), 3) for record in records]


def in_their_words(line: str) -> str:
    timestamp, partition, offset, headers, key, value = line.split("\t")
    place = f"CreateTime:{timestamp}\tPartition:{partition}\tOffset:{offset}"
    return "\t".join((place, headers or "NO_HEADERS", key, value))


def test_both_tell_the_same_of_a_live_group(operator: Operator, topic: str) -> None:
    group = fresh("live")
    operator.records(topic, "--group", group, "--from-beginning", "--max", "50")
    with members(operator.cluster, group, topic, 2, 3):
        described, of_members, states = tools(
            operator,
            (GROUPS, "--describe", "--group", group),
            (GROUPS, "--describe", "--group", group, "--members", "--verbose"),
            (GROUPS, "--list", "--state"),
        )
        ours = operator.json("groups", "describe", group)
    (found,) = ours["groups"]
    assert their_positions(described) == our_positions(ours)
    assert sum(lag or 0 for _, _, lag in their_positions(described).values()) == found["lag"] == 82 - 50
    owners = {int(row[2]): row[6] for row in listed(described)}
    assert owners == {one["partition"]: one["member"] for one in found["positions"]}
    assert {row[1]: (row[2].removeprefix("/"), row[3], int(row[4])) for row in listed(of_members)} == {
        one["id"]: (one["host"], one["client"], len(one["partitions"])) for one in found["members"]
    }
    assert [group, "Stable"] in listed(states)
    assert found["state"] == "STABLE"


def test_a_group_goes_on_in_one_tool_where_it_was_left_in_the_other(operator: Operator, topic: str) -> None:
    group = fresh("shared")
    first = operator.records(topic, "--group", group, "--from-beginning", "--max", "30")
    (second,) = tools(
        operator, (CONSUMER, "--topic", topic, "--group", group, "--max-messages", "30", "--timeout-ms", "30000")
    )
    third = operator.records(topic, "--group", group, "--to-end")
    read = sorted([r["value"] for r in first] + second.rstrip("\n").split("\n") + [r["value"] for r in third])
    assert read == sorted(record["value"] for record in operator.records(topic, "--from-beginning"))
    (described,) = tools(operator, (GROUPS, "--describe", "--group", group))
    assert their_positions(described) == our_positions(operator.json("groups", "describe", group))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("--to-earliest",), ("--to-earliest",)),
        (("--shift-by=-7",), ("--shift-by", "-7")),
        (("--to-datetime", "{time}"), ("--to-datetime", "{time}")),
    ],
)
def test_both_plan_the_same_reset(
    operator: Operator, topic: str, ours: tuple[str, ...], theirs: tuple[str, ...]
) -> None:
    group = fresh("reset")
    operator.records(topic, "--group", group, "--from-beginning", "--to-end")
    # a time in the middle: that of a record which the other maker sent later than ours
    newest = max(record["timestamp"] for record in operator.records(topic, "--from-beginning"))
    time = iso_ms(newest) + "Z"
    to = [word.format(time=time) for word in ours]
    planned = operator.json("groups", "reset", group, *to)
    asked = [word.format(time=time) for word in theirs]
    (table,) = tools(operator, (GROUPS, "--reset-offsets", "--dry-run", "--group", group, "--topic", topic, *asked))
    assert {int(row[2]): int(row[3]) for row in listed(table)} == {
        one["partition"]: one["after"] for one in planned["offsets"]
    }
    done = operator.json("groups", "reset", group, *to, "--execute")
    (described,) = tools(operator, (GROUPS, "--describe", "--group", group))
    assert {number: at for number, (at, _, _) in their_positions(described).items()} == {
        one["partition"]: one["after"] for one in done["offsets"]
    }


def iso_ms(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}"


def test_what_one_measures_the_other_finds(operator: Operator) -> None:
    topic = fresh("load")
    operator.run("topics", "create", topic, "--partitions", "3")
    operator.run("perf", "produce", topic, "--records", "2000", "--size", "100")
    run_tool(
        "ProducerPerformance",
        *("--topic", topic, "--num-records", "2000", "--record-size", "100", "--throughput", "-1", *where(operator)),
    )
    told = run_tool("ConsumerPerformance", *where(operator), "--topic", topic, "--num-records", "4000")
    megabytes, count = told.strip().splitlines()[-1].split(", ")[2:5:2]
    ours = operator.json("perf", "consume", topic, "--records", "4000")
    assert int(count) == ours["records"] == 4000
    assert float(megabytes) == pytest.approx(ours["bytes"] / 2**20, abs=1e-4)
    assert ours["bytes"] == 400_000
