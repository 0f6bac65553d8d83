"""Scenarios on a real broker: what is shown is what the broker says, asked by others, and nothing is left behind."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka.admin import AdminClient
from fleet import MILLRACE, ROOT, wait_until

from streams.broker.tools import listed, run_tool
from streams.cluster import Cluster
from topologies.cli import main
from topologies.scenarios.acts import Act, Death, Opening, Spreading, Stage
from topologies.scenarios.plan import Plan, Spreader
from topologies.scenarios.run import run
from topologies.scenarios.spreading import big_customer_apart

SPREADERS = (
    Spreader("key-hash", None),
    Spreader("round-robin", None),
    Spreader("spreading:big_customer_apart", big_customer_apart),
)


def owners_by(cluster: Cluster, group: str) -> dict[str, list[int]]:
    """Each member's partitions, asked from the coordinator by a client of the test's own."""
    admin = AdminClient(cluster.librdkafka())
    described = admin.describe_consumer_groups([group])[group].result(20)
    assert described.state.name == "STABLE"
    owned: dict[str, list[int]] = defaultdict(list)
    for member in described.members:
        owned[member.client_id] += sorted(tp.partition for tp in member.assignment.topic_partitions)
    return dict(owned)


def left_of_scenarios(cluster: Cluster) -> set[str]:
    """Topics and groups of any scenario that there are."""
    admin = AdminClient(cluster.librdkafka())
    groups = [one.group_id for one in admin.list_consumer_groups().result(20).valid]
    return {name for name in (*admin.list_topics(timeout=20).topics, *groups) if name.startswith("scenario-")}


class Played:
    """A scenario that is looked at from outside while it is played: at each stage the broker is asked as well."""

    def __init__(self, cluster: Cluster, plan: Plan) -> None:
        self.cluster, self.acts, self.asked = cluster, list[Act](), list[dict[str, list[int]]]()
        run(plan, cluster, self.hear, lambda _: None)

    def hear(self, act: Act) -> None:
        self.acts.append(act)
        if isinstance(act, Opening):
            self.group = act.group
        if isinstance(act, Stage | Death):
            self.asked.append(owners_by(self.cluster, self.group))

    def of(self, kind: type[Any]) -> list[Any]:
        return [act for act in self.acts if isinstance(act, kind)]

    def shown(self) -> list[dict[str, list[int]]]:
        return [
            {name: list(owned) for name, owned in act.ownership.owners.items()}
            for act in self.of(Stage) + self.of(Death)
        ]


def test_owners_at_every_stage_are_the_brokers_own_and_the_idle_one_is_named(kafka: Cluster) -> None:
    played = Played(kafka, Plan("one-to-many", partitions=3, consumers=4, records=90, spreaders=SPREADERS))
    assert played.shown() == played.asked
    assert [act.consumers for act in played.of(Stage)] == [1, 3, 4]
    one, as_many, more = (act.ownership for act in played.of(Stage))
    assert one.owners == {"consumer-1": (0, 1, 2)}
    assert sorted(as_many.owners.values()) == [(0,), (1,), (2,)]
    assert [name for name, owned in played.asked[-1].items() if not owned] == list(more.idle)
    assert len(more.idle) == 1
    hashed, turned, custom = played.of(Spreading)
    assert (hashed.spread.in_one, hashed.spread.in_order) == (hashed.spread.keys, hashed.spread.keys)
    assert set(turned.spread.counts) == {30}
    assert turned.spread.in_one < turned.spread.keys
    assert custom.spread.in_one == custom.spread.in_order == custom.spread.keys
    for act in (hashed, turned, custom):
        assert sum(act.spread.counts) == act.sent == sum(act.read_by.values()) == 90
        assert [act.read_by[name] for name in more.idle] == [0]
    assert not left_of_scenarios(kafka)


def test_a_dead_consumers_partitions_move_as_the_broker_says_and_nothing_is_lost(kafka: Cluster) -> None:
    plan = Plan(
        "many-to-many", producers=3, partitions=4, consumers=3, records=120, kill=True, session_s=2, spreaders=SPREADERS
    )
    played = Played(kafka, plan)
    assert played.shown() == played.asked
    (death,) = played.of(Death)
    before = played.of(Stage)[-1].ownership
    assert death.owned == before.owners[death.consumer]
    assert not psutil.pid_exists(death.pid)
    assert death.consumer not in played.asked[-1]
    assert set(death.moved) == set(death.owned)
    assert all(partition in played.asked[-1][owner] for partition, owner in death.moved.items())
    assert 1.5 <= death.noticed_s <= death.settled_s
    assert death.waited_s > 1
    assert (death.lost, death.out_of_order) == (0, 0)
    for act in played.of(Spreading):
        assert act.sent == 120
    hashed = played.of(Spreading)[0].spread
    assert hashed.in_order == hashed.in_one == hashed.keys
    assert not left_of_scenarios(kafka)


def test_kafkas_own_tool_tells_the_same_owners(kafka: Cluster) -> None:
    told: list[tuple[Stage, str]] = []
    groups: list[str] = []

    def hear(act: Act) -> None:
        if isinstance(act, Opening):
            groups.append(act.group)
        if isinstance(act, Stage) and act.consumers == 3:
            asked = ("--describe", "--group", groups[0], "--members", "--verbose")
            where = ("--bootstrap-server", kafka.bootstrap)
            told.append((act, run_tool("consumer.group.ConsumerGroupCommand", *where, *asked)))

    run(Plan("one-to-many", partitions=2, consumers=3, records=10), kafka, hear, lambda _: None)
    ((stage, table),) = told
    rows = {row[3]: next((cell for cell in row[4:] if cell.startswith(groups[0])), "-") for row in listed(table)}
    told_by_it = {
        name: tuple(map(int, re.findall(r"\d+", cell.removeprefix(groups[0])))) for name, cell in rows.items()
    }
    assert told_by_it == stage.ownership.owners


def test_the_command_tells_it_as_text_and_as_json(kafka: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["scenario", "one-to-one", "--records", "40", "--bootstrap", kafka.bootstrap]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    assert not ended.value.code
    told = json.loads(capsys.readouterr().out)
    assert told["stages"][0]["owners"] == {"consumer-1": [0]}
    assert [one["partitioner"] for one in told["spreads"]][:2] == ["key-hash", "round-robin"]
    assert [one["inOrder"] for one in told["spreads"]] == [one["keys"] for one in told["spreads"]]
    assert told["death"] is None
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "1 consumer, 1 partition: as many consumers as partitions" in said
    assert said.rstrip().endswith("are deleted")
    assert not left_of_scenarios(kafka)


def test_a_partitioner_that_names_no_partition_is_one_line_and_nothing_is_left(
    kafka: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["scenario", "one-to-one", "--partitioner", "builtins:max", "--bootstrap", kafka.bootstrap])
    assert ended.value.code == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: the partitioner failed for key")
    assert not left_of_scenarios(kafka)


def test_ctrl_c_leaves_nothing_behind(kafka: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("wb") as told:
        process = subprocess.Popen(
            [sys.executable, "-c", MILLRACE, "scenario", "one-to-many", "--kill", "--session", "30"],
            stdout=told,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MILLRACE_BOOTSTRAP": kafka.bootstrap, "PYTHONUNBUFFERED": "1"},
        )
    wait_until(lambda: b"as many consumers" in out.read_bytes(), "four consumers are there")
    consumers = psutil.Process(process.pid).children()
    assert len(consumers) >= 4
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "Stopped." in out.read_text()
    assert not psutil.wait_procs(consumers, timeout=10)[1]
    assert not left_of_scenarios(kafka)
