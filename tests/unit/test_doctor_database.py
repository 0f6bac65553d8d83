"""`millrace doctor` on the order database: a real SQLite file, and nothing else of a shop."""

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from ordering import sqlite_url
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection

from streams.events import OrderEvent
from topologies.cli import main
from topologies.doctor import database as database_look
from topologies.doctor.database import Look, OrderDatabase, look, standing
from topologies.doctor.finding import Finding, Fine, Said, Skipped
from topologies.names import free_port
from topologies.orders.database import Database, database_url
from topologies.orders.leases import Lease, Leases, Owner
from topologies.orders.migrating import migrate
from topologies.orders.outbox import Place, Post, Row, Waiting, mark, now_ms, post, unsent
from topologies.orders.schema import SHARDS

ELSEWHERE = Owner("shop-2/1", 1, 0.0, "k")
ROW = Row(7, 0, "payment-notifications", b"", b"", "e7", 0)


def write(url: URL, *transactions: Callable[[AsyncConnection], Awaitable[Any]]) -> None:
    async def written() -> None:
        async with Database.open(url) as database:
            for transaction in transactions:
                await database.write(transaction)

    asyncio.run(written())


@pytest.fixture
def url(tmp_path: Path) -> URL:
    """A database with this version's tables."""

    async def made() -> None:
        async with Database.open(sqlite_url(tmp_path)) as database:
            await migrate(database)

    asyncio.run(made())
    return sqlite_url(tmp_path)


def waits(url: URL, seconds: float, events: int = 3) -> None:
    """Have events in the outbox, the oldest of them for so long."""
    at = now_ms() - round(seconds * 1000)
    of = [
        OrderEvent(event_id=f"e{n}", event_type="order.placed", order_id=n, user_id=n, amount=1) for n in range(events)
    ]
    write(url, lambda connection: post(connection, [Post("order-events", event, at) for event in of]))


def examined(url: URL, named: bool = False) -> Said:
    (said,) = look(OrderDatabase(url, named), 0.2)
    return said


def finding(url: URL) -> Finding:
    found = examined(url)
    assert isinstance(found, Finding)
    return found


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        yield running
        running.kill()


def holds(url: URL, pid: int) -> None:
    """Have a process hold all leases, as a relay does."""
    this = Owner.this()
    owner = Owner(this.place, pid, psutil.Process(pid).create_time(), "k")
    write(url, Leases(owner=owner.text).keep)


def test_a_database_that_nobody_made_is_none_and_stays_so(tmp_path: Path) -> None:
    assert isinstance(examined(sqlite_url(tmp_path)), Skipped)
    assert list(tmp_path.iterdir()) == []


def test_one_with_this_versions_tables_and_nothing_to_publish_is_well(url: URL) -> None:
    assert isinstance(examined(url), Fine)


@pytest.mark.parametrize("named", [False, True])
def test_a_database_without_tables_is_told_and_mended_by_the_command_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    url = sqlite_url(tmp_path)
    (tmp_path / "orders.db").write_bytes(b"")
    found = examined(url, named)
    assert isinstance(found, Finding)
    assert found.problem == "database-not-migrated"
    program, *arguments = shlex.split(found.mend)
    assert program == "millrace"
    if not named:
        monkeypatch.setenv("MILLRACE_DATABASE", f"sqlite:///{tmp_path}/orders.db")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code
    assert isinstance(examined(url), Fine)


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "orders.db").write_text("my shopping list, which is longer than a page header has to be\n" * 20)
    assert finding(sqlite_url(tmp_path)).problem == "database-unusable"


def test_a_server_that_does_not_answer_is_told_without_its_password(tmp_path: Path) -> None:
    found = finding(database_url("mysql://shop:secret@127.0.0.1:1/shop", {}, tmp_path))
    assert found.problem == "database-unusable"
    assert "127.0.0.1:1" in found.what
    assert "secret" not in found.what + found.mend


def test_events_that_nobody_publishes_are_told_with_the_command_that_does(url: URL) -> None:
    waits(url, 60)
    found = finding(url)
    assert found.problem == "relay-missing"
    assert re.match(r"3 events wait to be published, the oldest for 6\d s: ", found.what)
    assert found.mend.startswith("millrace relay ")


def test_a_relay_that_died_is_none(url: URL, process: "subprocess.Popen[bytes]") -> None:
    waits(url, 60)
    holds(url, process.pid)
    process.kill()
    process.wait()
    assert finding(url).problem == "relay-missing"


def test_a_relay_that_was_stopped_is_told_and_woken(url: URL, process: "subprocess.Popen[bytes]") -> None:
    waits(url, 60)
    holds(url, process.pid)
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    found = finding(url)
    assert (found.problem, found.mend) == ("relay-stuck", f"kill -CONT {process.pid}")
    subprocess.run(found.mend, shell=True, check=True)
    os.waitid(os.P_PID, process.pid, os.WCONTINUED | os.WNOWAIT)
    assert finding(url).problem == "relay-missing"  # it is no relay, and renews nothing


@pytest.mark.parametrize("here", [True, False])
def test_a_relay_that_renews_its_leases_and_sends_nothing_is_told_as_one(here: bool) -> None:
    """Whatever its clock says."""
    owner, who = (Owner.this(), f"pid {os.getpid()}") if here else (ELSEWHERE, "another machine")
    first, second = (Look(Waiting(3, 60.0), ROW, [Lease(0, owner.text, until_ms, 1)]) for until_ms in (7, 8))
    found = standing(first, second)
    assert found is not None
    assert found.problem == "relay-stuck"
    assert who in found.what
    assert found.mend.startswith("millrace topics describe payment-notifications ")


def test_one_of_another_machine_that_renews_nothing_is_none() -> None:
    look = Look(Waiting(3, 60.0), ROW, [Lease(0, ELSEWHERE.text, now_ms() + 3_600_000, 1)])
    found = standing(look, look)
    assert found is not None
    assert found.problem == "relay-missing"


def test_young_events_are_a_relays_daily_work(url: URL) -> None:
    waits(url, 0)
    said = examined(url)
    assert isinstance(said, Fine)
    assert "3 events" in said.what


def test_events_that_were_published_wait_for_nobody(url: URL) -> None:
    waits(url, 60)

    async def sent(connection: AsyncConnection) -> None:
        rows = await unsent(connection, range(SHARDS), 10)
        await mark(connection, {row.id: Place(row.topic, 0, n) for n, row in enumerate(rows)})

    write(url, sent)
    assert isinstance(examined(url), Fine)


def test_a_backlog_of_which_something_gets_out_does_not_stand() -> None:
    before, leases = Look(Waiting(1_000, 60.0), ROW, []), [Lease(0, ELSEWHERE.text, 7, 1)]
    assert standing(before, Look(Waiting(1_000, 63.0), ROW, leases)) is not None
    assert standing(before, Look(Waiting(900, 62.99), ROW._replace(id=8), leases)) is None
    assert standing(before, Look(Waiting(0, 0.0), None, leases)) is None


def test_a_server_that_accepts_and_says_nothing_is_waited_for_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_look, "ANSWER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for kind in ("mysql", "postgresql"):
            url = database_url(f"{kind}://shop:secret@127.0.0.1:{silent.getsockname()[1]}/shop", {}, tmp_path)
            found = finding(url)
            assert found.problem == "database-unusable"
            assert found.what.endswith("has not answered in 1 s")


def test_nothing_is_written(tmp_path: Path) -> None:
    """Not even another journal into a file that is none of ours."""
    file = tmp_path / "orders.db"
    with closing(sqlite3.connect(file)) as somebodys:
        somebodys.execute("CREATE TABLE theirs (id INTEGER)")
    before = file.read_bytes()
    assert finding(sqlite_url(tmp_path)).problem == "database-not-migrated"
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_command_names_the_database_that_it_would_not_find_by_itself_and_no_password(tmp_path: Path) -> None:
    url = database_url("mysql://shop:secret@127.0.0.1:1/shop", {}, tmp_path)
    assert OrderDatabase(url, named=False).option == ""
    assert OrderDatabase(url, named=True).option == ' --database "$MILLRACE_DATABASE"'
    assert OrderDatabase(sqlite_url(tmp_path), named=True).option == f" --database sqlite:///{tmp_path}/orders.db"


def test_the_doctor_says_so_too(url: URL, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waits(url, 60)
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json", "--home", str(tmp_path), "--port", str(free_port()), "--wait", "0.5"])
    assert ended.value.code == 3
    assert "relay-missing" in {one["problem"] for one in json.loads(capsys.readouterr().out)["findings"]}
