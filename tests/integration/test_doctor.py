"""`millrace doctor` on a real cluster with a real worker: each fault is planted, named, and mended by what it says."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from fleet import Fleet, Shop, free_port, new_prefix, wait_applied

from streams.admin.altering import set_config
from streams.admin.connection import Admin
from streams.admin.topics import create_topic, delete_topics
from streams.broker import Broker
from streams.cluster import Cluster
from streams.producers import Producer
from streams.topics import ensure_topics
from topologies.cli import main

ANSWER_S = 20.0
Doctor = Callable[..., list[dict[str, str]]]


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
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs `millrace` in a fleet's environment; gives back its exit code and what it printed."""

    def run(fleet: Fleet, *arguments: str) -> tuple[int, str]:
        for name, value in fleet.environment().items():
            if name.startswith("MILLRACE_"):
                monkeypatch.setenv(name, value)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return int(ended.value.code or 0), capsys.readouterr().out

    return run


@pytest.fixture
def doctor(run: Callable[..., tuple[int, str]]) -> Doctor:
    """What the doctor finds, by its JSON; the exit code says whether it is anything."""

    def doctor(fleet: Fleet, *arguments: str, wait_s: float = 0.5) -> list[dict[str, str]]:
        code, said = run(fleet, "doctor", "analytics", "--json", "--wait", str(wait_s), *arguments)
        report = json.loads(said)
        assert report["healthy"] == (not report["findings"])
        assert code == (3 if report["findings"] else 0)
        found: list[dict[str, str]] = report["findings"]
        return found

    return doctor


def problems(found: Sequence[dict[str, str]]) -> set[str]:
    return {one["problem"] for one in found}


def the(problem: str, found: Sequence[dict[str, str]]) -> dict[str, str]:
    matching = [one for one in found if one["problem"] == problem]
    assert len(matching) == 1, found
    return matching[0]


def mended(run: Callable[..., tuple[int, str]], fleet: Fleet, finding: dict[str, str], *more: str) -> None:
    """Do what the finding says: our own commands here, any other by the shell."""
    words = shlex.split(finding["mend"], comments=True)
    if words[0] == "millrace":
        assert run(fleet, *words[1:], *more)[0] == 0
    else:
        subprocess.run(finding["mend"], shell=True, check=True)


def deleted(cluster: Cluster, *topics: str) -> None:
    delete_topics(Admin(cluster), topics)


def test_nothing_is_found_on_a_healthy_system(running: Fleet, doctor: Doctor) -> None:
    assert doctor(running) == []


def test_nothing_is_found_while_a_healthy_worker_counts(running: Fleet, shop: Shop, doctor: Doctor) -> None:
    with shop.load(1_000, batch=100):
        shop.wait_for(1_000)
        assert doctor(running, wait_s=2) == []


def test_its_text_ends_with_a_verdict_and_its_exit_code_follows_it(
    running: Fleet, run: Callable[..., tuple[int, str]]
) -> None:
    code, said = run(running, "doctor", "analytics", "--wait", "0.5")
    assert (code, said.splitlines()[-1]) == (0, "healthy")
    code, said = run(running, "doctor", "analytics", "--bootstrap", "127.0.0.1:1")
    assert (code, said.splitlines()[-1]) == (3, "1 error, 0 warnings")


def test_a_refused_connection_is_named_with_the_address_that_answers(running: Fleet, doctor: Doctor) -> None:
    found = doctor(running, "--bootstrap", "127.0.0.1:1")
    assert problems(found) == {"broker-unreachable"}
    assert "127.0.0.1:1 (Connection refused)" in found[0]["what"]
    assert found[0]["mend"].startswith("millrace broker up")


def test_a_bootstrap_address_that_is_dead_beside_one_that_lives_is_named(running: Fleet, doctor: Doctor) -> None:
    found = doctor(running, "--bootstrap", f"127.0.0.1:1,{running.cluster.bootstrap}")
    assert the("node-missing", found)["mend"].startswith(f"export MILLRACE_BOOTSTRAP={running.cluster.bootstrap}")


def test_an_advertised_address_that_nobody_reaches_is_named_and_mended(
    tmp_path: Path, doctor: Doctor, run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = f"127.0.0.1:{free_port()}"
    broker = Broker(tmp_path, 1, {"advertised.listeners": f"PLAINTEXT://{wrong}"})
    fleet = Fleet(Cluster("127.0.0.1:1"), tmp_path, "nowhere-", settings={"MILLRACE_HOME": str(tmp_path)})
    monkeypatch.delenv("MILLRACE_BOOTSTRAP", raising=False)
    alone = {**fleet.environment()}
    del alone["MILLRACE_BOOTSTRAP"]
    monkeypatch.setattr(fleet, "environment", lambda: alone)
    try:
        broker.up()
        finding = the("listener-unreachable", doctor(fleet))
        assert wrong in finding["what"]
        assert finding["mend"] == "millrace broker down && millrace broker up"
        for command in finding["mend"].split(" && "):
            assert run(fleet, *shlex.split(command)[1:])[0] == 0
        assert problems(doctor(fleet)) == {"never-run"}
        assert run(fleet, "broker", "down")[0] == 0
        assert "broker-missing" in problems(doctor(fleet))
    finally:
        broker.down(wipe=True)


def test_a_topic_that_is_missing_is_named_and_made(
    running: Fleet, shop: Shop, doctor: Doctor, run: Callable[..., tuple[int, str]]
) -> None:
    late = f"{shop.orders}.late"
    deleted(shop.cluster, late)
    finding = the("topic-missing", doctor(running))
    assert late in finding["what"]
    mended(run, running, finding)
    assert doctor(running) == []


def test_a_topic_that_is_partitioned_otherwise_is_named_and_mended(
    running: Fleet, shop: Shop, doctor: Doctor, run: Callable[..., tuple[int, str]]
) -> None:
    late = f"{shop.orders}.late"
    deleted(shop.cluster, late)
    create_topic(Admin(shop.cluster), late, partitions=2)
    finding = the("partitions-differ", doctor(running))
    assert f"{late} has 2 partition(s), 4 are declared" in finding["what"]
    mended(run, running, finding)
    assert doctor(running) == []


def test_a_changelog_that_is_not_compacted_is_named_and_mended(
    running: Fleet, shop: Shop, doctor: Doctor, run: Callable[..., tuple[int, str]]
) -> None:
    changelog = shop.group.changelog(shop.group.tables[0]).name
    set_config(Admin(shop.cluster), changelog, {"cleanup.policy": "delete"})
    finding = the("cleanup-policy", doctor(running))
    assert changelog in finding["what"]
    mended(run, running, finding)
    assert doctor(running) == []


def test_a_topic_that_refuses_every_write_is_named_and_mended(
    running: Fleet, shop: Shop, doctor: Doctor, run: Callable[..., tuple[int, str]]
) -> None:
    letters = f"{shop.orders}.dead-letters"
    set_config(Admin(shop.cluster), letters, {"min.insync.replicas": "2"})
    finding = the("min-in-sync", doctor(running))
    assert f"{letters} is kept 1 time(s), but min.insync.replicas is 2" in finding["what"]
    mended(run, running, finding)
    assert doctor(running) == []


def test_a_worker_that_was_stopped_is_named_with_its_lag_and_woken(
    running: Fleet, shop: Shop, doctor: Doctor, run: Callable[..., tuple[int, str]]
) -> None:
    worker = running.workers["w0"]
    worker.send_signal(signal.SIGSTOP)
    try:
        shop.send(400)
        found = doctor(running)
        assert problems(found) == {"lag-standing", "lock-stopped"}
        for finding in found:
            assert finding["mend"] == f"kill -CONT {worker.process.pid}"
        assert "wait for w0" in the("lag-standing", found)["what"]
        mended(run, running, found[0])
    finally:
        worker.send_signal(signal.SIGCONT)
    wait_applied(shop)
    assert doctor(running) == []


def test_records_that_were_deleted_before_they_were_counted_are_told(
    cluster: Cluster, tmp_path: Path, doctor: Doctor
) -> None:
    shop = Shop(cluster, new_prefix("lost"))
    shop.create_topics()
    with Producer(cluster) as producer:
        for _ in range(100):
            producer.produce(shop.orders, b"user-1", b"{}", partition=0)
    admin = AdminClient(cluster.librdkafka())
    to = ConsumerGroupTopicPartitions(shop.group.name, [TopicPartition(shop.orders, 0, 10)])
    admin.alter_consumer_group_offsets([to])[shop.group.name].result(ANSWER_S)
    for done in admin.delete_records([TopicPartition(shop.orders, 0, 50)]).values():
        done.result(ANSWER_S)
    found = doctor(Fleet(cluster, tmp_path, shop.settings.prefix))
    assert "40 records were deleted before they were counted" in the("records-lost", found)["what"]
    assert the("records-lost", found)["mend"].startswith("millrace replay analytics --from earliest")


def test_a_record_from_the_future_is_told(cluster: Cluster, tmp_path: Path, doctor: Doctor) -> None:
    shop = Shop(cluster, new_prefix("ahead"))
    shop.create_topics()
    with Producer(cluster) as producer:
        producer.produce(
            shop.orders, b"user-1", b"{}", partition=3, timestamp_ms=time.time_ns() // 1_000_000 + 3_600_000
        )
    finding = the("records-ahead", doctor(Fleet(cluster, tmp_path, shop.settings.prefix)))
    assert f"{shop.orders}[3] has a record from 60 minutes ahead" in finding["what"]
    assert "timedatectl" in finding["mend"]


def test_a_group_that_nobody_works_for_is_told_with_what_waits(rested: tuple[Fleet, Shop], doctor: Doctor) -> None:
    fleet, shop = rested
    assert the("group-empty", doctor(fleet))["severity"] == "warning"
    shop.send(25)
    finding = the("group-empty", doctor(fleet))
    assert (finding["severity"], finding["mend"]) == ("error", "millrace worker analytics")
    assert "25 records wait" in finding["what"]


def test_a_lag_leads_here(rested: tuple[Fleet, Shop], run: Callable[..., tuple[int, str]]) -> None:
    fleet, shop = rested
    code, said = run(fleet, "groups", "describe", shop.group.name)
    assert code == 0
    assert "records behind: `millrace doctor` looks twice, and tells whether that grows" in said


def test_a_lock_that_a_stranger_holds_is_told_until_he_is_gone(
    rested: tuple[Fleet, Shop], doctor: Doctor, run: Callable[..., tuple[int, str]]
) -> None:
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
        finding = the("lock-stranger", doctor(fleet))
        assert "state of partition 2" in finding["what"]
        assert finding["mend"] == f"kill {stranger.pid}"
        mended(run, fleet, finding)
        assert stranger.wait(10) == -signal.SIGTERM
        assert "lock-stranger" not in problems(doctor(fleet))
    finally:
        stranger.kill()
        stranger.communicate()


def test_a_state_that_was_written_for_another_topic_of_the_name_is_told_and_mended(
    rested: tuple[Fleet, Shop], doctor: Doctor, run: Callable[..., tuple[int, str]]
) -> None:
    fleet, shop = rested
    assert "state-foreign" not in problems(doctor(fleet))
    deleted(shop.cluster, shop.orders)
    ensure_topics(shop.cluster, shop.topology.topics())
    finding = the("state-foreign", doctor(fleet))
    assert "left over from another cluster" in finding["what"]
    mended(run, fleet, finding)
    assert "state-foreign" not in problems(doctor(fleet))


def test_a_changelog_that_is_missing_is_told_with_the_way_to_have_it_again(
    rested: tuple[Fleet, Shop], doctor: Doctor
) -> None:
    fleet, shop = rested
    lost = shop.group.changelog(shop.group.tables[-1]).name
    deleted(shop.cluster, lost)
    finding = the("state-topic-missing", doctor(fleet))
    assert lost in finding["what"]
    assert finding["mend"] == "millrace replay analytics --from earliest"


@pytest.mark.parametrize(
    ("arguments", "bootstrap"),
    [(["digest"], "127.0.0.1:1"), (["topics", "list"], "127.0.0.1:1"), (["consume", "nowhere"], None)],
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
