"""A database by its URL: SQLite, MariaDB or MySQL, PostgreSQL, each opened so that the same transactions hold.

    async with Database.open(url) as database:
        order = await database.write(lambda connection: place(connection, ...))

A transaction is a function of a connection: `write` runs it whole, commits, and runs it again when the database broke
it off in favour of another one (a deadlock, a locked file). So it must have no effects but those in the database.

- **SQLite** has one writer at a time. A transaction that will write says so at its start (`BEGIN IMMEDIATE`), since
  one that finds out later cannot wait any more; the writers of one process queue for one connection, and those of
  several processes wait for the file. WAL, so that readers never wait; `synchronous=FULL`: what is committed
  survives a power cut.
- **MariaDB, MySQL**: READ COMMITTED, as a gap lock guards nothing here and makes deadlocks.
- **PostgreSQL**: READ COMMITTED is what it does anyway.
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from streams.errors import MillraceError

T = TypeVar("T")

DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "mysql": "mysql+asyncmy",
    "mariadb": "mysql+asyncmy",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}
CONNECTIONS: Final = 16
# How long a transaction waits for a row or the file, and for a connection; after so long it is not begun again (s).
WAIT_S: Final = 5.0
ATTEMPTS: Final = 6
PAUSE_S: Final = 0.02
# MySQL: lock wait timeout, deadlock, record changed since it was read (a MariaDB snapshot).
MYSQL_AGAIN: Final = frozenset({1205, 1213, 1020})
# PostgreSQL: serialization failure, deadlock, lock not available.
POSTGRES_AGAIN: Final = frozenset({"40001", "40P01", "55P03"})
SQLITE_AGAIN: Final = ("database is locked", "database table is locked")
# MySQL: access denied, unknown database, cannot connect, lost during the handshake.
MYSQL_REFUSED: Final = frozenset({1044, 1045, 1049, 2002, 2003, 2013})
# Servers and what is between close idle connections: ours are made anew before that (MySQL's default is 8 hours).
RECYCLE_S: Final = 1800
LOCK_WAIT: Final = {
    "mysql": "SET SESSION innodb_lock_wait_timeout = {wait_s}",
    "postgresql": "SET SESSION lock_timeout = '{wait_s}s'",
}


class Busy(MillraceError):
    """Other transactions were in the way each time; nothing was changed."""

    def __init__(self) -> None:
        super().__init__("the database is busy: other transactions were in the way each time; try again in a second")


class DatabaseUnreachable(MillraceError):
    """No database answers at the URL, or it refused."""

    def __init__(self, url: URL, error: BaseException) -> None:
        original = getattr(error, "orig", None) or error
        # MySQL's have a number first
        words = original.args[-1] if _is_numbered(original) else original
        reason = " ".join(str(words).split())[:200]
        super().__init__(
            f"the database at {shown_url(url)} cannot be used ({reason}): name yours with --database or "
            "MILLRACE_DATABASE"
        )


def database_url(text: str | None, environment: Mapping[str, str], home: Path) -> URL:
    """The URL with the driver that we use: the one given, else `MILLRACE_DATABASE`, else a SQLite file in the home.

    Raises MillraceError for what is no URL, or of a database that is not one of ours.
    """
    text = text or environment.get("MILLRACE_DATABASE")
    if not text:
        return URL.create(DRIVERS["sqlite"], database=str(home / "orders.db"))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:  # the latter of a port that is no number
        # not repeated here: there may be a password in it
        raise MillraceError(f"--database is no URL; {EXAMPLES}") from error
    backend = url.get_backend_name()
    if backend not in DRIVERS:
        raise MillraceError(f"--database is of {backend[:60]!r}, which is not supported; {EXAMPLES}")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise MillraceError("--database names no file, and one in memory would be gone with its process; " + EXAMPLES)
    return url.set(drivername=DRIVERS[backend])


EXAMPLES: Final = (
    "use sqlite:////path/to/orders.db, mysql://user:password@host/shop or postgresql://user:password@host/shop"
)


def shown_url(url: URL) -> str:
    """A URL as it was given: without our driver, and without its password."""
    return url.set(drivername=url.get_backend_name()).render_as_string()


@dataclass(frozen=True)
class Database:
    """An open database; `writer` is the engine for what writes, on SQLite one of a single connection."""

    url: URL
    reader: AsyncEngine
    writer: AsyncEngine
    wait_s: float = WAIT_S

    @classmethod
    @asynccontextmanager
    async def open(cls, url: URL, *, connections: int = CONNECTIONS, wait_s: float = WAIT_S) -> AsyncIterator[Self]:
        """Open it: connections are made when they are needed, and closed at the end."""
        if url.get_backend_name() == "sqlite":
            Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
            found = cls(
                url, _sqlite(url, connections, wait_s, "BEGIN"), _sqlite(url, 1, wait_s, "BEGIN IMMEDIATE"), wait_s
            )
        else:
            engine = _server(url, connections, wait_s)
            found = cls(url, engine, engine, wait_s)
        try:
            yield found
        finally:
            await found.reader.dispose()
            await found.writer.dispose()

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file with one writer at a time."""
        return self.url.get_backend_name() == "sqlite"

    async def read(self, transaction: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What a transaction that writes nothing finds. Raises Busy, DatabaseUnreachable."""
        return await self._again(self.reader, transaction)

    async def write(self, transaction: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What a transaction returns, after it is committed; one that raises is rolled back.

        It is run again where the database broke it off. Raises Busy when that happened too often, DatabaseUnreachable,
        and what the transaction raises.
        """
        return await self._again(self.writer, transaction)

    async def _again(self, engine: AsyncEngine, transaction: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        until = time.monotonic() + self.wait_s
        for attempt in range(ATTEMPTS):
            try:
                return await self._once(engine, transaction)
            except DBAPIError as error:
                if not is_transient(error):
                    raise
            except PoolTimeout:
                break
            if time.monotonic() > until:
                break
            await asyncio.sleep(PAUSE_S * 2**attempt * (0.5 + random.random()))
        raise Busy

    async def _once(self, engine: AsyncEngine, transaction: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            async with engine.connect() as connection:
                begun = await connection.begin()
                result = await transaction(connection)
                await begun.commit()
                return result
        except DBAPIError as error:
            if error.connection_invalidated or _is_refused(error):
                raise DatabaseUnreachable(self.url, error) from error
            raise
        except OSError as error:
            raise DatabaseUnreachable(self.url, error) from error
        except Exception as error:
            if not _is_of_driver(error):
                raise
            raise DatabaseUnreachable(self.url, error) from error


def is_transient(error: DBAPIError) -> bool:
    """Whether the database broke a transaction off only because another one was in the way.

    A connection that was lost is none of these: whether its transaction was committed is not known.
    """
    original: Any = error.orig
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    return _mysql_code(error) in MYSQL_AGAIN or state in POSTGRES_AGAIN or str(original).startswith(SQLITE_AGAIN)


def _is_refused(error: DBAPIError) -> bool:
    """Whether there was no connection, or none to that database, or no such file."""
    said = str(error.orig)
    return _mysql_code(error) in MYSQL_REFUSED or said.startswith(("unable to open database", "attempt to write"))


def _is_of_driver(error: Exception) -> bool:
    """Whether a driver raised it as it is: asyncpg does so where it cannot log in."""
    return type(error).__module__.partition(".")[0] in ("asyncpg", "asyncmy")


def _mysql_code(error: DBAPIError) -> int | None:
    original = error.orig
    return original.args[0] if original is not None and _is_numbered(original) else None


def _is_numbered(error: BaseException) -> bool:
    return len(error.args) == 2 and isinstance(error.args[0], int) and isinstance(error.args[1], str)


def _sqlite(url: URL, connections: int, wait_s: float, begin: str) -> AsyncEngine:
    """An engine whose transactions begin with `begin`; the driver would begin them late, and some not at all."""
    engine = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_reset_on_return=None,  # each transaction is ended by who began it: one round trip less
        pool_timeout=wait_s,
        connect_args={"timeout": wait_s},
    )

    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "begin", begun)
    return engine


def _server(url: URL, connections: int, wait_s: float) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_reset_on_return=None,  # each transaction is ended by who began it: one round trip less
        pool_timeout=wait_s,
        pool_recycle=RECYCLE_S,
        isolation_level="READ COMMITTED",
    )

    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(LOCK_WAIT[url.get_backend_name()].format(wait_s=math.ceil(wait_s)))
        cursor.close()
        connection.commit()

    event.listen(engine.sync_engine, "connect", prepare)
    return engine
