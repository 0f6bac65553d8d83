"""What a worker cannot run with ends it with one readable line on stderr and a non-zero exit, never a traceback."""

import subprocess
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from fleet import Fleet, Shop, assert_exact, free_port, new_prefix, wait_applied

from streams.cluster import Cluster
from streams.topics import ensure_topics, missing_topics
from topologies.chaos.unwritable import unwritable


def refused(fleet: Fleet, *arguments: str) -> str:
    """Start a worker that must refuse; returns its one line."""
    ended = fleet.run_to_its_end("worker", "analytics", "--port", str(free_port()), *arguments)
    return the_line(ended)


def the_line(ended: "subprocess.CompletedProcess[str]") -> str:
    assert ended.returncode not in (0, None)
    assert "Traceback" not in ended.stderr + ended.stdout, ended.stderr[-4000:] + ended.stdout[-4000:]
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ended.stderr[-4000:] + ended.stdout[-4000:]
    return lines[0]


def test_no_broker_is_told_with_its_address(tmp_path: Path) -> None:
    line = refused(Fleet(Cluster("127.0.0.1:1"), tmp_path, "nowhere-"))
    assert "127.0.0.1:1" in line


def test_another_number_of_partitions_is_told_with_both_and_the_way_out(kafka: Cluster, tmp_path: Path) -> None:
    shop = Shop(kafka, new_prefix("two"))
    ensure_topics(kafka, [source.topic.with_partitions(2) for source in shop.group.sources][:1])
    line = refused(Fleet(kafka, tmp_path, shop.settings.prefix))
    assert shop.orders in line
    assert "2 partition" in line
    assert "4 are declared" in line


def test_a_name_that_is_taken_is_told(kafka: Cluster, tmp_path: Path) -> None:
    shop = Shop(kafka, new_prefix("name"))
    with Fleet(kafka, tmp_path, shop.settings.prefix) as fleet:
        fleet.start("w0")
        assert "--name" in refused(fleet, "--name", "w0")


def test_an_offset_reset_behind_the_progress_is_told_with_the_way_out(kafka: Cluster, tmp_path: Path) -> None:
    shop = Shop(kafka, new_prefix("reset"))
    with Fleet(kafka, tmp_path, shop.settings.prefix) as fleet:
        worker = fleet.start("w0")
        shop.send(2_000)
        wait_applied(shop)
        assert worker.end() == 0
        admin = AdminClient(kafka.librdkafka())
        to = ConsumerGroupTopicPartitions(shop.group.name, [TopicPartition(shop.orders, p, 0) for p in range(4)])
        for done in admin.alter_consumer_group_offsets([to]).values():
            done.result(20)
        line = refused(fleet, "--name", "w0")
        assert "millrace replay" in line
        assert shop.orders in line


@pytest.mark.parametrize("damage", ["CURRENT", "MANIFEST-*"])
def test_a_damaged_state_directory_is_told_with_the_way_out(kafka: Cluster, tmp_path: Path, damage: str) -> None:
    shop = Shop(kafka, new_prefix("damaged"))
    with Fleet(kafka, tmp_path, shop.settings.prefix) as fleet:
        worker = fleet.start("w0")
        shop.send(1_000)
        wait_applied(shop)
        assert worker.end() == 0
        (found,) = (fleet.state / shop.group.name / "2").glob(damage)
        found.write_bytes(b"\x00garbage\n" * 20)
        line = refused(fleet, "--name", "w0")
        assert "delete it and start again" in line
        assert str(found.parent) in line


def test_a_state_directory_that_cannot_be_written_is_told(kafka: Cluster, tmp_path: Path) -> None:
    shop = Shop(kafka, new_prefix("readonly"))
    fleet = Fleet(kafka, tmp_path, shop.settings.prefix, settings={"MILLRACE_STATE": "/proc/nowhere/state"})
    assert "/proc/nowhere/state" in refused(fleet)
    assert "/proc/nowhere/state" in refused(fleet, "--name", "w0")


def delete_topic(cluster: Cluster, name: str) -> None:
    admin = AdminClient(cluster.librdkafka())
    for done in admin.delete_topics([name], operation_timeout=20).values():
        done.result(20)


def test_a_deleted_changelog_is_told_by_running_and_by_starting_workers_and_stays_deleted(
    kafka: Cluster, tmp_path: Path
) -> None:
    shop = Shop(kafka, new_prefix("lost"))
    lost = shop.group.changelog(shop.group.tables[0]).name
    with Fleet(kafka, tmp_path, shop.settings.prefix) as fleet:
        worker = fleet.start("w0")
        shop.send(2_000)
        wait_applied(shop)
        with shop.load(2_000):
            delete_topic(kafka, lost)
            assert worker.process.wait(40) == 1
        line = worker.text().strip().splitlines()[-1]
        assert line.startswith(f"error: topic {lost} was deleted"), line
        assert "millrace replay" in line
        assert refused(fleet, "--name", "w0") == line
        fleet.wipe_state()
        assert refused(fleet, "--name", "w0") == line
        ended = fleet.run_to_its_end("views", "--port", str(free_port()))
        assert the_line(ended) == line
    assert missing_topics(kafka, [lost]) == {lost}


def test_a_read_only_store_is_told_and_is_not_to_be_deleted(kafka: Cluster, tmp_path: Path) -> None:
    shop = Shop(kafka, new_prefix("sealed"))
    with Fleet(kafka, tmp_path, shop.settings.prefix) as fleet:
        worker = fleet.start("w0")
        shop.send(1_000)
        wait_applied(shop)
        assert worker.end() == 0
        sealed = fleet.state / shop.group.name / "1"
        with unwritable(sealed):
            line = refused(fleet, "--name", "w0")
        assert str(sealed) in line
        assert "cannot be" in line
        fleet.start("w0")
        shop.send(500)
        wait_applied(shop)
        assert_exact(shop)
