"""`millrace replay` in place on a real cluster: the tables come back as they were, whatever dies in between."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from fleet import (
    MILLRACE,
    Fleet,
    Shop,
    assert_exact,
    committed,
    ends,
    free_port,
    new_prefix,
    read_all,
    wait_applied,
    wait_until,
)

from streams.admin.connection import Admin
from streams.admin.groups import committed_offsets
from streams.cluster import Cluster
from streams.log import TP
from tables.points import REPLAY_POINTS
from tables.reading import read_cells
from topologies.demo.client import Client
from topologies.demo.processes import Children
from topologies.driver import Driver
from topologies.names import workers_here

pytestmark = pytest.mark.timeout(300)
REPLAY = ("replay", "analytics", "--from", "earliest", "--yes", "--json")


def cells(shop: Shop) -> dict[tuple[str, int, str], Any]:
    """Every cell of every table, by (table, slice start, key), second stages left out."""
    found: dict[tuple[str, int, str], Any] = {}
    for table in (t for s in shop.topology.sources.values() for t in s.tables):
        changelog = read_all(shop.cluster, shop.group.changelog(table).name, shop.settings.partitions)
        found |= {(table.name, *key): reading.results for key, reading in read_cells(table, changelog).items()}
    return found


def done(ended: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert ended.returncode == 0, ended.stderr[-4000:]
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def live(kafka: Cluster, path: Path, name: str, events: int = 4_000, **settings: str) -> tuple[Shop, Fleet]:
    """A shop whose orders a worker has counted, which has ended since."""
    shop = Shop(kafka, new_prefix(name))
    fleet = Fleet(kafka, path, shop.settings.prefix, settings=settings)
    worker = fleet.start("w0")
    shop.send(events)
    wait_applied(shop)
    assert worker.end() == 0
    return shop, fleet


def test_a_replay_from_earliest_says_what_the_live_run_said_and_workers_go_on_from_there(
    kafka: Cluster, tmp_path: Path
) -> None:
    shop, fleet = live(kafka, tmp_path, "replay")
    with fleet:
        before = cells(shop)
        told = done(fleet.run_to_its_end(*REPLAY))
        assert told["events"] == shop.sent
        assert f"{shop.group.name}-progress" in told["dropped"]
        assert cells(shop) == before
        assert_exact(shop)
        assert not (fleet.state / shop.group.name / "replay.json").exists()
        assert workers_here(fleet.state, shop.group.name) == {}
        fleet.start("w0")
        shop.send(1_000)
        wait_applied(shop)
        assert_exact(shop)


@pytest.mark.slow
def test_a_replay_killed_at_any_step_goes_on_and_no_worker_counts_wrong_in_between(
    kafka: Cluster, tmp_path: Path
) -> None:
    shop, fleet = live(kafka, tmp_path, "steps")
    with fleet:
        before = cells(shop)
        for point in REPLAY_POINTS:
            dying = Fleet(kafka, tmp_path, shop.settings.prefix, settings={"MILLRACE_FAULT": f"{point}:1"})
            assert dying.run_to_its_end(*REPLAY).returncode == -signal.SIGKILL, point
            if point in ("replay-committed", "replay-inner-deleted"):
                ended = fleet.run_to_its_end("worker", "analytics", "--name", "w0", limit_s=120)
                assert ended.returncode == 1
                assert "millrace replay" in ended.stderr.splitlines()[-1]
        told = done(fleet.run_to_its_end(*REPLAY))
        assert told["resumed"] is True
        assert told["events"] == shop.sent
        assert cells(shop) == before
        assert_exact(shop)


def applied(admin: Admin, shop: Shop) -> int:
    found = committed_offsets(admin, shop.group.name)
    return sum(at for tp, at in found.items() if tp.topic == shop.orders)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["all are killed", "the command is killed", "Ctrl-C"])
def test_a_replay_that_is_ended_while_it_rebuilds_goes_on_where_it_was(
    kafka: Cluster, tmp_path: Path, how: str
) -> None:
    shop, fleet = live(kafka, tmp_path, "torn", 60_000)
    with fleet:
        before = cells(shop)
        command = [sys.executable, "-c", MILLRACE, *REPLAY]
        journal, admin = fleet.state / shop.group.name / "replay.json", Admin(kafka)
        with subprocess.Popen(command, env=fleet.environment(), stdout=subprocess.DEVNULL) as running:
            wait_until(lambda: journal.exists() and "rebuilding" in journal.read_text(), "the tables have begun anew")
            wait_until(lambda: applied(admin, shop), "the rebuild is under way", poll_s=0.01)
            if how == "Ctrl-C":
                running.send_signal(signal.SIGINT)
                assert running.wait(30) == 130
                assert workers_here(fleet.state, shop.group.name) == {}
            running.kill()
            if how == "all are killed":
                for pid in workers_here(fleet.state, shop.group.name).values():
                    os.kill(pid, signal.SIGKILL)
                assert applied(admin, shop) < shop.sent
        told = done(fleet.run_to_its_end(*REPLAY))
        assert told["resumed"] is True
        assert cells(shop) == before
        assert_exact(shop)


def test_a_group_that_is_in_use_is_left_alone_unless_its_workers_may_be_ended(kafka: Cluster, tmp_path: Path) -> None:
    shop, fleet = live(kafka, tmp_path, "used", 2_000)
    with fleet:
        worker = fleet.start("w0")
        at = committed(kafka, shop.group.name, shop.orders, 4)
        refused = fleet.run_to_its_end(*REPLAY)
        assert refused.returncode == 1
        line = refused.stderr.splitlines()[-1]
        assert f"w0 (process {worker.process.pid} of this host)" in line
        assert "--stop" in line
        assert worker.process.poll() is None
        assert committed(kafka, shop.group.name, shop.orders, 4) == at
        told = done(fleet.run_to_its_end(*REPLAY, "--stop"))
        assert told["ended"] == ["w0"]
        assert worker.process.wait(10) == 0
        assert_exact(shop)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(kafka: Cluster, tmp_path: Path) -> None:
    shop, fleet = live(kafka, tmp_path, "dry", 2_000)
    with fleet:
        before, at = cells(shop), committed(kafka, shop.group.name, shop.orders, 4)
        said = fleet.run_to_its_end("replay", "analytics", "--from", "earliest", "--dry-run")
        assert said.returncode == 0, said.stderr
        for part in (f"{shop.orders}[0]", "2,000 in all", f"{shop.group.name}-progress", "sales-per-minute"):
            assert part in said.stdout
        assert committed(kafka, shop.group.name, shop.orders, 4) == at
        fleet.start("w0")
        wait_applied(shop)
        assert cells(shop) == before


def test_without_a_yes_nothing_is_done(kafka: Cluster, tmp_path: Path) -> None:
    shop, fleet = live(kafka, tmp_path, "asked", 1_000)
    with fleet:
        at = committed(kafka, shop.group.name, shop.orders, 4)
        refused = fleet.run_to_its_end("replay", "analytics")
        assert refused.returncode == 1
        assert "nothing was done" in refused.stderr
        assert committed(kafka, shop.group.name, shop.orders, 4) == at


@pytest.mark.parametrize("by", ["offsets", "time"])
def test_a_replay_from_a_place_holds_what_came_from_there_on_and_nothing_else(
    kafka: Cluster, tmp_path: Path, by: str
) -> None:
    shop, fleet = live(kafka, tmp_path, by, 4_000)
    with fleet:
        log = read_all(kafka, shop.orders, 4)
        if by == "offsets":
            starts = {p: len(records) // 2 for p, records in log.items()}
            text = ",".join(f"{p}={at}" for p, at in starts.items())
        else:
            at_ms = log[0][len(log[0]) // 2].timestamp
            starts = {p: next((r.offset for r in rs if r.timestamp >= at_ms), len(rs)) for p, rs in log.items()}
            text = str(at_ms)
        told = done(fleet.run_to_its_end("replay", "analytics", "--from", text, "--yes", "--json"))
        assert {one["partition"]: one["start"] for one in told["partitions"]} == starts
        assert cells(shop) == counted(shop, {TP(shop.orders, p): log[p][at:] for p, at in starts.items()})


def counted(shop: Shop, records: dict[TP, list[Any]]) -> dict[tuple[str, int, str], Any]:
    """What the driver counts, to whom these records are all that there is."""
    with Driver(shop.topology) as driver:
        for tp, found in records.items():
            for r in found:
                driver.feed(shop.orders, r.value, r.key, partition=tp.partition, timestamp_ms=r.timestamp)
        driver.flush()
        tables = [table.name for source in shop.topology.sources.values() for table in source.tables]
        return {(name, *key): row for name in tables for key, row in driver.rows(name).items()}


@pytest.mark.slow
def test_what_retention_has_taken_is_told_in_cells_before_anything_is_dropped(kafka: Cluster, tmp_path: Path) -> None:
    shop, fleet = live(kafka, tmp_path, "eaten", 3_000)
    with fleet:
        before, log = cells(shop), read_all(kafka, shop.orders, 4)
        gone = [TopicPartition(shop.orders, p, len(log[p]) // 3) for p in range(2)]
        admin = AdminClient(kafka.librdkafka())
        for deleted in admin.delete_records(gone).values():
            deleted.result(20)
        refused = fleet.run_to_its_end(*REPLAY)
        assert refused.returncode == 1
        assert f"{shop.orders}[0] begins at {len(log[0]) // 3:,}" in refused.stderr
        assert "--accept-loss" in refused.stderr.splitlines()[-1]
        assert cells(shop) == before
        done(fleet.run_to_its_end(*REPLAY, "--accept-loss"))
        left = {p: log[p][len(log[p]) // 3 if p < 2 else 0 :] for p in log}
        assert cells(shop) == counted(shop, {TP(shop.orders, p): records for p, records in left.items()})
        assert ends(kafka, shop.orders, 4) == {p: len(records) for p, records in log.items()}


@pytest.mark.slow
def test_a_view_server_that_runs_all_along_says_what_the_new_tables_say_and_nothing_of_the_former(
    kafka: Cluster, tmp_path: Path
) -> None:
    shop, fleet = live(kafka, tmp_path, "seen", 4_000)
    port = free_port()
    with fleet, Children(tmp_path / "logs", fleet.environment()) as children:
        children.start("views", ["views", "--port", str(port), "--state", str(tmp_path / "views")])
        client = Client(f"http://127.0.0.1:{port}")
        said = cells(shop)
        wait_until(lambda: totals(client, said) == placed(said), "the views say what the live run has counted")
        half = ",".join(f"{p}={end // 2}" for p, end in ends(kafka, shop.orders, 4).items())
        done(fleet.run_to_its_end("replay", "analytics", "--from", half, "--yes", "--json"))
        now = cells(shop)
        assert placed(now) != placed(said)
        wait_until(lambda: totals(client, said) == placed(now), "the views say what the new tables hold")
        children.check()


def placed(said: dict[tuple[str, int, str], Any]) -> dict[int, int]:
    """What the tables say of each minute."""
    return {at: row["placed"] for (table, at, key), row in said.items() if (table, key) == ("sales_by_total", "total")}


def totals(client: Client, said: dict[tuple[str, int, str], Any]) -> dict[int, int] | None:
    """What a view server says of the same minutes; None while it does not answer."""
    try:
        rows = {start: client.rows("sales_by_total", start, 60_000) for start in placed(said)}
    except (OSError, KeyError):
        return None
    keyed = {start: {row["key"]: row["values"] for row in found} for start, found in rows.items()}
    return {start: found["total"]["placed"] for start, found in keyed.items() if "total" in found}
