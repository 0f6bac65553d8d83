"""The relay on Kafka: rows lie where they are noted, in order per user, with brokers and relays killed meanwhile."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from operating import fresh
from relaying import event, left, rows, shop_database, until_all_sent
from sqlalchemy.ext.asyncio import AsyncConnection

from streams.admin.altering import set_config
from streams.admin.connection import Admin
from streams.broker import Broker
from streams.cluster import Cluster
from streams.kafka_log import KafkaLog
from streams.log import TP
from streams.partitioners import key_hash
from streams.topics import Topic, ensure_topics
from topologies.demo.processes import Children
from topologies.names import free_port
from topologies.orders.database import Database
from topologies.orders.leases import Leases
from topologies.orders.outbox import Post, Row, post
from topologies.orders.relay import Relay
from topologies.orders.sending import KafkaSender, NotSent

PARTITIONS = 4
ROOT = Path(__file__).parents[2]


@pytest.fixture
def topic(kafka: Cluster) -> str:
    name = fresh("orders")
    ensure_topics(kafka, [Topic(name, partitions=PARTITIONS)])
    return name


async def place(database: Database, topic: str, numbers: range) -> None:
    async def transaction(connection: AsyncConnection) -> None:
        await post(connection, [Post(topic, event(n % 7, n)) for n in numbers])

    await database.write(transaction)


async def records(
    cluster: Cluster, topic: str, partitions: int = PARTITIONS
) -> dict[tuple[int, int], tuple[bytes, str]]:
    """Key and text of each record, by partition and offset."""
    log = KafkaLog(cluster)
    await log.start()
    try:
        tps = [TP(topic, partition) for partition in range(partitions)]
        ends = await log.end_offsets(tps)
        found = {}
        async for tp, some in log.read({tp: (0, ends[tp]) for tp in tps}):
            for record in some:
                found[tp.partition, record.offset] = (record.key or b"", (record.value or b"").decode())
        return found
    finally:
        await log.stop()


def relay_of(database: Database, cluster: Cluster, tell: Callable[[str], None] = lambda _: None) -> Relay:
    return Relay(database, KafkaSender(cluster), Leases(lease_s=2), poll_s=0.02, batch=50, tell=tell)


async def assert_all_there(database: Database, cluster: Cluster, topic: str) -> int:
    """Every row lies where it is noted, and users' first times are in order; returns how many records there are."""
    found, there = await rows(database), await records(cluster, topic)
    first: dict[bytes, dict[str, None]] = defaultdict(dict)
    for place in sorted(there):
        key, text = there[place]
        first[key].setdefault(text.partition('"eventId":"')[2].partition('"')[0])
    wanted: dict[bytes, list[str]] = defaultdict(list)
    for _, name, key, partition, offset in found:
        assert partition == key_hash(key, PARTITIONS)
        assert offset is not None
        assert there[partition, offset][0] == key
        assert f'"{name}"' in there[partition, offset][1]
        wanted[key].append(name)
    assert {key: list(names) for key, names in first.items()} == wanted
    return len(there)


async def test_rows_lie_where_they_are_noted_and_where_any_client_looks_for_them(
    kafka: Cluster, topic: str, tmp_path: Path
) -> None:
    async with shop_database(tmp_path) as database:
        await place(database, topic, range(300))
        stop = asyncio.Event()
        running = asyncio.create_task(relay_of(database, kafka).run(stop))
        await until_all_sent(database)
        stop.set()
        await running
        assert await assert_all_there(database, kafka, topic) == 300


@pytest.mark.slow
async def test_a_broker_that_is_away_is_waited_for_and_told_of_and_nothing_comes_twice(
    kafka_broker: Broker, kafka: Cluster, topic: str, tmp_path: Path
) -> None:
    told: list[str] = []
    async with shop_database(tmp_path) as database:
        stop = asyncio.Event()
        running = asyncio.create_task(relay_of(database, kafka, told.append).run(stop))
        await place(database, topic, range(100))
        await until_all_sent(database)
        await asyncio.to_thread(kafka_broker.kill, 1)
        await place(database, topic, range(100, 200))
        async with asyncio.timeout(30):
            while not any("has not taken" in line for line in told):
                await asyncio.sleep(0.05)
        assert await left(database) == 100
        await asyncio.to_thread(kafka_broker.start_node, 1)
        await until_all_sent(database)
        stop.set()
        await running
        assert await assert_all_there(database, kafka, topic) == 200
    assert any("goes on" in line for line in told)


async def test_a_relay_ends_at_once_while_the_broker_is_away_and_leaves_the_rest_to_the_next(
    kafka_broker: Broker, kafka: Cluster, topic: str, tmp_path: Path
) -> None:
    async with shop_database(tmp_path) as database:
        await asyncio.to_thread(kafka_broker.kill, 1)
        await place(database, topic, range(50))
        stop = asyncio.Event()
        running = asyncio.create_task(relay_of(database, kafka).run(stop))
        await asyncio.sleep(0.5)
        stop.set()
        await asyncio.wait_for(running, 5)
        await asyncio.to_thread(kafka_broker.start_node, 1)
        stop = asyncio.Event()
        running = asyncio.create_task(relay_of(database, kafka).run(stop))
        await until_all_sent(database)
        stop.set()
        await running
        await assert_all_there(database, kafka, topic)


async def test_a_topic_that_refuses_a_row_stops_only_itself_and_is_tried_again(
    kafka: Cluster, topic: str, tmp_path: Path
) -> None:
    small = fresh("small")
    ensure_topics(kafka, [Topic(small, partitions=PARTITIONS, config={"max.message.bytes": "100"})])
    told: list[str] = []
    async with shop_database(tmp_path) as database:
        stop, relay = asyncio.Event(), relay_of(database, kafka, told.append)
        relay.refused_s = 0.5
        for n in range(10):
            await place(database, small, range(10 * n, 10 * n + 5))
            await place(database, topic, range(10 * n + 5, 10 * n + 10))
        running = asyncio.create_task(relay.run(stop))
        async with asyncio.timeout(30):
            while await left(database) > 50:
                await asyncio.sleep(0.05)
        await place(database, topic, range(100, 150))
        async with asyncio.timeout(30):
            while await left(database) > 50:
                await asyncio.sleep(0.05)
        assert not relay.figures.connected
        assert any(small in line for line in told)
        await asyncio.to_thread(set_config, Admin(kafka), small, {"max.message.bytes": "1000000"})
        await until_all_sent(database)
        stop.set()
        await running
    assert len(await records(kafka, topic)) == 100
    assert len(await records(kafka, small)) == 50


async def test_nothing_of_a_user_gets_before_what_is_refused(kafka: Cluster) -> None:
    small = fresh("small")
    ensure_topics(kafka, [Topic(small, partitions=1, config={"max.message.bytes": "1000"})])
    sender, rows = KafkaSender(kafka), [Row(1, 0, small, b"user-1", Random(1).randbytes(5_000), "large", 0)]
    rows += [Row(n, 0, small, b"user-1", b"{}", f"small-{n}", 0) for n in range(2, 200)]
    for _ in range(10):  # how much is under way by then is a matter of luck
        await sender.open()
        with pytest.raises(NotSent, match="too large") as failed:
            await sender.send(rows, asyncio.Event())
        assert (failed.value.sent, failed.value.refused) == ({}, small)
    assert await records(kafka, small, 1) == {}


@pytest.mark.slow
async def test_relays_that_are_killed_leave_nothing_behind_and_the_next_is_at_work_at_once(
    kafka: Cluster, topic: str, tmp_path: Path
) -> None:
    environment = {
        "PYTHONPATH": str(ROOT),
        "MILLRACE_HOME": str(tmp_path),
        "MILLRACE_STATE": str(tmp_path / "state"),
        "MILLRACE_BOOTSTRAP": kafka.bootstrap,
        "MILLRACE_PREFIX": f"{topic}-",
    }
    async with shop_database(tmp_path) as database:
        with Children(tmp_path / "logs", environment) as children:
            for number in range(3):
                relay = children.start(f"relay-{number}", ["relay", "--port", str(free_port())])
                await place(database, topic, range(1000 * number, 1000 * number + 1000))
                async with asyncio.timeout(20):
                    while not (some := await sent(database)) > 1000 * number:
                        await asyncio.sleep(0.005)
                assert some < 3000
                children.running.remove(relay)
                relay.process.kill()
                relay.process.wait()
            children.start("relay-3", ["relay", "--port", str(free_port())])
            began = time.monotonic()
            await until_all_sent(database)
            assert time.monotonic() - began < 15
        assert await assert_all_there(database, kafka, topic) >= 3000


async def sent(database: Database) -> int:
    return len([None for *_, offset in await rows(database) if offset is not None])
