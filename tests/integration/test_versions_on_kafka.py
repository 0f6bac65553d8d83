"""Versions on Apache Kafka: built beside a live one, compared, switched to and back while requests come, dropped."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import confluent_kafka
import orjson
import pytest
from confluent_kafka.admin import AdminClient
from own import Running, running
from streaming import Stream

from bench.changed_sales import KEY, PIECES, is_changed
from streams.cluster import Cluster
from streams.topics import ORDER_EVENTS
from topologies.demo.processes import MILLRACE
from topologies.versions.register import Version, entry, write_register

REGIONS = ("seoul", "busan", "daegu")
AMOUNT = 100
MINUTES = 30
PER_CELL = 5
LIMIT_S = 60.0
SALES = "/api/sales?by=region&window=1m"
BATCH = "/api/batch?view=/api/sales?by=region&view=/api/tables/sales_by_region/rows?window=1m&view=/api/sales?by=total"


@dataclass
class Shop:
    """The sales topology under names of its own: a worker, a view server, and orders whose sums are known."""

    running: Running
    prefix: str
    began_ms: int = field(default_factory=lambda: (time.time_ns() // 60_000_000_000 - MINUTES) * 60_000)
    sold: int = 0

    @property
    def group(self) -> str:
        return f"{self.prefix}order-analytics-group"

    def sell(self, minutes: Sequence[int] = range(MINUTES)) -> None:
        """The same orders in each region and minute."""
        producer = confluent_kafka.Producer(self.running.cluster.librdkafka(partitioner="murmur2_random"))
        for minute in minutes:
            for number in range(PER_CELL * len(REGIONS)):
                self.sold += 1
                event = {
                    "eventId": uuid4().hex,
                    "orderId": self.sold,
                    "userId": number,
                    "amount": AMOUNT,
                    "region": REGIONS[number % len(REGIONS)],
                    "occurredAt": self.began_ms + minute * 60_000,
                }
                producer.produce(self.prefix + ORDER_EVENTS.name, orjson.dumps(event), f"user-{number}")
        assert producer.flush(20) == 0

    def millrace(self, *arguments: str, code: int = 0) -> Any:
        """What a command says as JSON; where it fails, its line."""
        environment = {**os.environ, **self.running.children.environment}
        done = subprocess.run([*MILLRACE, *arguments], env=environment, capture_output=True, text=True, timeout=LIMIT_S)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return orjson.loads(done.stdout) if "--json" in arguments and done.stdout.strip() else done.stderr

    def build(self, version: str, *options: str) -> Any:
        return self.millrace("replay", "analytics", "--as", version, "--once", "--json", *options)

    @contextmanager
    def worker_of(self, version: str) -> Iterator[None]:
        """A worker of a version meanwhile."""
        child = self.running.children.start(f"worker-{version}", ["worker", "analytics", "--as", version])
        try:
            yield
        finally:
            self.running.children.end(child)

    def served(self) -> str:
        freshness = self.running.views.get("/healthz")["freshness"]
        return str(freshness["versions"][self.group])

    def shown(self) -> int:
        """Orders that the view server has counted."""
        rows = self.running.views.get("/api/sales", by="total", window="1m")["rows"]
        return sum(row["orders"] for row in rows)

    def topics(self) -> set[str]:
        names = AdminClient(self.running.cluster.librdkafka(log_level=0)).list_topics(timeout=10).topics
        return {name for name in names if name.startswith(self.prefix)}


@pytest.fixture(scope="module")
def shop(kafka_broker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    cluster: Cluster = kafka_broker.cluster()
    prefix = f"versions-{uuid4().hex[:8]}-"
    settings = {"MILLRACE_PREFIX": prefix, "MILLRACE_FLUSH_S": "0.1", "MILLRACE_AUDIT_EVERY_S": "0.5"}
    with running(cluster, tmp_path_factory.mktemp("versions"), "analytics", **settings) as found:
        shop = Shop(found, prefix)
        shop.sell()
        found.wait(lambda: shop.shown() == shop.sold)
        yield shop


def version_of(body: dict[str, Any]) -> str:
    (version,) = body["freshness"]["versions"].values()
    return str(version)


def says(rows: list[dict[str, Any]]) -> set[str]:
    """Of which version the numbers are; v1 and v2 count alike."""
    return {"v3" if is_changed(rows) else "v2"} if any(row["key"] == KEY for row in rows) else set()


def test_the_same_logic_built_beside_says_the_same(shop: Shop) -> None:
    before = shop.topics()
    built = shop.build("v2")
    assert built["records"] >= shop.sold
    found = shop.millrace("replay", "diff", "v1", "v2", "--json")
    assert found["same"]
    for table in found["tables"]:
        assert table["windows"] >= MINUTES - 3
        assert table["cells"][0] == table["cells"][1] > 0
        assert all(one == other for one, other in table["sums"].values())
    assert shop.millrace("replay", "diff", "v1", "v1", "--json")["same"]
    made = shop.topics() - before - {f"{shop.prefix}versions"}
    assert made
    assert all(".v2" in name for name in made)
    assert shop.served() == "v1"


def test_a_changed_logic_differs_in_exactly_what_it_changes(shop: Shop) -> None:
    shop.build("v3", "--load", "bench.changed_sales:topology")
    found = shop.millrace("replay", "diff", "v1", "v3", "--limit", "1000", "--json", code=3)
    assert {table["table"] for table in found["tables"] if table["differing"]} == {"sales_by_region"}
    (by_region,) = (table for table in found["tables"] if table["table"] == "sales_by_region")
    assert by_region["differing"] == len(found["examples"]) == by_region["windows"]
    for cell in found["examples"]:
        assert (cell["key"], cell["columns"]) == (KEY, ["units"])
        assert cell["other"]["units"] - cell["one"]["units"] == PER_CELL * PIECES
    assert by_region["sums"]["units"][1] - by_region["sums"]["units"][0] == PER_CELL * PIECES * by_region["windows"]
    assert shop.millrace("replay", "diff", "v2", "v3", "--table", "sales_by_total", "--json")["same"]


async def ask(shop: Shop, until: asyncio.Event, asked: list[tuple[str, bool]]) -> None:
    """Ask until it is enough; every answer is right, and of one version."""
    async with aiohttp.ClientSession(shop.running.views.url) as session:
        while not until.is_set():
            for path in (SALES, BATCH):
                async with session.get(path) as response:
                    body = orjson.loads(await response.read())
                    assert response.status == 200, body
                parts = [part["body"] for part in body["views"]] if path == BATCH else [body]
                versions = {version_of(part) for part in parts}
                assert len(versions) == 1
                said = set().union(*(says(part["rows"]) for part in parts))
                like = "v3" if versions == {"v3"} else "v2"  # v1 and v2 count alike
                assert said == {like}, (said, versions)
                asked.append((versions.pop(), path == BATCH))


async def test_requests_and_streams_go_on_over_a_switch_and_a_rollback(shop: Shop) -> None:
    asked: list[tuple[str, bool]] = []
    enough = asyncio.Event()
    headers = {"Accept": "text/event-stream"}
    with shop.worker_of("v3"):
        asking = [asyncio.create_task(ask(shop, enough, asked)) for _ in range(4)]
        async with (
            aiohttp.ClientSession(shop.running.views.url) as session,
            session.get(SALES, headers=headers) as response,
        ):
            stream, seen = Stream(response), list[tuple[str, str]]()
            following = asyncio.create_task(follow(stream, seen))
            for command in (["switch", "v3"], ["rollback"], ["switch", "v3"]):
                await asyncio.to_thread(shop.sell, [MINUTES])
                done = await asyncio.to_thread(shop.millrace, "replay", *command, "--json")
                assert all(server["version"] == done["version"] for server in done["servers"].values())
                assert len(done["servers"]) == 1
                since = len(asked)
                while len(asked) < since + 40:
                    await asyncio.sleep(0.05)
                    assert not any(task.done() for task in asking), [task for task in asking if task.done()]
                assert {version for version, _ in asked[-10:]} == {done["version"]}
            enough.set()
            await asyncio.gather(*asking)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    for before, after in pairwise(seen):
        assert before[0] == after[0] or after[1] == "snapshot"
    assert [version for version, name in seen if name == "snapshot"] == ["v1", "v3", "v1", "v3"]
    assert shop.served() == "v3"


async def follow(stream: Stream, seen: list[tuple[str, str]]) -> None:
    while True:
        event = await stream.next(LIMIT_S)
        if event.name:
            assert event.name in ("snapshot", "delta")
            assert says(stream.body["rows"]) == {"v3" if version_of(stream.body) == "v3" else "v2"}
            seen.append((version_of(stream.body), event.name))


def test_a_server_that_is_started_again_serves_what_was_switched_to(shop: Shop) -> None:
    children = shop.running.children
    child = next(child for child in children.running if child.name == "views")
    port = shop.running.views.url.rpartition(":")[2]
    child.process.kill()
    child.process.wait(10)
    children.running.remove(child)
    children.start("views", ["views", "--topology", "analytics", "--port", port])
    shop.running.wait(lambda: shop.running.views.get("/readyz")["ready"])
    assert shop.served() == "v3"
    assert shop.shown() == shop.sold


def test_what_is_switched_to_while_its_drop_waits_for_a_yes_is_not_dropped(shop: Shop) -> None:
    environment = {**os.environ, **shop.running.children.environment}
    command, pipe = [*MILLRACE, "replay", "drop", "v2"], subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stderr=pipe, text=True) as asking:
        assert asking.stderr is not None
        assert "This deletes" in asking.stderr.readline()
        shop.millrace("replay", "switch", "v2", "--behind", "--json")
        _, said = asking.communicate("y\n", timeout=LIMIT_S)
    assert asking.returncode == 1
    assert "v2 of" in said
    assert "is served" in said
    assert any(".v2" in name for name in shop.topics())
    for version in ("v1", "v3"):  # as it was before
        shop.millrace("replay", "switch", version, "--behind", "--json")
    assert shop.served() == "v3"


def test_what_is_served_is_not_dropped_and_the_rest_is_dropped_whole(shop: Shop) -> None:
    assert "is served" in shop.millrace("replay", "drop", "v3", "--yes", code=1)
    assert "has workers" in shop.millrace("replay", "drop", "v1", "--yes", code=1)
    listed = {one["version"]: one for one in shop.millrace("replay", "list", "--json")["versions"]}
    assert {version: one["state"] for version, one in listed.items()} == {
        "v1": "before",
        "v2": "beside",
        "v3": "served",
    }
    assert (listed["v1"]["workers"], listed["v3"]["load"]) == (1, "bench.changed_sales:topology")
    # as a drop that was killed has left it
    dropped = Version("analytics", "analytics", dropped=True)
    write_register(shop.running.cluster, shop.prefix, entry("version", shop.group, "v2", value=dropped))
    refused = shop.millrace("replay", "analytics", "--as", "v2", "--once", code=1)
    assert "is not dropped whole" in " ".join(refused.split())
    gone = shop.millrace("replay", "drop", "v2", "--yes", "--json")
    left = shop.topics()
    assert gone["topics"]
    assert not left & set(gone["topics"])
    assert not [name for name in left if ".v2" in name]
    assert not Path(gone["directory"]).exists()
    assert "there is no version v2" in shop.millrace("replay", "switch", "v2", code=1)
    assert "nothing of it is left" in shop.millrace("replay", "drop", "v2", "--yes", code=1)
    again = shop.build("v2", "--load", "bench.changed_sales:topology")
    assert again["records"] >= shop.sold
    assert shop.millrace("replay", "diff", "v2", "v3", "--json")["same"]


def test_a_version_that_is_behind_is_switched_to_only_on_purpose(shop: Shop) -> None:
    shop.sell([MINUTES + 1])
    told = shop.millrace("replay", "switch", "v2", code=1)
    assert "records behind its sources" in told
    assert "--behind" in told
    assert shop.served() == "v3"
    done = shop.millrace("replay", "switch", "v2", "--behind", "--json")
    assert done["version"] == shop.served() == "v2"
    assert "was dropped" not in shop.millrace("replay", "rollback", "--behind", "--json")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["replay", "analytics", "--as", "v1"], "build v2"),
        (["replay", "analytics", "--as", "2"], "named v1, v2"),
        (["replay", "analytics", "--as", "v3", "--load", "own:other"], "was made of bench.changed_sales:topology"),
        (["replay", "analytics", "--as", "v4", "--load", "nowhere:topology"], "cannot be loaded"),
        (["replay", "diff", "v1", "v9"], "there is no version v9"),
        (["worker", "analytics", "--as", "v9"], "there is no version v9"),
        (["replay", "rollback", "--topology", "behaviour"], "has not been switched"),
    ],
)
def test_what_cannot_be_is_one_line_that_says_why(shop: Shop, arguments: list[str], told: str) -> None:
    said = shop.millrace(*arguments, code=1)
    assert told in " ".join(said.split())
    assert "Traceback" not in said


def test_a_build_that_is_ended_before_it_has_caught_up_says_so_by_its_exit_code(shop: Shop) -> None:
    environment = {**os.environ, **shop.running.children.environment}
    logs = Path(environment["MILLRACE_HOME"]) / "logs"
    with subprocess.Popen([*MILLRACE, "replay", "analytics", "--as", "v5", "--once"], env=environment) as building:
        shop.running.wait(lambda: list(logs.glob("*-v5-0.log")))
        building.send_signal(signal.SIGINT)
        assert building.wait(LIMIT_S) == 130
