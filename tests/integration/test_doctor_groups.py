"""`millrace doctor` on groups, records and brokers that are not well, without a worker: real members and logs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from examining import Examiner, problems, the
from fleet import Fleet, Shop, free_port, new_prefix, wait_until

from streams.admin.connection import Admin
from streams.admin.groups import committed_offsets, members_and_state
from streams.broker import Broker
from streams.cluster import Cluster
from streams.producers import Producer

ANSWER_S = 20.0


@pytest.fixture
def examiner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Examiner:
    return Examiner(monkeypatch, capsys)


@pytest.fixture
def shop(kafka: Cluster) -> Shop:
    """Topics of the sales topology, for which no worker has ever run."""
    shop = Shop(kafka, new_prefix("groups"))
    shop.create_topics()
    return shop


@pytest.fixture
def fleet(shop: Shop, tmp_path: Path) -> Fleet:
    """Nobody, on a state directory of its own."""
    return Fleet(shop.cluster, tmp_path, shop.settings.prefix, settings={"MILLRACE_VIEWS_PORT": str(free_port())})


class Member:
    """One of a shop's group that polls until it is told not to, and commits one of each partition at a time."""

    def __init__(self, shop: Shop) -> None:
        config = {"group.id": shop.group.name, "auto.offset.reset": "earliest", "enable.auto.commit": False}
        self.polls, self.commits = threading.Event(), False
        self._shop, self._stop = shop, threading.Event()
        self._consumer = Consumer(shop.cluster.librdkafka(**config, **{"log_level": 0, "session.timeout.ms": 30_000}))
        self._consumer.subscribe([source.topic.name for source in shop.group.sources])
        self._thread = threading.Thread(target=self._run)
        self.polls.set()
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            self.polls.wait(0.1)
            if not self.polls.is_set():
                continue
            self._consumer.poll(0.02)
            if self.commits:
                number += 1
                places = [TopicPartition(self._shop.orders, p, number) for p in range(4)]
                self._consumer.commit(offsets=places, asynchronous=False)
                self._stop.wait(0.02)  # a poll returns at once while records are there
        self._consumer.close()

    def end(self) -> None:
        self.polls.set()
        self._stop.set()
        self._thread.join(30)


@contextmanager
def member(shop: Shop, partitions: int) -> Iterator[Member]:
    """One who has joined, and shares so many partitions with those who were there."""
    admin, one = Admin(shop.cluster), Member(shop)

    def settled() -> bool:
        members, state = members_and_state(admin, shop.group.name)
        return state == "STABLE" and sum(len(found.partitions) for found in members) == partitions

    try:
        wait_until(settled, "it has joined")
        yield one
    finally:
        one.end()


def all_partitions(shop: Shop) -> int:
    return sum(source.topic.partitions for source in shop.group.sources)


def test_a_group_that_takes_less_than_what_comes_is_told_with_its_paces(
    shop: Shop, fleet: Fleet, examiner: Examiner
) -> None:
    shop.send(4_000)
    with member(shop, all_partitions(shop)) as slow, shop.load(1_000, batch=50):
        slow.commits = True
        wait_until(lambda: committed_offsets(Admin(shop.cluster), shop.group.name), "it has committed something")
        finding = the("lag-growing", examiner.findings(fleet, wait_s=2))
    assert "records behind, and it grows" in finding["what"]
    assert finding["mend"] == "millrace worker analytics    # one more: 1 share 4 partitions"


def test_a_group_in_which_a_member_does_not_answer_is_told_to_be_stuck(
    shop: Shop, fleet: Fleet, examiner: Examiner
) -> None:
    with member(shop, all_partitions(shop)) as silent:
        silent.polls.clear()
        late = Member(shop)
        try:
            admin = Admin(shop.cluster)
            wait_until(
                lambda: members_and_state(admin, shop.group.name)[1].startswith("PREPARING"), "it is shared anew"
            )
            finding = the("group-stuck", examiner.findings(fleet))
            assert "has been rebalancing for" in finding["what"]
            assert finding["mend"].startswith(f"millrace groups describe {shop.group.name}")
        finally:
            silent.polls.set()
            late.end()


def test_a_topology_that_was_named_and_never_ran_is_told(fleet: Fleet, examiner: Examiner) -> None:
    (finding,) = examiner.findings(fleet)
    assert (finding["problem"], finding["mend"]) == ("never-run", "millrace worker analytics")


def test_records_that_were_deleted_before_they_were_counted_are_told(
    kafka: Cluster, shop: Shop, fleet: Fleet, examiner: Examiner
) -> None:
    with Producer(kafka) as producer:
        for _ in range(100):
            producer.produce(shop.orders, b"user-1", b"{}", partition=0)
    admin = AdminClient(kafka.librdkafka())
    to = ConsumerGroupTopicPartitions(shop.group.name, [TopicPartition(shop.orders, 0, 10)])
    admin.alter_consumer_group_offsets([to])[shop.group.name].result(ANSWER_S)
    for done in admin.delete_records([TopicPartition(shop.orders, 0, 50)]).values():
        done.result(ANSWER_S)
    found = examiner.findings(fleet)
    assert "40 records were deleted before they were counted" in the("records-lost", found)["what"]
    assert the("records-lost", found)["mend"].startswith("millrace replay analytics --from earliest")


def test_a_record_from_the_future_is_told(kafka: Cluster, shop: Shop, fleet: Fleet, examiner: Examiner) -> None:
    in_an_hour_ms = time.time_ns() // 1_000_000 + 3_600_000
    with Producer(kafka) as producer:
        producer.produce(shop.orders, b"user-1", b"{}", partition=3, timestamp_ms=in_an_hour_ms)
    finding = the("records-ahead", examiner.findings(fleet))
    assert f"{shop.orders}[3] has a record from 60 minutes ahead" in finding["what"]
    assert "timedatectl" in finding["mend"]


def test_an_advertised_address_that_nobody_reaches_is_named_and_mended(
    tmp_path: Path, examiner: Examiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = f"127.0.0.1:{free_port()}"
    broker = Broker(tmp_path, 1, {"advertised.listeners": f"PLAINTEXT://{wrong}"})
    fleet = Fleet(Cluster("127.0.0.1:1"), tmp_path, "nowhere-", settings={"MILLRACE_HOME": str(tmp_path)})
    alone = {name: value for name, value in fleet.environment().items() if name != "MILLRACE_BOOTSTRAP"}
    monkeypatch.setattr(fleet, "environment", lambda: alone)
    try:
        broker.up()
        finding = the("listener-unreachable", examiner.findings(fleet))
        assert wrong in finding["what"]
        assert finding["mend"] == "millrace broker down && millrace broker up"
        examiner.mend(fleet, finding)
        assert problems(examiner.findings(fleet)) == {"never-run"}
        assert examiner.run(fleet, "broker", "down")[0] == 0
        assert "broker-missing" in problems(examiner.findings(fleet))
    finally:
        broker.down(wipe=True)
