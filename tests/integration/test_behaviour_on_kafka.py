"""Behaviour and recommendations on real Kafka: killed, wiped, shared, cut off, and every cell as the ledger has it."""

import subprocess
import sys
from pathlib import Path

import pytest
from fleet import Fleet, free_port, get, new_prefix, read_all, wait_until
from visits import SOON, Visits

from streams.broker import Broker
from streams.cluster import Cluster
from streams.producers import Producer

# Five minutes of event time: some sessions are over, and some carts left.
BEFORE = 15_000
MODULES = {
    "topologies.analytics": "order-analytics-group",
    "topologies.behaviour_app": "user-behaviour-group",
    "topologies.recommendations_app": "recommendations-group",
}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_kills_of_both_topologies_one_with_its_state_deleted_change_nothing(kafka: Cluster, tmp_path: Path) -> None:
    visits = Visits(kafka, new_prefix("doing"))
    visits.create_topics()
    visits.send(BEFORE)
    with visits.fleet(tmp_path, "behaviour") as first, visits.fleet(tmp_path, "recommendations") as second:
        with visits.load():
            fleets = [(first, first.start("w0", wait=False)), (second, second.start("w0", wait=False))]
            for kill in range(4):
                visits.wait_for(3_000)
                fleet, worker = fleets[kill % 2]
                worker.wait_ready(90)
                worker.kill()
                if kill >= 2:
                    fleet.wipe_state()
                fleets[kill % 2] = (fleet, fleet.start("w0", wait=False))
            visits.wait_for(3_000)
        visits.assert_behaviour()
        visits.assert_recommendations()
        for _, worker in fleets:
            assert worker.end() == 0
            assert "Traceback" not in worker.text(), worker.text()[-5000:]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_workers_publish_what_is_theirs_and_the_views_tell_it(kafka: Cluster, tmp_path: Path) -> None:
    visits = Visits(kafka, new_prefix("shared"))
    visits.create_topics()
    visits.send(BEFORE)
    with visits.fleet(tmp_path, "behaviour") as first, visits.fleet(tmp_path, "recommendations") as second:
        first.start("w0", wait=False)
        second.start("w0", wait=False)
        second.start("w1", wait=False)
        with visits.load():
            second.wait_shared(["w0", "w1"], limit_s=120)
            visits.wait_for(6_000)
        visits.wait_applied(visits.behaviour)
        with visits.views(tmp_path, second) as client:
            visits.assert_recommendations(client)
            visits.assert_behaviour(client)
        one_writer_each(visits)
        copies = sorted(path.name for path in (second.state / visits.recommendations.name).glob("published-*"))
        assert copies == ["published-w0", "published-w1"]
        assert second.workers["w1"].end() == 0
        with visits.load():
            visits.wait_for(3_000)
        visits.wait_applied(visits.behaviour)
        visits.assert_recommendations()
        one_writer_each(visits)
        asked = second.run_to_its_end("digest", "--topology", "recommendations", "--json")
        assert asked.returncode == 0, asked.stderr


def one_writer_each(visits: Visits) -> None:
    """A key is in one partition only: in that of the product's baskets."""
    topic = f"{visits.settings.prefix}product-recommendations"
    keys = [{r.key for r in records} for records in read_all(visits.cluster, topic, 4).values()]
    assert sum(map(len, keys)) == len(set().union(*keys)) > 100


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_broker_that_goes_and_comes_holds_up_publishing_only_for_a_while(
    kafka_broker: Broker, kafka: Cluster, tmp_path: Path
) -> None:
    visits = Visits(kafka, new_prefix("away"))
    visits.create_topics()
    visits.send(BEFORE)
    with visits.fleet(tmp_path, "behaviour") as first, visits.fleet(tmp_path, "recommendations") as second:
        first.start("w0", wait=False)
        second.start("w0").wait_ready(90)
        with visits.load():
            visits.wait_for(4_000)
            kafka_broker.kill(1)
            kafka_broker.start_node(1)
            visits.wait_for(4_000)
        visits.assert_behaviour()
        visits.assert_recommendations()
        for worker in (first.workers["w0"], second.workers["w0"]):
            assert worker.process.poll() is None, worker.text()[-3000:]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("module", MODULES)
def test_fausts_own_command_line_runs_each_of_our_topologies(kafka: Cluster, tmp_path: Path, module: str) -> None:
    fleet = Fleet(kafka, tmp_path, new_prefix("faust"), settings=SOON)
    port = free_port()
    command = [sys.executable, "-m", "faust", "-A", module, "worker", "-l", "info", "--web-port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(command, env=fleet.environment(), stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: get(f"http://127.0.0.1:{port}/readyz")[0] == 200, "ready", 90)
        assert (fleet.state / f"{fleet.prefix}{MODULES[module]}" / "w0.lock").exists()
        worker.terminate()
        assert worker.wait(30) == 0
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait(10)


@pytest.mark.timeout(120)
def test_an_activity_that_is_broken_is_a_dead_letter_of_each_group_and_can_be_looked_at(
    kafka: Cluster, tmp_path: Path
) -> None:
    visits = Visits(kafka, new_prefix("broken"))
    visits.create_topics()
    with visits.fleet(tmp_path, "behaviour") as fleet, Producer(kafka) as producer:
        topic = f"{visits.settings.prefix}user-activity"
        producer.produce(topic, b"user-1", b'{"eventType":"product.viewed","userId":1,"productId":7}')
        producer.produce(topic, b"user-1", b'{"eventType":"product.licked","userId":1}')
        producer.flush()
        fleet.start("w0").wait_ready(90)
        visits.wait_applied(visits.behaviour)
        said = fleet.run_to_its_end("consume", f"{topic}.dead-letters", "--from-beginning")
        assert said.returncode == 0, said.stderr
        assert "product.licked" in said.stdout
        listed = fleet.run_to_its_end("dead-letters", "list")
        assert listed.returncode == 0, listed.stderr
        assert "product.licked" in listed.stdout + listed.stderr
        told = fleet.run_to_its_end("digest", "--topology", "behaviour")
        assert told.returncode == 0, told.stderr
        assert "activity_by_user" in told.stdout
