"""Numbers that are counted again from Kafka after a run with faults, and a cell that was tampered with."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from fleet import MILLRACE, Fleet, Shop, free_port, get, new_prefix, read_all, wait_applied, wait_until

from streams.cluster import Cluster
from streams.dead_letters import replay_headers, told
from streams.events import event_time_ms
from streams.log import TP, LogError
from streams.producers import Producer
from streams.rereading import Rereader
from streams.topics import Topic, ensure_topics
from tables.accumulators import encode_key
from tables.read_model import PARTITION_BYTES, ReadModel
from tables.recount import Recount, Wanted, recount
from topologies.recounting import AGREE, overall, verdicts
from topologies.views.hosting import copy_directory, read_group

CELLS = 1_000
WINDOWS = 12
MINUTE = 60_000
START_MS = time.time_ns() // 1_000_000 // MINUTE * MINUTE - 12 * 60 * MINUTE


class Views:
    """A view server that audits as fast as it may."""

    def __init__(self, fleet: Fleet, port: int) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", fleet.directory / "views.log"
        self.command = ["views", "--topology", "analytics", "--port", str(port)]
        self.environment = {**fleet.environment(), "MILLRACE_AUDIT_EVERY_S": "0.02"}

    @contextmanager
    def running(self) -> Iterator[None]:
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", MILLRACE, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        try:
            wait_until(lambda: get(f"{self.url}/readyz")[0] == 200, f"views ready; their log is {self.log}", 120.0)
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, self.log.read_text()[-3000:]
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait(10)

    def ask(self, path: str, **query: Any) -> dict[str, Any]:
        status, found = get(f"{self.url}{path}?{urlencode(query)}", 30.0)
        assert status == 200, (path, query, status)
        return dict(found)

    def closed_cells(self) -> list[tuple[str, int, str]]:
        """Table, slice start and key of everything that is final."""
        cells = []
        for table in self.ask("/api/tables")["tables"]:
            for start in range(table["stored"]["startMs"], table["stored"]["endMs"], MINUTE):
                asked = {"from": start, "to": start + MINUTE}
                found = self.ask(f"/api/tables/{table['name']}/rows", **asked)
                cells += [(table["name"], start, row["key"]) for row in found["rows"] if row["final"]]
        return cells


class TimedShop(Shop):
    """A shop of this morning whose records have the times at which they would have been sent."""

    now_ms = START_MS

    def send(self, events: int) -> None:
        for _ in range(events):
            _, key, value, event = next(self._events)
            self.now_ms = max(self.now_ms, event_time_ms(event, 0))
            self._producer.produce(self.orders, key, value, timestamp_ms=self.now_ms)
        self.sent += events
        self._producer.flush(120)


def spoil(shop: TimedShop, producer: Producer, count: int) -> None:
    """Records that become dead letters."""
    for number in range(count):
        producer.produce(shop.orders, f"user-{number}".encode(), b'{"orderId":', timestamp_ms=shop.now_ms)
    producer.flush(30)


def send_back(shop: TimedShop, producer: Producer) -> int:
    """Each dead letter twice, mended: as an order of now."""
    letters = [r for rs in read_all(shop.cluster, f"{shop.orders}.dead-letters", 4).values() for r in rs]
    for letter in letters:
        said = told(letter.headers)
        assert said is not None
        order = {"orderId": 1, "userId": 1, "amount": 777, "occurredAt": shop.now_ms, "eventId": f"mended-{said.id}"}
        value = json.dumps(order).encode()
        for _ in range(2):
            headers = replay_headers(letter.headers, said)
            producer.produce(shop.orders, letter.key, value, said.tp.partition, headers, shop.now_ms)
    producer.flush(30)
    return len(letters)


def run_with_faults(shop: TimedShop, fleet: Fleet) -> None:
    """Two workers, one killed four times, once with all state deleted, and paused until it is a zombie."""
    producer = Producer(shop.cluster)
    with shop.load(600, 100):
        fleet.start("w0", wait=False).wait_ready(120)
        fleet.start("w1", wait=False)
        fleet.wait_shared(["w0", "w1"], limit_s=120)
        for kill in range(4):
            shop.wait_for(2_000)
            spoil(shop, producer, 20)
            sent_back = send_back(shop, producer)
            fleet.workers["w0"].kill()
            if kill == 2:
                fleet.workers["w1"].kill()
                fleet.wipe_state()
                fleet.start("w1", wait=False)
            fleet.start("w0", wait=False).wait_ready(120)
        fleet.wait_shared(["w0", "w1"], limit_s=120)
        paused, other = fleet.workers["w0"], fleet.workers["w1"]
        paused.send_signal(signal.SIGSTOP)
        wait_until(lambda: other.owns() == {0, 1, 2, 3}, "the other has all partitions", 120)
        shop.wait_for(2_000)
        paused.send_signal(signal.SIGCONT)
        fleet.wait_shared(["w0", "w1"], limit_s=120)
    wait_applied(shop)
    assert sent_back


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_cells_agree_after_faults_and_one_tampered_with_is_found(kafka: Cluster, tmp_path: Path) -> None:
    shop = TimedShop(
        kafka, new_prefix("explain"), start_ms=START_MS, events_per_s=10.0, duplicates=0.01, late_sessions=0.02
    )
    with Fleet(kafka, tmp_path, shop.settings.prefix) as fleet:
        run_with_faults(shop, fleet)
        port = free_port()
        views = Views(fleet, port)
        with views.running():
            cells = views.closed_cells()
            some = random.Random(1).sample(sorted({start for _, start, _ in cells}), WINDOWS)
            chosen = random.Random(1).sample([cell for cell in cells if cell[1] in some], CELLS)
            counted = assert_agree(shop, views, chosen)
            wait_until(lambda: views.ask("/api/audit")["windows"] >= WINDOWS, "some windows audited", 120.0)
            audit = views.ask("/api/audit")
            assert (audit["differing"], audit["unknown"]) == (0, 0), audit
            assert audit["agree"] == audit["checked"] > 0
        bad = random.Random(2).choice([cell for cell in cells if cell[0] == "sales_by_product"])
        tamper(shop, fleet, port, bad)
        with views.running():
            found = wait_until(lambda: views.ask("/api/audit")["differ"], "the tampered cell found", 300.0)
            assert [(one["table"], one["windowMs"], one["key"], one["what"]) for one in found] == [(*bad, ["placed"])]
            explain_on_the_command_line(fleet, views, chosen[0], bad)
            took = views.ask("/api/audit")
    print(f"{shop.sent} events, {len(cells)} closed cells, {CELLS} explained, {counted} records read again, {took}")


def assert_agree(shop: Shop, views: Views, chosen: list[tuple[str, int, str]]) -> int:
    """Explain each cell and count it again; returns how many records were read."""
    group = read_group(shop.topology)
    read = 0
    with Rereader(shop.cluster) as reader:
        counted: dict[tuple[int, int], Recount] = {}

        def count(wanted: Wanted) -> Recount:
            nonlocal read
            place = wanted.window.start_ms, wanted.number
            if place not in counted:  # it has all tables
                counted[place] = recount(reader, wanted)
                read += counted[place].records
            return counted[place]

        for table, start, key in chosen:
            explained = views.ask("/api/explain", table=table, window=start, key=key, sample=0)
            assert not explained["provisional"]
            said = verdicts(group, explained, count)
            assert overall(said) == AGREE, (explained, said)
    return read


def tamper(shop: Shop, fleet: Fleet, port: int, cell: tuple[str, int, str]) -> None:
    """One won more than was sold, in the view server's own RocksDB."""
    table, start, key = cell

    directory = copy_directory(shop.topology, replace(shop.settings, state_dir=fleet.state, views_port=port))
    model = ReadModel(read_group(shop.topology), directory)
    try:
        (number, stored), *_ = model.partials(table, start, key).items()
        stored[4] += 1
        change = model.store.change()
        place = encode_key(start, key) + number.to_bytes(PARTITION_BYTES, "big")
        change.put_all(table, [(place, model.tables[table].row.encode(stored, 0))])
        change.write()
    finally:
        model.close()


def explain_on_the_command_line(
    fleet: Fleet, views: Views, good: tuple[str, int, str], bad: tuple[str, int, str]
) -> None:
    for (table, start, key), code, verdict in ((good, 0, "agree"), (bad, 1, "differ")):
        asked = ["--table", table, "--window", str(start), "--key", key, "--url", views.url, "--recount"]
        done = fleet.run_to_its_end("explain", *asked, "--json")
        assert done.returncode == code, done.stderr
        found = json.loads(done.stdout)
        assert found["recount"]["verdict"] == verdict
        assert all(part["sample"] for part in found["partials"])
    told = fleet.run_to_its_end("explain", *asked).stdout
    assert "DIFFERS in placed" in told


def test_a_partition_is_read_again_from_any_offset_and_any_time(kafka: Cluster) -> None:
    tp = TP(new_prefix("again") + "records", 1)
    ensure_topics(kafka, [Topic(tp.topic, partitions=2)])
    with Producer(kafka) as producer:
        for number in range(2_000):  # times go back and forth by 50
            at_ms = START_MS + number * 10 - number % 3 * 50
            producer.produce(tp.topic, b"key", b"%d" % number, tp.partition, [("n", b"7")], at_ms)
    with Rereader(kafka) as reader:
        assert reader.bounds(tp) == (0, 2_000)
        assert reader.bounds(TP(tp.topic, 0)) == (0, 0)
        read = [record for records in reader.read(tp, 700, 1_900) for record in records]
        assert [record.offset for record in read] == list(range(700, 1_900))
        assert (read[0].key, read[0].value, list(read[0].headers)) == (b"key", b"700", [("n", b"7")])
        times = [record.timestamp for records in reader.read(tp, 0, 5_000) for record in records]
        for at_ms in (START_MS - 1, START_MS + 5_000, START_MS + 5_005, START_MS + 19_990, START_MS + 30_000):
            first = next((offset for offset, at in enumerate(times) if at >= at_ms), 2_000)
            assert reader.offset_at(tp, at_ms) == first
        assert next(iter(reader.read(tp, 0, 10)))[0].offset == 0  # given up, and begun anew
        with pytest.raises(LogError):
            list(reader.read(TP(tp.topic, 7), 0, 10))


def test_a_cluster_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.rereading.ANSWER_S", 0.5)
    with Rereader(Cluster("127.0.0.1:9")) as reader:
        with pytest.raises(LogError):
            reader.bounds(TP("nothing", 0))
        with pytest.raises(LogError, match="does not answer"):
            list(reader.read(TP("nothing", 0), 0, 10))
