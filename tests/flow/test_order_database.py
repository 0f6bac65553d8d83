"""The order database: its URL, its migrations, its seed, and what is said when it is not there."""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from ordering import POINTS, USER, Bookkeeping, all_of, bookkeeping, fresh_database, sqlite_url
from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.databases import Server
from streams.errors import MillraceError
from topologies.orders.database import Database, DatabaseUnreachable, database_url, shown_url
from topologies.orders.migrating import NotMigrated, check, migrate, newest
from topologies.orders.schema import METADATA, SHARDS
from topologies.orders.seeding import Seeded, Stock, seed

SERVERS = [pytest.param(name, marks=pytest.mark.databases) for name in ("mariadb", "postgresql")]


@pytest.fixture(params=["sqlite", *SERVERS])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    return await fresh_database(request.getfixturevalue(f"{request.param}_server"))


@pytest.fixture(autouse=True)
async def _over() -> AsyncIterator[None]:
    """Keep the loop open until aiosqlite's threads have ended, which answer into it until then."""
    yield
    until = time.monotonic() + 5
    while time.monotonic() < until and any("_connection_worker_thread" in one.name for one in threading.enumerate()):
        await asyncio.sleep(0.01)


async def rows(database: Database, statement: str) -> list[tuple[Any, ...]]:
    async def transaction(connection: AsyncConnection) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await connection.execute(text(statement))]

    return await database.read(transaction)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("sqlite:////var/shop.db", "sqlite+aiosqlite:////var/shop.db"),
        ("mysql://a:b@h/shop", "mysql+asyncmy://a:b@h/shop"),
        ("mariadb://a:b@h:33/shop", "mysql+asyncmy://a:b@h:33/shop"),
        ("mysql+pymysql://a:b@h/shop", "mysql+asyncmy://a:b@h/shop"),
        ("postgres://a@h/shop", "postgresql+asyncpg://a@h/shop"),
        (None, "sqlite+aiosqlite:////home/orders.db"),
    ],
)
def test_a_url_gets_the_driver_that_we_use(given: str | None, found: str) -> None:
    assert database_url(given, {}, Path("/home")).render_as_string(hide_password=False) == found


def test_the_environment_counts_where_nothing_is_given() -> None:
    told = {"MILLRACE_DATABASE": "mysql://h/one"}
    assert database_url(None, told, Path("/home")).host == "h"
    assert database_url("sqlite:///two", told, Path("/home")).database == "two"


@pytest.mark.parametrize(
    "given", ["shop", "oracle://h/shop", "sqlite://", "sqlite:///:memory:", "://", "mysql://h:x/y"]
)
def test_a_url_that_cannot_be_says_what_would(given: str) -> None:
    with pytest.raises(MillraceError, match="mysql://user:password@host/shop"):
        database_url(given, {}, Path("/home"))


def test_a_password_is_never_shown() -> None:
    url = database_url("mysql://shop:secret@db/shop", {}, Path("/home"))
    assert shown_url(url) == "mysql://shop:***@db/shop"
    assert "secret" not in str(DatabaseUnreachable(url, OSError("refused")))


async def test_migrations_make_the_tables_that_the_code_has(url: URL) -> None:
    async with Database.open(url) as database:
        assert await migrate(database) == (None, newest())

        def different(connection: Connection) -> list[Any]:
            found = compare_metadata(MigrationContext.configure(connection), METADATA)
            return [one for one in found if "sequence" not in str(one)]

        async def transaction(connection: AsyncConnection) -> list[Any]:
            return await connection.run_sync(different)

        assert await database.read(transaction) == []
        assert await rows(database, "SELECT shard, owner, epoch FROM relay_leases ORDER BY shard") == [
            (shard, None, 0) for shard in range(SHARDS)
        ]


async def test_migrating_again_changes_nothing(url: URL) -> None:
    async with bookkeeping(url) as shop:
        await shop.place({1: 1})
        before = await shop.everything()
        assert await migrate(shop.database) == (newest(), newest())
        assert await shop.everything() == before


async def test_two_that_migrate_at_once_make_the_tables_once(url: URL) -> None:
    async with Database.open(url) as one, Database.open(url) as another:
        found = await all_of(migrate(one), migrate(another))
        assert sorted(found, key=str) == [("0001", "0001"), (None, "0001")]
        assert len(await rows(one, "SELECT * FROM relay_leases")) == SHARDS


async def test_a_migration_that_was_broken_off_is_finished_by_the_next(url: URL) -> None:
    async with Database.open(url) as database:
        await migrate(database)

        async def half(connection: AsyncConnection) -> None:
            for statement in (
                "DELETE FROM alembic_version",
                "DROP TABLE payments",
                "DELETE FROM relay_leases WHERE shard > 2",
            ):
                await connection.execute(text(statement))

        await database.write(half)
        with pytest.raises(NotMigrated):
            await check(database)
        await migrate(database)
        await check(database)
        assert await rows(database, "SELECT * FROM payments") == []
        assert len(await rows(database, "SELECT * FROM relay_leases")) == SHARDS


async def test_tables_that_are_not_there_or_of_another_version_are_refused_with_what_to_do(url: URL) -> None:
    async with Database.open(url) as database:
        with pytest.raises(NotMigrated, match="millrace db migrate"):
            await check(database)
        await migrate(database)

        async def newer(connection: AsyncConnection) -> None:
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

        await database.write(newer)
        for refused in (check(database), migrate(database)):
            with pytest.raises(NotMigrated, match="use the newer millrace"):
                await refused


async def test_seeding_again_adds_what_is_missing_and_leaves_what_is_there(url: URL) -> None:
    async with Database.open(url) as database:
        await migrate(database)
        assert await seed(database, Stock()) == Seeded(1, 20)
        shop = Bookkeeping(database)
        await shop.place({1: 1})
        points = await shop.points()
        assert await seed(database, Stock(users=700, products=45)) == Seeded(700, 25)
        assert await shop.points() == points < POINTS
        assert await rows(database, f"SELECT name, region FROM users WHERE id = {USER}") == [("test user", "seoul")]
        assert len(set(await rows(database, "SELECT name FROM products"))) == 45


async def test_text_is_what_was_written_byte_for_byte(url: URL) -> None:
    names = ["Sale", "sale", "책", "😀 quote ' \" \\", "é", "e\u0301"]
    async with bookkeeping(url) as shop:

        async def write(connection: AsyncConnection) -> None:
            for number, name in enumerate(names):
                await connection.execute(
                    text("INSERT INTO products VALUES (:id, :name, :name, 1, 5)"), {"id": 100 + number, "name": name}
                )

        await shop.database.write(write)
        placed = await shop.place({100 + number: 1 for number in range(len(names))})
        assert [item.category for item in placed.order.items] == names
        (event,) = await shop.events()
        assert [line.category for line in event.items] == names
        for name in names[:2]:
            found = await rows(shop.database, f"SELECT count(*) FROM products WHERE category = '{name}'")
            assert found == [(1,)]


async def test_a_file_that_cannot_be_opened_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "orders.db").mkdir()
    async with Database.open(sqlite_url(tmp_path)) as database:
        with pytest.raises(DatabaseUnreachable, match="--database or MILLRACE_DATABASE"):
            await migrate(database)


@pytest.mark.parametrize("given", ["mysql://a:b@127.0.0.1:1/shop", "postgresql://a:b@127.0.0.1:1/shop"])
async def test_a_server_that_is_not_there_is_said_in_one_line(given: str, tmp_path: Path) -> None:
    async with Database.open(database_url(given, {}, tmp_path)) as database:
        with pytest.raises(DatabaseUnreachable, match="--database or MILLRACE_DATABASE"):
            await check(database)


@pytest.mark.parametrize("scheme", ["mysql", "postgresql"])
async def test_a_server_that_takes_connections_and_says_nothing_is_given_up(scheme: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = database_url(f"{scheme}://a:b@127.0.0.1:{silent.getsockname()[1]}/shop", {}, tmp_path)
        async with asyncio.timeout(10), Database.open(url) as database:
            with pytest.raises(DatabaseUnreachable, match="no answer in time"):
                await check(replace(database, answer_s=0.3))


def stands_still(process: psutil.Process) -> bool:
    """Whether all its threads do."""
    try:
        return all(psutil.Process(thread.id).status() == psutil.STATUS_STOPPED for thread in process.threads())
    except psutil.NoSuchProcess:  # a thread that has ended since
        return False


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """All its processes stand still, as those of a machine without power do for whoever is connected to them."""
    server_process = psutil.Process(server.pid)
    processes = [server_process, *server_process.children(recursive=True)]
    for process in processes:
        process.suspend()
    # each thread is stopped when its turn on a core comes: until then it answers
    until = time.monotonic() + 10
    while not all(map(stands_still, processes)):
        assert time.monotonic() < until, "the server goes on"
        time.sleep(0.001)
    try:
        yield
    finally:
        for process in processes:
            process.resume()


@pytest.mark.databases
@pytest.mark.parametrize("name", ["mariadb", "postgresql"])
async def test_a_server_that_falls_silent_is_given_up_and_its_late_answers_are_nobodys(
    name: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(f"{name}_server")
    async with Database.open(server.url) as patient:
        database = replace(patient, answer_s=0.3)

        async def number(wanted: int) -> int:
            return int((await rows(database, f"SELECT {wanted}"))[0][0])

        assert await all_of(*map(number, range(4))) == [*range(4)]
        with stopped(server):
            found = await all_of(*map(number, range(10, 14)))
            assert [type(error) for error in found] == 4 * [DatabaseUnreachable]
        assert [await number(wanted) for wanted in range(20, 40)] == [*range(20, 40)]


@pytest.mark.databases
@pytest.mark.parametrize("name", ["mariadb", "postgresql"])
async def test_a_database_that_falls_silent_can_be_let_go(name: str, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(f"{name}_server")
    with ExitStack() as silent:
        async with asyncio.timeout(10), Database.open(server.url, wait_s=0.5) as database:
            assert await rows(database, "SELECT 1") == [(1,)]
            silent.enter_context(stopped(server))


@pytest.mark.databases
@pytest.mark.parametrize("name", ["mariadb", "postgresql"])
@pytest.mark.parametrize("wrong", [{"database": "nowhere"}, {"username": "nobody", "password": "wrong"}])
async def test_who_may_not_log_in_is_told_in_one_line(
    name: str, wrong: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(f"{name}_server")
    async with Database.open(server.url.set(**wrong)) as database:
        with pytest.raises(DatabaseUnreachable, match="--database or MILLRACE_DATABASE") as refused:
            await check(database)
        assert "\n" not in str(refused.value)


@pytest.mark.databases
async def test_a_server_that_only_reads_is_told_in_one_line(postgresql_server: Server) -> None:
    url = await fresh_database(postgresql_server)
    async with Database.open(url) as database:
        await migrate(database)
        only = f"ALTER DATABASE {url.database} SET default_transaction_read_only = on"
        await database.write(lambda connection: connection.execute(text(only)))
    async with Database.open(url) as database:
        with pytest.raises(DatabaseUnreachable, match="read-only transaction"):
            await seed(database, Stock())


@pytest.mark.databases
async def test_a_server_with_too_many_connections_is_told_in_one_line(mariadb_server: Server) -> None:
    async with Database.open(mariadb_server.url) as database:

        async def allow(connections: int) -> None:
            only = text(f"SET GLOBAL max_connections = {connections}")
            await database.write(lambda connection: connection.execute(only))

        await allow(10)
        try:
            found = await all_of(*(rows(database, "SELECT SLEEP(0.5)") for _ in range(16)))
        finally:
            await allow(300)
    refused = [error for error in found if isinstance(error, Exception)]
    assert refused
    assert all(isinstance(error, DatabaseUnreachable) and "Too many connections" in str(error) for error in refused)


@pytest.mark.databases
@pytest.mark.parametrize("name", ["mariadb", "postgresql"])
async def test_after_a_server_was_killed_nothing_that_was_acknowledged_is_missing(
    name: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(f"{name}_server")
    async with bookkeeping(await fresh_database(server)) as shop:
        placed: list[int] = []
        refused: list[Exception] = []

        async def order(number: int) -> None:
            while len(placed) < 40:
                try:
                    order = (await shop.place({1: 1}, [USER, 1_001, 1_002, 1_003, 1_004][number % 5])).order
                    placed.append(order.orderId)
                    await shop.cancel(order.orderId)
                except MillraceError as error:
                    refused.append(error)
                    await asyncio.sleep(0.05)

        async def kill() -> None:
            while len(placed) < 10:
                await asyncio.sleep(0.005)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

        async with asyncio.timeout(60):
            await asyncio.gather(kill(), *(order(number) for number in range(5)))
        assert refused
        assert all(isinstance(error, DatabaseUnreachable) for error in refused)
        found = {row[0] for row in await rows(shop.database, "SELECT id FROM orders")}
        assert found >= set(placed)
        await shop.assert_conserved()


async def test_a_transaction_that_is_broken_off_while_it_reads_locks_out_nobody(tmp_path: Path) -> None:
    numbers = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 500000) SELECT count(*) FROM r"

    async def count(connection: AsyncConnection) -> None:
        await connection.execute(text("INSERT INTO told VALUES (1)"))
        asyncio.get_running_loop().call_later(0.05, counting.cancel)
        await connection.execute(text(numbers))

    async def tell(connection: AsyncConnection) -> None:
        await connection.execute(text("INSERT INTO told VALUES (2)"))

    async with Database.open(sqlite_url(tmp_path)) as database:
        await database.write(lambda connection: connection.execute(text("CREATE TABLE told (number INTEGER)")))
        gc.disable()  # it would close what is forgotten, some time
        try:
            counting = asyncio.create_task(database.write(count))
            with pytest.raises(asyncio.CancelledError):
                await counting
            await database.write(tell)
        finally:
            gc.enable()
        assert await rows(database, "SELECT number FROM told") == [(2,)]
