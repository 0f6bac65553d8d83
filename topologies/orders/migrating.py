"""Bringing a database to the tables that this version of the code has (Alembic, `migrations/`).

Migrations run one at a time: on SQLite in one transaction, on PostgreSQL too, and under a lock of the server's; MySQL
commits each statement, so a step there makes what is missing and passes over what a broken off run has made.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from streams.errors import MillraceError
from topologies.orders.database import Database

DIRECTORY: Final = Path(__file__).with_name("migrations")
LOCK_S: Final = 60
# any number that nobody else uses for a lock of that server
LOCK: Final = 7_205_759


class NotMigrated(MillraceError):
    """The tables are not those of this version; `behind`: a migration brings them there."""

    def __init__(self, found: str | None) -> None:
        self.behind = found is None or found in _steps()
        if found is None:
            super().__init__("the database has no tables yet: make them with `millrace db migrate`")
        elif self.behind:
            super().__init__(f"the database is at {found}, not at {newest()}: run `millrace db migrate`")
        else:
            super().__init__(f"the database is at {found}, which this version does not know: use the newer millrace")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(DIRECTORY).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def newest() -> str:
    """The name of the newest migration."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def _steps() -> list[str]:
    return [step.revision for step in ScriptDirectory.from_config(_config()).walk_revisions()]


async def migrate(database: Database) -> tuple[str | None, str]:
    """Bring it to the newest tables; returns from which migration (None: from nothing) to which. Raises NotMigrated."""

    async def transaction(connection: AsyncConnection) -> str | None:
        return await connection.run_sync(_migrated)

    patient = replace(database, answer_s=None)  # a large table takes as long as it takes
    return await patient.write(transaction), newest()


def _migrated(connection: Connection) -> str | None:
    with _alone(connection), _without_remarks():
        found = _at(connection)
        if found is not None and found not in _steps():
            raise NotMigrated(found)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return found


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Keep other migrations out; SQLite has one writer anyway, PostgreSQL gives the lock back with the transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
    if connection.dialect.name != "mysql":
        yield
        return
    if connection.scalar(text(f"SELECT GET_LOCK('millrace-{LOCK}', {LOCK_S})")) != 1:
        raise MillraceError(f"another migration has been running for {LOCK_S} s: try again when it is done")
    try:
        yield
    finally:
        connection.execute(text(f"SELECT RELEASE_LOCK('millrace-{LOCK}')"))


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Do not repeat what MySQL remarks on each table: that it has a name of its own for every primary key."""
    logger = logging.getLogger("asyncmy")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


async def check(database: Database) -> None:
    """Raise NotMigrated unless the tables are those of this version."""

    async def transaction(connection: AsyncConnection) -> str | None:
        return await connection.run_sync(_at)

    found = await database.read(transaction)
    if found != newest():
        raise NotMigrated(found)


def _at(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
