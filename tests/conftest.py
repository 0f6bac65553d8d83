"""Real Kafka and databases for every test that asks: started once a session, when the first one asks, and wiped."""

import signal
from collections.abc import Iterator

import pytest

from bench.databases import SERVERS, NoServer, Server
from streams.broker import Broker
from streams.cluster import Cluster

# compaction and retention are looked at often, so that a test with small segments need not wait
QUICK_LOGS = {"log.cleaner.backoff.ms": "200", "log.retention.check.interval.ms": "1000"}


def pytest_configure() -> None:
    """Have Ctrl-C work in all that tests start, also where a shell has put their own run into its background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _running(home: pytest.TempPathFactory, nodes: int) -> Iterator[Broker]:
    broker = Broker(home.mktemp(f"kafka-{nodes}"), nodes, QUICK_LOGS)
    try:
        broker.up()
        yield broker
    finally:
        broker.down(wipe=True)


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One node, to be killed and started; leave it running."""
    yield from _running(tmp_path_factory, 1)


@pytest.fixture(scope="session")
def kafka3_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Three nodes, to be killed and started; leave all of them running."""
    yield from _running(tmp_path_factory, 3)


def _cluster(broker: Broker) -> Cluster:
    cluster = broker.cluster()
    assert cluster is not None
    return cluster


@pytest.fixture
def kafka(kafka_broker: Broker) -> Cluster:
    """A cluster of one node, shared by the session: use topic and group names of your own."""
    return _cluster(kafka_broker)


@pytest.fixture
def kafka3(kafka3_broker: Broker) -> Cluster:
    """A cluster of three nodes, shared by the session: use topic and group names of your own."""
    return _cluster(kafka3_broker)


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Server]:
    """MariaDB, to be killed and started; leave it running, and make databases of your own."""
    yield from _serving("mariadb")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    """PostgreSQL, to be killed and started; leave it running, and make databases of your own."""
    yield from _serving("postgresql")


def _serving(name: str) -> Iterator[Server]:
    try:
        with SERVERS[name]() as server:
            yield server
    except NoServer as missing:
        pytest.skip(str(missing))
