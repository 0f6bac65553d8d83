"""Replays of topologies that hand on: what one derives for another, and what one writes for itself, counts once."""

import json
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from fleet import Fleet, new_prefix
from visits import Visits

from streams.cluster import Cluster

SENT = 15_000


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sessions_and_baskets_count_once_after_a_replay_of_who_derives_them_and_of_who_reads_them(
    kafka: Cluster, tmp_path: Path
) -> None:
    visits = Visits(kafka, new_prefix("stages"))
    visits.create_topics()
    visits.send(SENT)
    with visits.fleet(tmp_path, "behaviour") as first, visits.fleet(tmp_path, "recommendations") as second:
        workers = [first.start("w0", wait=False), second.start("w0", wait=False)]
        visits.assert_behaviour()
        visits.assert_recommendations()
        refused = first.run_to_its_end("replay", "behaviour", "--yes", "--stop")
        assert refused.returncode == 1
        assert visits.recommendations.name in refused.stderr.splitlines()[-1]  # it reads what would be another topic
        for worker in workers:
            assert worker.process.poll() is not None or worker.end() == 0
        told = replayed(first, "behaviour")
        assert f"{visits.settings.prefix}user-sessions" in told["dropped"]
        visits.assert_behaviour()
        ended = second.run_to_its_end("worker", "recommendations", "--name", "w0")
        assert ended.returncode == 1
        assert "millrace replay" in ended.stderr.splitlines()[-1]
        told = replayed(second, "recommendations")
        assert f"{visits.settings.prefix}product-baskets" in told["dropped"]
        second.start("w0", wait=False)  # what is published settles in the workers that go on
        visits.assert_recommendations()


def replayed(fleet: Fleet, topology: str) -> dict[str, list[str]]:
    ended = fleet.run_to_its_end("replay", topology, "--yes", "--json", limit_s=120)
    assert ended.returncode == 0, ended.stderr[-3000:]
    told: dict[str, list[str]] = json.loads(ended.stdout)
    return told


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_replay_is_refused_where_sessions_are_gone_that_were_counted_in_baskets(
    kafka: Cluster, tmp_path: Path
) -> None:
    visits = Visits(kafka, new_prefix("gone"))
    visits.create_topics()
    visits.send(SENT)
    sessions = f"{visits.settings.prefix}user-sessions"
    with visits.fleet(tmp_path, "behaviour") as first, visits.fleet(tmp_path, "recommendations") as second:
        workers = [first.start("w0", wait=False), second.start("w0", wait=False)]
        visits.assert_behaviour()
        visits.assert_recommendations()
        for worker in workers:
            assert worker.end() == 0
        admin = AdminClient(kafka.librdkafka())
        for deleted in admin.delete_records([TopicPartition(sessions, 0, 5)]).values():
            deleted.result(20)
        refused = second.run_to_its_end("replay", "recommendations", "--yes")
        assert refused.returncode == 1
        assert f"LOST: {sessions}[0] begins at 5: " in refused.stderr
        assert f"cells of what goes on to {visits.settings.prefix}product-baskets may hold" in refused.stderr
        assert "--accept-loss" in refused.stderr.splitlines()[-1]
