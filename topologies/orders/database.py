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
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from streams.errors import MillraceError, in_one_line
from topologies.orders.engines import (
    is_numbered,
    is_of_driver,
    is_refused,
    is_transient,
    server_engine,
    sqlite_engine,
    unwritten,
)

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
# How long a whole transaction may take, with all its waits. A server that lost its power answers nothing, and nothing
# else would end the wait for it: of a connection that only reads TCP notices after two hours.
ANSWER_S: Final = 20.0
ATTEMPTS: Final = 6
PAUSE_S: Final = 0.02


class Busy(MillraceError):
    """Other transactions were in the way each time; nothing was changed."""

    def __init__(self) -> None:
        super().__init__("the database is busy: other transactions were in the way each time; try again in a second")


class DatabaseUnreachable(MillraceError):
    """No database answers at the URL, or it refused."""

    def __init__(self, url: URL, error: BaseException) -> None:
        original = getattr(error, "orig", None) or error
        # MySQL's have a number first
        words = original.args[-1] if is_numbered(original) else original
        reason = in_one_line(words or original)[:200]
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
    """An open database; `writer` is the engine for what writes, on SQLite one of a single connection.

    One that has not answered a transaction in `answer_s` is taken to be away; None: it is waited for.
    """

    url: URL
    reader: AsyncEngine
    writer: AsyncEngine
    wait_s: float = WAIT_S
    answer_s: float | None = ANSWER_S

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: URL, *, connections: int = CONNECTIONS, wait_s: float = WAIT_S, read_only: bool = False
    ) -> AsyncIterator[Self]:
        """Open it: connections are made when they are needed, and closed at the end.

        `read_only` neither makes a SQLite file nor changes it; of a server's it is no promise.
        """
        if read_only and url.get_backend_name() == "sqlite":
            engine = sqlite_engine(unwritten(url), connections, wait_s, "BEGIN", pragmas=())
            found = cls(url, engine, engine, wait_s)
        elif url.get_backend_name() == "sqlite":
            Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
            found = cls(
                url,
                sqlite_engine(url, connections, wait_s, "BEGIN"),
                sqlite_engine(url, 1, wait_s, "BEGIN IMMEDIATE"),
                wait_s,
            )
        else:
            engine = server_engine(url, connections, wait_s)
            found = cls(url, engine, engine, wait_s)
        try:
            yield found
        finally:
            with suppress(TimeoutError):  # PostgreSQL's are closed once the server has heard of it
                async with asyncio.timeout(wait_s):
                    await found.reader.dispose()
                    await found.writer.dispose()

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
            # what is broken off in the middle of an answer has its connection closed by SQLAlchemy, not put back
            async with asyncio.timeout(self.answer_s), engine.connect() as connection:
                begun = await connection.begin()
                result = await transaction(connection)
                await begun.commit()
                return result
        except DBAPIError as error:
            if error.connection_invalidated or is_refused(error):
                raise DatabaseUnreachable(self.url, error) from error
            raise
        except TimeoutError as error:
            raise DatabaseUnreachable(self.url, TimeoutError("no answer in time")) from error
        except OSError as error:
            raise DatabaseUnreachable(self.url, error) from error
        except Exception as error:
            if not is_of_driver(error):
                raise
            raise DatabaseUnreachable(self.url, error) from error
