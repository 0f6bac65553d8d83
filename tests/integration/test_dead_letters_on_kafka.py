"""`millrace dead-letters` on real Kafka: found, shown, mended and sent back, and applied once whatever is repeated."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from fleet import Fleet, Shop, new_prefix, read_all, wait_applied, wait_until

from streams.cluster import Cluster
from streams.producers import Producer
from tables.reading import read_cells


class Loop:
    """A worker, some bad orders, and the commands."""

    def __init__(self, fleet: Fleet, shop: Shop) -> None:
        self.fleet, self.shop = fleet, shop
        self.at_ms = time.time_ns() // 1_000_000

    def order(self, **fields: Any) -> bytes:
        return orjson.dumps({"orderId": 1, "userId": 1, "occurredAt": self.at_ms, **fields})

    def send(self, *values: bytes, partition: int = 0) -> None:
        with Producer(self.fleet.cluster) as producer:
            for value in values:
                key, headers = b"user-\xff", [("trace", b"7")]
                producer.produce(self.shop.orders, key, value, partition, headers, self.at_ms)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.fleet.run_to_its_end("dead-letters", *arguments)

    def listed(self, *arguments: str) -> Any:
        return orjson.loads(self.run("list", "--json", *arguments).stdout)

    def wait_letters(self, count: int) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]] | None:
            letters = self.listed("--all")["deadLetters"]
            return letters if len(letters) == count else None

        return wait_until(found, f"{count} dead letters")  # type: ignore[no-any-return]

    def revenue(self) -> int:
        wait_applied(self.shop)
        table = next(t for t in self.shop.group.tables if t.name == "sales_by_total")
        changelog = read_all(self.fleet.cluster, self.shop.group.changelog(table).name, 4)
        return sum(reading.results["placed"] for reading in read_cells(table, changelog).values())


@pytest.fixture
def loop(kafka: Cluster, tmp_path: Path) -> Iterator[Loop]:
    with Fleet(kafka, tmp_path, new_prefix("letters")) as fleet:
        shop = Shop(kafka, fleet.prefix)
        shop.create_topics()
        fleet.start("w0")
        yield Loop(fleet, shop)


def test_a_dead_letter_is_found_shown_mended_and_applied_once(loop: Loop, tmp_path: Path) -> None:
    loop.send(loop.order(amount=1), loop.order(amount="50000"))
    (letter,) = loop.wait_letters(1)
    name = f"{loop.shop.orders}-0-1"
    assert (letter["id"], letter["key"], letter["replayedAt"]) == (name, "user-\ufffd", None)

    shown = loop.run("show", name).stdout
    assert "Expected `int`, got `str`" in shown
    assert '"amount": "50000"' in shown
    assert "trace: 7" in shown

    refused = loop.run("replay", name, "--yes")
    assert refused.returncode == 1
    assert "mend it with `millrace dead-letters edit" in refused.stderr
    refused = loop.run("edit", name, "--value", '{"orderId":1}', "--yes")
    assert refused.returncode == 1
    assert "missing required field `userId`" in refused.stderr

    good = tmp_path / "good.json"
    good.write_bytes(loop.order(amount=50_000))
    assert "would send 1" in loop.run("edit", name, "--file", str(good), "--dry-run").stdout
    assert loop.run("edit", name, "--file", str(good)).returncode == 1  # nobody there to confirm
    assert "sent 1; the tables take each of them once" in loop.run("edit", name, "--file", str(good), "--yes").stdout
    assert loop.revenue() == 50_001
    assert loop.listed()["total"] == 0
    assert loop.wait_letters(1)[0]["replayedAt"] is not None

    again = loop.run("edit", name, "--file", str(good), "--yes")
    assert (again.returncode, "was replayed at" in again.stderr) == (1, True)
    assert loop.run("edit", name, "--file", str(good), "--yes", "--again").returncode == 0
    loop.fleet.workers["w0"].kill()
    loop.fleet.wipe_state()
    loop.fleet.start("w0")
    assert loop.run("edit", name, "--file", str(good), "--yes", "--again").returncode == 0
    assert loop.revenue() == 50_001
    replayed = [r for r in read_all(loop.fleet.cluster, loop.shop.orders, 4)[0] if len(r.headers) > 1]
    assert [(r.key, list(r.headers)) for r in replayed] == [
        (b"user-\xff", [("trace", b"7"), ("replayed-from", name.encode())])
    ] * 3


def test_all_that_match_go_back_and_the_rest_stays(loop: Loop) -> None:
    loop.send(*[b"{" for _ in range(3)], loop.order(amount=-1), partition=2)
    loop.wait_letters(4)
    listed = loop.run("list", "--reason", "not json", "-n", "2").stdout
    assert "3 dead letters, 2 shown" in listed
    dry = loop.run("replay", "--dry-run").stdout
    assert "4 stay, since they would be dead letters again" in dry
    assert "would send nothing" in dry
    editor = "sed -i s/-1/7/"
    loop.fleet.settings = {**loop.fleet.settings, "EDITOR": editor}
    assert loop.run("edit", f"{loop.shop.orders}-2-3", "--yes").returncode == 0
    assert loop.revenue() == 7
    assert loop.listed()["reasons"][0]["count"] == 3


def test_what_is_not_there_is_one_line(loop: Loop) -> None:
    for arguments, said in (
        (("show", "order-events"), "is no id of a dead letter"),
        (("show", "nothing-0-0"), "there is no topic 'nothing.dead-letters'"),
        (("show", f"{loop.shop.orders}-0-77"), "has no dead letter"),
        (("show", f"{loop.shop.orders}-9-0"), "cannot be read"),
    ):
        refused = loop.run(*arguments)
        assert refused.returncode == 1
        assert said in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1


def test_a_worker_whose_fold_fails_for_everything_ends_with_one_line_and_drains_nothing(
    kafka: Cluster, tmp_path: Path
) -> None:
    with Fleet(kafka, tmp_path, new_prefix("poison"), topology="poisoned:topology") as fleet:
        shop = Shop(kafka, fleet.prefix)
        shop.create_topics()
        loop = Loop(fleet, shop)
        loop.send(*[loop.order(amount=1)] * 3, *[loop.order(amount=1_000)] * 2_000)
        for _ in range(2):
            worker = fleet.start("w0", wait=False)
            assert worker.process.wait(40) == 1
            (line,) = [line for line in worker.text().splitlines() if line.startswith("error: ")]
            assert "100 events of" in line
            assert "No space left on device; none of them was skipped: mend the cause and start again" in line
            worker.log.unlink()
        assert not any(read_all(kafka, f"{shop.orders}.dead-letters", 4).values())
