"""Customers are told at least once, whatever dies: processes on real Kafka, killed, with channels that fail."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from aiohttp import web
from fleet import Fleet, Shop, committed, ends, free_port, get, new_prefix, read_all, wait_until

from streams.cluster import Cluster
from streams.codecs import encode
from streams.dead_letters import told
from streams.events import PaymentNotification
from streams.producers import Producer
from topologies.demo.processes import Child, Children

GROUP = "order-notification-group"


class Receiver:
    """A shop's webhook: flaky by a seed, and one customer whose notices it never takes."""

    def __init__(self) -> None:
        self.keys: Counter[str] = Counter()
        self.chance = Random(7)
        self.fails = 0.2
        self.refuses = True

    async def take(self, request: web.Request) -> web.Response:
        notice = orjson.loads(await request.read())
        if self.refuses and notice["userId"] == "13":
            return web.Response(status=422)
        if self.chance.random() < self.fails:
            return web.Response(status=500)
        self.keys[request.headers["Idempotency-Key"]] += 1
        return web.Response(status=204)


@contextlib.contextmanager
def receiving(receiver: Receiver) -> Iterator[str]:
    """Serve it from a thread of its own."""
    port, loop, ready = free_port(), asyncio.new_event_loop(), threading.Event()

    async def serve() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/", receiver.take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return runner

    def run() -> None:
        runner = loop.run_until_complete(serve())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def expected_ids(shop: Shop, topic: str) -> set[str]:
    """The identity of each event that is there: its own id, else its place."""
    found = set()
    for partition, records in read_all(shop.cluster, topic, shop.settings.partitions).items():
        for record in records:
            event = orjson.loads(record.value or b"{}")
            found.add(event.get("eventId") or f"{topic}-{partition}-{record.offset}")
    return found


def pay(shop: Shop, count: int) -> None:
    with Producer(shop.cluster) as producer:
        for number in range(count):
            event = PaymentNotification("payment.completed", number, number % 50, 5, f"payment-{number}-completed")
            producer.produce(f"{shop.settings.prefix}payment-notifications", b"user-%d" % (number % 50), encode(event))


def done(shop: Shop) -> bool:
    group = shop.settings.prefix + GROUP
    for topic in (shop.orders, f"{shop.settings.prefix}payment-notifications"):
        at = committed(shop.cluster, group, topic, 4)
        if any(at[number] < end for number, end in ends(shop.cluster, topic, 4).items() if end):
            return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_event_is_told_under_its_id_or_is_a_dead_letter_whatever_is_killed(
    kafka: Cluster, tmp_path: Path
) -> None:
    shop, receiver, chance = Shop(kafka, new_prefix("told")), Receiver(), Random(3)
    shop.create_topics()
    log = tmp_path / "notices.jsonl"
    with (
        receiving(receiver) as url,
        Children(tmp_path / "logs", Fleet(kafka, tmp_path, shop.settings.prefix).environment()) as children,
    ):
        channels = ["--channel", "log", "--log", str(log), "--channel", "webhook", "--webhook", url]

        def start(name: str) -> Child:
            port = str(free_port())
            return children.start(name, ["notify", "run", *channels, "--name", name, "--port", port, "--tries", "4"])

        with shop.load(150, batch=30):
            running = {name: start(name) for name in ("n0", "n1")}
            for kill in range(5):
                shop.wait_for(chance.randint(200, 400))
                name = f"n{kill % 2}"
                running[name].process.kill()
                running[name].process.wait()
                children.running.remove(running[name])
                running[name] = start(name)
        pay(shop, 100)
        children.check()
        wait_until(lambda: done(shop), "all told", 60, 0.5)
        children.stop()
        expected = expected_ids(shop, shop.orders) | {f"payment-{number}-completed" for number in range(100)}
        lines = Counter(orjson.loads(line)["id"] for line in log.read_bytes().splitlines())
        aside = dead_letters(shop)
        assert set(lines) == expected
        assert set(receiver.keys) | set(aside) >= expected
        assert all(reason.startswith("webhook: ") for reason in aside.values())
        again = sum(lines.values()) - len(lines)
        print(f"{len(expected)} notices, {again} told again after 5 kills, {len(aside)} dead letters of the webhook")
        receiver.fails, receiver.refuses = 0.0, False
        send_again(children, channels)
        wait_until(lambda: set(receiver.keys) >= expected, "the dead letters, too", 60)
        assert set(receiver.keys) == expected


def dead_letters(shop: Shop) -> dict[str, str]:
    """Reasons by the events' identities."""
    found: dict[str, str] = {}
    for records in read_all(shop.cluster, f"{shop.settings.prefix}{GROUP}.dead-letters", 4).values():
        for record in records:
            said: Any = told(record.headers)
            found[orjson.loads(record.value or b"{}").get("eventId") or said.id] = said.reason
    return found


def send_again(children: Children, channels: list[str]) -> None:
    child = children.start("again", ["notify", "again", *channels, "--port", str(free_port())])
    assert child.process.wait(40) == 0, child.log.read_text()
    children.running.remove(child)


@pytest.mark.timeout(120)
def test_a_group_has_pages_and_ends_in_good_order(kafka: Cluster, tmp_path: Path) -> None:
    shop, port = Shop(kafka, new_prefix("pages")), free_port()
    environment = Fleet(kafka, tmp_path, shop.settings.prefix).environment()
    with Children(tmp_path / "logs", environment) as children:
        child = children.start("n0", ["notify", "run", "--log", str(tmp_path / "log"), "--port", str(port)])
        wait_until(lambda: get(f"http://127.0.0.1:{port}/readyz")[0] == 200, "ready")
        assert get(f"http://127.0.0.1:{port}/healthz")[0] == 200
        shop.create_topics()
        shop.send(20)
        wait_until(lambda: (tmp_path / "log").read_bytes().count(b"\n") >= 19, "told")
        children.end(child)
        assert child.process.returncode == 0, child.log.read_text()
        assert "Traceback" not in child.log.read_text()


@pytest.mark.timeout(120)
def test_a_channel_that_is_away_holds_everything_back_and_loses_nothing(kafka: Cluster, tmp_path: Path) -> None:
    shop, receiver = Shop(kafka, new_prefix("away")), Receiver()
    receiver.fails, receiver.refuses = 0.0, False
    shop.create_topics()
    shop.send(50)
    environment = Fleet(kafka, tmp_path, shop.settings.prefix).environment()
    with Children(tmp_path / "logs", environment) as children:
        nobody = ["--channel", "webhook", "--webhook", f"http://127.0.0.1:{free_port()}/"]
        child = children.start("n0", ["notify", "run", *nobody, "--name", "n0", "--port", str(free_port())])
        wait_until(lambda: "webhook is away" in child.log.read_text(), "noticed")
        assert not done(shop)
        children.end(child)
        with receiving(receiver) as url:
            there = ["--channel", "webhook", "--webhook", url]
            children.start("n1", ["notify", "run", *there, "--name", "n0", "--port", str(free_port())])
            wait_until(lambda: done(shop), "all told")
    assert set(receiver.keys) == expected_ids(shop, shop.orders)
    assert dead_letters(shop) == {}
