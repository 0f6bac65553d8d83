"""Engines of SQLAlchemy for each database, and what their errors mean."""

import math
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util.concurrency import in_greenlet

# MySQL: lock wait timeout, deadlock, record changed since it was read (a MariaDB snapshot).
MYSQL_AGAIN: Final = frozenset({1205, 1213, 1020})
# PostgreSQL: serialization failure, deadlock, lock not available.
POSTGRES_AGAIN: Final = frozenset({"40001", "40P01", "55P03"})
SQLITE_AGAIN: Final = ("database is locked", "database table is locked")
# MySQL: access denied, unknown database, cannot connect, lost during the handshake; disk full, too many connections,
# shutting down, read-only.
MYSQL_REFUSED: Final = frozenset({1044, 1045, 1049, 2002, 2003, 2013, 1021, 1040, 1053, 1290})
# PostgreSQL: no disk, memory or connection left, shutting down, its system fails, read-only.
POSTGRES_REFUSED: Final = ("53", "57P", "58", "25006")
SQLITE_REFUSED: Final = ("unable to open database", "attempt to write", "database or disk is full")
# Servers and what is between close idle connections: ours are made anew before that (MySQL's default is 8 hours).
RECYCLE_S: Final = 1800
LOCK_WAIT: Final = {
    "mysql": "SET SESSION innodb_lock_wait_timeout = {wait_s}",
    "postgresql": "SET SESSION lock_timeout = '{wait_s}s'",
}
PRAGMAS: Final = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")


def unwritten(url: URL) -> URL:
    """The URL of a SQLite file that is to be read and not to be made, changed or brought to another journal."""
    return url.set(database=f"file:{quote(url.database or '')}", query={"mode": "ro", "uri": "true"})


def sqlite_engine(
    url: URL, connections: int, wait_s: float, begin: str, pragmas: Sequence[str] = PRAGMAS
) -> AsyncEngine:
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
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    def broken_off(connection: Any, _record: object, _error: object) -> None:
        # SQLite closes a connection when its last query is read or forgotten, and until then it locks out all others
        if in_greenlet():
            with suppress(sqlite3.Error, ValueError):  # it is closed already
                connection.rollback()

    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "invalidate", broken_off)
    event.listen(engine.sync_engine, "begin", begun)
    return engine


def server_engine(url: URL, connections: int, wait_s: float) -> AsyncEngine:
    """An engine for a server, whose transactions are READ COMMITTED and wait for a row no longer than `wait_s`."""
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


def is_transient(error: DBAPIError) -> bool:
    """Whether the database broke a transaction off only because another one was in the way.

    A connection that was lost is none of these: whether its transaction was committed is not known.
    """
    said = str(error.orig)
    return (
        _mysql_code(error) in MYSQL_AGAIN or _postgres_state(error) in POSTGRES_AGAIN or said.startswith(SQLITE_AGAIN)
    )


def is_refused(error: DBAPIError) -> bool:
    """Whether there was no connection, or none to that database, or no such file, or it takes nothing now."""
    said = str(error.orig)
    return (
        _mysql_code(error) in MYSQL_REFUSED
        or _postgres_state(error).startswith(POSTGRES_REFUSED)
        or said.startswith(SQLITE_REFUSED)
    )


def is_of_driver(error: Exception) -> bool:
    """Whether a driver raised it as it is: asyncpg does so where it cannot log in."""
    return type(error).__module__.partition(".")[0] in ("asyncpg", "asyncmy")


def _mysql_code(error: DBAPIError) -> int | None:
    original = error.orig
    return original.args[0] if original is not None and is_numbered(original) else None


def _postgres_state(error: DBAPIError) -> str:
    original = error.orig
    return getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or ""


def is_numbered(error: BaseException) -> bool:
    """Whether it is a number and words, as errors of MySQL are, and of the system."""
    return len(error.args) == 2 and isinstance(error.args[0], int) and isinstance(error.args[1], str)
