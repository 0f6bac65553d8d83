"""The order database: does it answer, has it the tables of this version, and does what it is to publish get out."""

import asyncio
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from streams.errors import MillraceError, in_one_line
from topologies.doctor.finding import Finding, Fine, Said, Skipped
from topologies.doctor.state import is_stopped
from topologies.orders import outbox
from topologies.orders.database import EXAMPLES, Database, DatabaseUnreachable, shown_url
from topologies.orders.leases import LEASE_S, Lease, Owner, read_leases
from topologies.orders.migrating import NotMigrated, check
from topologies.orders.outbox import Row, Waiting
from topologies.orders.schema import SHARDS

# What a relay that works leaves behind waits for less than that, in seconds.
OLD_S: Final = 5.0
# One that lives has renewed its leases within that, in seconds.
RENEWED_S: Final = LEASE_S / 2
ANSWER_S: Final = 10.0
UNTOLD: Final = ' --database "$MILLRACE_DATABASE"'


@dataclass(frozen=True)
class OrderDatabase:
    """The database of the orders; `named`: not where commands find one by themselves, so that they have to name it."""

    url: URL
    named: bool

    @property
    def option(self) -> str:
        """How a command names it; a password is not repeated."""
        if not self.named:
            return ""
        return f" --database {shlex.quote(shown_url(self.url))}" if self.url.password is None else UNTOLD


@dataclass(frozen=True)
class Look:
    """What waits in the outbox, the row of it with the lowest id, and who relays."""

    waiting: Waiting
    first: Row | None
    leases: list[Lease]


def look(database: OrderDatabase, wait_s: float) -> Iterator[Said]:
    """What is wrong with a database; one that nobody named and nobody made is none. Writes nothing.

    `wait_s` is how long two looks at an outbox are apart, at least, where the first finds old events there.
    """
    url = database.url
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        yield Skipped(
            "database", f"there is none at {shown_url(url)}; `millrace db migrate{database.option}` makes one"
        )
        return
    try:
        yield asyncio.run(_looked(database, wait_s))
    except NotMigrated as error:
        newer = "git pull && make setup    # or whatever brings you the version of who migrated it"
        mend = f"millrace db migrate{database.option}" if error.behind else newer
        yield Finding("database", "database-not-migrated", "error", str(error).partition(":")[0], mend)
    except DatabaseUnreachable as error:
        yield _unusable(str(error).partition(": name yours")[0])
    except TimeoutError:
        yield _unusable(f"the database at {shown_url(url)} has not answered in {ANSWER_S:g} s")
    except (MillraceError, SQLAlchemyError) as error:
        yield _unusable(f"the database at {shown_url(url)} cannot be read: {in_one_line(error)[:200]}")


def _unusable(what: str) -> Finding:
    mend = f"export MILLRACE_DATABASE=...    # one that answers; {EXAMPLES}"
    return Finding("database", "database-unusable", "error", what, mend)


async def _looked(of: OrderDatabase, wait_s: float) -> Said:
    async with Database.open(of.url, connections=1, read_only=True) as database:
        async with asyncio.timeout(ANSWER_S):
            await check(database)
            before = await _look(database)
        if before.waiting.oldest_s > OLD_S:
            await asyncio.sleep(max(wait_s, RENEWED_S))
            async with asyncio.timeout(ANSWER_S):
                now = await _look(database)
            if finding := standing(before, now, of.option):
                return finding
            before = now
    waiting = f"{before.waiting.rows:,} events to be published"
    return Fine("database", f"{shown_url(of.url)} has this version's tables, {waiting}")


async def _look(database: Database) -> Look:
    rows = await database.read(lambda connection: outbox.unsent(connection, range(SHARDS), 1))
    return Look(await database.read(outbox.waiting), rows[0] if rows else None, await database.read(read_leases))


def standing(before: Look, now: Look, option: str = "") -> Finding | None:
    """What keeps the outbox from getting emptier between two looks; None where something has got out."""
    if before.first is None or now.first is None or before.first.id != now.first.id:
        return None
    told = f"{now.waiting.rows:,} events wait to be published, the oldest for {now.waiting.oldest_s:,.0f} s"
    owners = [owner for lease in now.leases if (owner := Owner.read(lease.owner or "")) and not owner.is_gone()]
    if stopped := sorted({owner.pid for owner in owners if owner.is_here and is_stopped(owner.pid)}):
        what, mend = f"the relay, pid {stopped[0]}, is stopped", f"kill -CONT {stopped[0]}"
        return Finding("database", "relay-stuck", "error", f"{told}: {what}", mend)
    # By its own clock nobody could tell: machines' differ.
    renewed = [Owner.read(lease.owner or "") for lease in now.leases if lease not in before.leases]
    alive = [owner for owner in renewed if owner is not None]
    if not alive:
        mend = f"millrace relay{option}    # or `millrace orders`, which has one"
        return Finding("database", "relay-missing", "error", f"{told}: no relay works", mend)
    who = f"pid {alive[0].pid}" if alive[0].is_here else "a process of another machine"
    mend = f"millrace topics describe {now.first.topic}    # the relay's log says what it waits for; then restart it"
    return Finding("database", "relay-stuck", "error", f"{told}: the relay, {who}, sends none of them", mend)
