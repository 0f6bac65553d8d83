"""`millrace doctor` on a real cluster with a real worker: each fault is planted, named, and mended by what it says."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from examining import Examiner, problems, the
from fleet import Fleet, Shop, free_port, new_prefix, wait_applied

from streams.admin.altering import set_config
from streams.admin.connection import Admin
from streams.admin.topics import create_topic, delete_topics
from streams.broker import Broker
from streams.cluster import Cluster
from streams.topics import ensure_topics
from topologies.cli import main


@pytest.fixture(scope="module")
def cluster(kafka_broker: Broker) -> Cluster:
    found = kafka_broker.cluster()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Shop:
    return Shop(cluster, new_prefix("doctor"))


@pytest.fixture(scope="module")
def running(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A worker that has counted some orders, and goes on."""
    settings = {"MILLRACE_SESSION_S": "30", "MILLRACE_VIEWS_PORT": str(free_port())}
    with Fleet(shop.cluster, tmp_path_factory.mktemp("running"), shop.settings.prefix, settings=settings) as fleet:
        fleet.start("w0")
        shop.send(500)
        wait_applied(shop)
        yield fleet


@pytest.fixture(scope="module")
def rested(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fleet, Shop]:
    """Tables that a worker kept, which has ended."""
    shop = Shop(cluster, new_prefix("rested"))
    settings = {"MILLRACE_VIEWS_PORT": str(free_port())}
    with Fleet(cluster, tmp_path_factory.mktemp("rested"), shop.settings.prefix, settings=settings) as fleet:
        worker = fleet.start("w0")
        shop.send(200)
        wait_applied(shop)
        assert worker.end() == 0
    return fleet, shop


@pytest.fixture
def examiner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Examiner:
    return Examiner(monkeypatch, capsys)


def deleted(cluster: Cluster, *topics: str) -> None:
    delete_topics(Admin(cluster), topics)


def test_nothing_is_found_on_a_healthy_system(running: Fleet, examiner: Examiner) -> None:
    assert examiner.findings(running) == []


def test_nothing_is_found_while_a_healthy_worker_counts(running: Fleet, shop: Shop, examiner: Examiner) -> None:
    with shop.load(1_000, batch=100):
        shop.wait_for(1_000)
        assert examiner.findings(running, wait_s=2) == []


def test_its_text_ends_with_a_verdict_and_its_exit_code_follows_it(running: Fleet, examiner: Examiner) -> None:
    code, said = examiner.run(running, "doctor", "analytics", "--wait", "0.5")
    assert (code, said.splitlines()[-1]) == (0, "healthy")
    code, said = examiner.run(running, "doctor", "analytics", "--bootstrap", "127.0.0.1:1")
    assert (code, said.splitlines()[-1]) == (3, "1 error, 0 warnings")


def test_a_refused_connection_is_named_with_the_address_that_answers(running: Fleet, examiner: Examiner) -> None:
    found = examiner.findings(running, "--bootstrap", "127.0.0.1:1")
    assert problems(found) == {"broker-unreachable"}
    assert "127.0.0.1:1 (Connection refused)" in found[0]["what"]
    assert found[0]["mend"].startswith("millrace broker up")


def test_a_bootstrap_address_that_is_dead_beside_one_that_lives_is_named(running: Fleet, examiner: Examiner) -> None:
    found = examiner.findings(running, "--bootstrap", f"127.0.0.1:1,{running.cluster.bootstrap}")
    assert the("node-missing", found)["mend"].startswith(f"export MILLRACE_BOOTSTRAP={running.cluster.bootstrap}")


def test_a_topic_that_is_missing_is_named_and_made(running: Fleet, shop: Shop, examiner: Examiner) -> None:
    late = f"{shop.orders}.late"
    deleted(shop.cluster, late)
    finding = the("topic-missing", examiner.findings(running))
    assert late in finding["what"]
    examiner.mend(running, finding)
    assert examiner.findings(running) == []


def test_a_topic_that_is_partitioned_otherwise_is_named_and_mended(
    running: Fleet, shop: Shop, examiner: Examiner
) -> None:
    late = f"{shop.orders}.late"
    deleted(shop.cluster, late)
    create_topic(Admin(shop.cluster), late, partitions=2)
    finding = the("partitions-differ", examiner.findings(running))
    assert f"{late} has 2 partition(s), 4 are declared" in finding["what"]
    examiner.mend(running, finding)
    assert examiner.findings(running) == []


def test_a_changelog_that_is_not_compacted_is_named_and_mended(running: Fleet, shop: Shop, examiner: Examiner) -> None:
    changelog = shop.group.changelog(shop.group.tables[0]).name
    set_config(Admin(shop.cluster), changelog, {"cleanup.policy": "delete"})
    finding = the("cleanup-policy", examiner.findings(running))
    assert changelog in finding["what"]
    examiner.mend(running, finding)
    assert examiner.findings(running) == []


def test_a_topic_that_refuses_every_write_is_named_and_mended(running: Fleet, shop: Shop, examiner: Examiner) -> None:
    letters = f"{shop.orders}.dead-letters"
    set_config(Admin(shop.cluster), letters, {"min.insync.replicas": "2"})
    finding = the("min-in-sync", examiner.findings(running))
    assert f"{letters} is kept 1 time(s), but min.insync.replicas is 2" in finding["what"]
    examiner.mend(running, finding)
    assert examiner.findings(running) == []


def test_a_worker_that_was_stopped_is_named_with_its_lag_and_woken(
    running: Fleet, shop: Shop, examiner: Examiner
) -> None:
    worker = running.workers["w0"]
    worker.send_signal(signal.SIGSTOP)
    try:
        shop.send(400)
        found = examiner.findings(running)
        assert problems(found) == {"lag-standing", "lock-stopped"}
        for finding in found:
            assert finding["mend"] == f"kill -CONT {worker.process.pid}"
        assert "wait for w0" in the("lag-standing", found)["what"]
        examiner.mend(running, found[0])
    finally:
        worker.send_signal(signal.SIGCONT)
    wait_applied(shop)
    assert examiner.findings(running) == []


def test_a_group_that_nobody_works_for_is_told_with_what_waits(rested: tuple[Fleet, Shop], examiner: Examiner) -> None:
    fleet, shop = rested
    assert the("group-empty", examiner.findings(fleet))["severity"] == "warning"
    shop.send(25)
    finding = the("group-empty", examiner.findings(fleet))
    assert (finding["severity"], finding["mend"]) == ("error", "millrace worker analytics")
    assert "25 records wait" in finding["what"]


def test_a_lag_leads_here(rested: tuple[Fleet, Shop], examiner: Examiner) -> None:
    fleet, shop = rested
    code, said = examiner.run(fleet, "groups", "describe", shop.group.name)
    assert code == 0
    assert "records behind: `millrace doctor` looks twice, and tells whether that grows" in said


def test_a_lock_that_a_stranger_holds_is_told_until_he_is_gone(rested: tuple[Fleet, Shop], examiner: Examiner) -> None:
    fleet, shop = rested
    script = (
        "import sys; from pathlib import Path; from tables.store import Store\n"
        "store = Store(Path(sys.argv[1]), []); print('open', flush=True); sys.stdin.read()"
    )
    store = fleet.state / shop.group.name / "2"
    stranger = subprocess.Popen(
        [sys.executable, "-c", script, str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=fleet.environment(),
    )
    try:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"open\n"
        finding = the("lock-stranger", examiner.findings(fleet))
        assert "state of partition 2" in finding["what"]
        assert finding["mend"] == f"kill {stranger.pid}"
        examiner.mend(fleet, finding)
        assert stranger.wait(10) == -signal.SIGTERM
        assert "lock-stranger" not in problems(examiner.findings(fleet))
    finally:
        stranger.kill()
        stranger.communicate()


def test_a_state_that_was_written_for_another_topic_of_the_name_is_told_and_mended(
    rested: tuple[Fleet, Shop], examiner: Examiner
) -> None:
    fleet, shop = rested
    assert "state-foreign" not in problems(examiner.findings(fleet))
    deleted(shop.cluster, shop.orders)
    ensure_topics(shop.cluster, shop.topology.topics())
    finding = the("state-foreign", examiner.findings(fleet))
    assert "left over from another cluster" in finding["what"]
    examiner.mend(fleet, finding)
    assert "state-foreign" not in problems(examiner.findings(fleet))


def test_a_changelog_that_is_missing_is_told_with_the_way_to_have_it_again(
    rested: tuple[Fleet, Shop], examiner: Examiner
) -> None:
    fleet, shop = rested
    lost = shop.group.changelog(shop.group.tables[-1]).name
    deleted(shop.cluster, lost)
    finding = the("state-topic-missing", examiner.findings(fleet))
    assert lost in finding["what"]
    assert finding["mend"] == "millrace replay analytics --from earliest"


@pytest.mark.parametrize(
    ("arguments", "bootstrap"),
    [(["topics", "list"], "127.0.0.1:1"), (["consume", "nowhere"], None)],
)
def test_the_usual_errors_lead_here(
    running: Fleet, arguments: list[str], bootstrap: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--bootstrap", bootstrap or running.cluster.bootstrap])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.endswith("see `millrace doctor`\n")
