"""The archive on real Kafka: killed, shared, paused; its sums are the views' and the ledger's."""

import json
import signal
import subprocess
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fleet import MILLRACE, Fleet, Shop, ends, free_port, get, new_prefix, wait_applied, wait_until
from operating import transact

from agents.sales import CURRENCY_MARK
from streams.cluster import Cluster
from streams.producers import Producer
from streams.topics import Topic, ensure_topics
from topologies.archive.checking import check
from topologies.archive.files import Files
from topologies.demo.processes import Child, Children

RUN = ("archive", "run", "--roll", "0.5", "--records", "2000")


def archiving(children: Children, name: str, to: Path) -> Child:
    return children.start(name, [*RUN, "--to", str(to), "--name", name, "--port", str(free_port())])


def asked(environment: dict[str, str], *arguments: str, code: int = 0) -> Any:
    """What `millrace archive ... --json` says."""
    done = subprocess.run(
        [sys.executable, "-c", MILLRACE, "archive", *arguments, "--json"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_whole(shop: Shop, to: Path) -> int:
    """Every offset of the log is there once; returns how many."""
    files, rows = Files(str(to)), 0
    end = ends(shop.cluster, shop.orders, shop.settings.partitions)
    found: dict[int, list[int]] = defaultdict(list)
    for path, place in files.places(shop.orders):
        found[place.tp.partition] += files.offsets(path)
    for partition, offset in end.items():
        assert found[partition] == list(range(offset)), f"partition {partition}"
        rows += offset
    return rows


def by_minute(shop: Shop, by: str) -> dict[tuple[int, str], int]:
    """What the ledger has, in the shop's currency."""
    cells = shop.ledger.cells(by).items()
    return {(at, key): cell.placed for (at, key), cell in cells if cell.placed and CURRENCY_MARK not in key}


PLACED = "FROM order_events_counted WHERE event_type = 'order.placed' AND (currency IS NULL OR currency = 'KRW')"
SUMS = {
    "total": f"SELECT epoch_ms(slice) AS slice, 'total' AS key, sum(amount) AS placed {PLACED} GROUP BY ALL",
    "region": f"SELECT epoch_ms(slice) AS slice, region AS key, sum(amount) AS placed {PLACED} GROUP BY ALL",
    "category": "SELECT epoch_ms(slice) AS slice, item.category AS key, sum(item.price * item.quantity) AS placed "
    f"FROM (SELECT slice, unnest(items) AS item {PLACED} AND len(items) > 0) GROUP BY ALL UNION ALL "
    f"SELECT epoch_ms(slice), 'unknown', sum(amount) {PLACED} AND len(items) = 0 GROUP BY ALL",
}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_archive_holds_every_offset_once_after_kills_and_its_sums_are_the_views(
    kafka: Cluster, tmp_path: Path
) -> None:
    shop, to, chance = Shop(kafka, new_prefix("lake")), tmp_path / "lake", Random(7)
    port = free_port()
    with Fleet(kafka, tmp_path, shop.settings.prefix) as fleet:
        environment = fleet.environment()
        with Children(tmp_path / "logs", environment) as children:
            fleet.start("w0", wait=False)
            views = ["views", "--topology", "analytics", "--port", str(port), "--state", str(tmp_path / "views")]
            children.start("views", views)
            with shop.load(3_000):
                running = {name: archiving(children, name, to) for name in ("a0", "a1")}
                for kill in range(6):
                    shop.wait_for(chance.randint(2_000, 6_000))
                    name = f"a{kill % 2}"
                    if kill == 3:  # longer than its session: it wakes up as one that owns nothing any more
                        running[name].process.send_signal(signal.SIGSTOP)
                        shop.wait_for(25_000)
                        running[name].process.send_signal(signal.SIGCONT)
                        continue
                    running[name].process.kill()
                    running[name].process.wait()
                    children.running.remove(running[name])
                    running[name] = archiving(children, name, to)
            children.check()
            wait_until(
                lambda: (
                    sum(one["rows"] for one in asked(environment, "check", "--from", str(to))["partitions"])
                    == shop.sent
                ),
                "everything archived",
                60,
                0.5,
            )
            checked = asked(environment, "check", "--from", str(to))
            assert checked["exact"]
            assert assert_whole(shop, to) == shop.sent
            wait_applied(shop)
            for by, sql in SUMS.items():
                found = asked(environment, "query", sql, "--from", str(to))
                sums = {(row["slice"], row["key"]): int(row["placed"]) for row in found["rows"] if row["placed"]}
                assert sums == by_minute(shop, by)
                assert sums == wait_until(partial(served, port, by, by_minute(shop, by)), f"views, {by}")
            files = sum(one["files"] for one in checked["partitions"])
            late = sum(source.late for source in shop.ledger.sources)
            size = sum(path.stat().st_size for path in to.rglob("*.parquet"))
            print(
                f"{shop.sent} records in {files} files, {size / shop.sent:.0f} bytes each, {late} late, "
                f"{sum(len(by_minute(shop, by)) for by in SUMS)} sums equal"
            )


def served(port: int, by: str, expected: dict[tuple[int, str], int]) -> dict[tuple[int, str], int] | None:
    """What the views say, minute by minute; None while they are behind."""
    first, last = min(at for at, _ in expected), max(at for at, _ in expected)
    url = f"http://127.0.0.1:{port}/api/sales?by={by}&window=1m&from={first}&to={last + 60_000}"
    status, page = get(url)
    if status != 200 or not page["freshness"]["caughtUp"] or page["freshness"]["lagTotal"]:
        return None
    return {(row["startMs"], row["key"]): row["placed"] for row in page["rows"] if row["placed"]}


@pytest.mark.timeout(120)
def test_what_is_there_can_be_archived_once_and_gone_on_with_by_another(kafka: Cluster, tmp_path: Path) -> None:
    shop, to = Shop(kafka, new_prefix("once")), tmp_path / "lake"
    shop.create_topics()
    shop.send(3_000)
    environment = {**Fleet(kafka, tmp_path, shop.settings.prefix).environment(), "MILLRACE_ARCHIVE": str(to)}
    port = str(free_port())
    assert asked(environment, "run", "--once", "--port", port)["records"] == 3_000
    assert asked(environment, "run", "--once", "--port", port)["records"] == 0
    shop.send(500)
    assert asked(environment, "run", "--once", "--port", port)["records"] == 500
    assert assert_whole(shop, to) == 3_500
    checked = asked(environment, "check")
    assert (checked["exact"], sum(one["rows"] for one in checked["partitions"])) == (True, 3_500)
    (row,) = asked(environment, "query", "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM order_events")["rows"]
    assert row["n"] == 3_500 >= row["ids"]
    newest = max((to / shop.orders).glob("*/partition=0/*.parquet"))
    lost = len(Files(str(to)).offsets(str(newest)))
    newest.unlink()  # the files say how far the archive is, whatever the group has committed
    assert asked(environment, "run", "--once", "--port", port)["records"] == lost > 0
    assert assert_whole(shop, to) == 3_500


@pytest.mark.timeout(120)
def test_archiving_once_ends_where_transactions_were_whoever_writes_the_files(kafka: Cluster, tmp_path: Path) -> None:
    prefix, to = new_prefix("once"), tmp_path / "lake"
    topic = Topic(f"{prefix}transactions", partitions=4)
    ensure_topics(kafka, [topic])
    transact(kafka, topic.name, 3, 200, 0, 1)
    transact(kafka, topic.name, 0, 0, 12, 0, commit=False)
    run = ["archive", "run", "--once", "--topic", "transactions", "--to", str(to)]
    with Children(tmp_path / "logs", Fleet(kafka, tmp_path, prefix).environment()) as children:
        both = [children.start(name, [*run, "--name", name, "--port", str(free_port())]) for name in ("a0", "a1")]
        assert [one.process.wait(60) for one in both] == [0, 0]
    rows = {one.tp.partition: (one.rows, one.faults) for one in check(Files(str(to)), topic.name)}
    assert rows == {0: (3, []), 1: (200, []), 2: (12, []), 3: (1, [])}


@pytest.mark.timeout(120)
def test_a_broken_record_is_archived_with_its_reason_and_a_topic_of_yours_as_bytes(
    kafka: Cluster, tmp_path: Path
) -> None:
    shop, to = Shop(kafka, new_prefix("bytes")), tmp_path / "lake"
    shop.create_topics()
    with Producer(kafka) as producer:
        producer.produce(shop.orders, b"user-1", b'{"orderId":', partition=0)
        producer.produce(f"{shop.orders}.dead-letters", b"user-1", b"\xff\x00", partition=1)
    environment = {**Fleet(kafka, tmp_path, shop.settings.prefix).environment(), "MILLRACE_ARCHIVE": str(to)}
    topics = ["--topic", "order-events", "--topic", "order-events.dead-letters"]
    assert asked(environment, "run", "--once", *topics, "--port", str(free_port()))["records"] == 2
    assert asked(environment, "query", "SELECT unreadable IS NOT NULL AS broken FROM order_events")["rows"] == [
        {"broken": True}
    ]
    (row,) = asked(environment, "query", "SELECT octet_length(value) AS n FROM order_events_dead_letters")["rows"]
    assert row == {"n": 2}
