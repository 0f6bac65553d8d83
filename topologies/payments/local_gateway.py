"""A gateway of this machine that behaves as real ones do: it takes its time, declines, times out, and is away at times.

What it has taken is in a SQLite file of its own, which survives whoever asks: it is the other side of the books. An
answer that is lost may be lost before the money was taken or after, so whoever asks again must not pay twice; and a
request may reach it twice, as when a network repeats it.

Whether a key is declined follows from the seed and the key; how long a request takes and whether its answer is lost is
a matter of chance.
"""

import asyncio
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from topologies.payments.gateway import Charge, Charged, Declined, NoAnswer, Returned

TABLES: Final = """
CREATE TABLE IF NOT EXISTS charges (
    key TEXT PRIMARY KEY, amount INTEGER NOT NULL, currency TEXT NOT NULL, state TEXT NOT NULL, reason TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS movements (number INTEGER PRIMARY KEY, key TEXT NOT NULL, amount INTEGER NOT NULL);
"""
# The worker's loop waits so long, and asks again later.
BUSY_S: Final = 2.0
# What may pass by itself; of extended codes the last byte counts.
PASSES: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
REASONS: Final = ("insufficient funds", "card expired", "suspected fraud")


@dataclass(frozen=True)
class Manners:
    """How it behaves: shares of 1, and seconds. Half of the requests take `latency_s`, one in a hundred ten times that.

    An outage is a stretch of so many seconds, each so often, in which nothing is answered (0: there are none).
    """

    latency_s: float = 0.02
    declines: float = 0.05
    timeouts: float = 0.02
    duplicates: float = 0.02
    timeout_s: float = 0.3
    outage_s: float = 0.0
    outage_every_s: float = 60.0
    seed: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError for what is no share or no time."""
        if not all(0 <= share <= 1 for share in (self.declines, self.timeouts, self.duplicates)):
            raise ValueError("declines, timeouts and duplicates are shares from 0 to 1")
        if min(self.latency_s, self.timeout_s, self.outage_s) < 0 or self.outage_every_s <= 0:
            raise ValueError("times must not be negative")

    def declined(self, key: str) -> str | None:
        """Why a key is declined; None: it is not."""
        number = zlib.crc32(f"{self.seed}/{key}".encode())
        return REASONS[number % len(REASONS)] if number % 10_000 < self.declines * 10_000 else None


@dataclass(frozen=True)
class Held:
    """What the gateway holds under a key, and how often money was moved to that end."""

    key: str
    amount: int
    movements: int


@dataclass
class LocalGateway:
    """The gateway of a file; several processes may use it at once."""

    path: Path
    manners: Manners = field(default_factory=Manners)
    chance: Random = field(default_factory=Random)
    _connection: sqlite3.Connection | None = None

    async def charge(self, charge: Charge) -> Charged | Declined:
        """Take the money, or not. Raises NoAnswer."""
        await self._travel()
        with _answering():
            for _ in range(2 if self.chance.random() < self.manners.duplicates else 1):
                answer = self._charge(charge)
        await self._travel()
        return answer

    async def give_back(self, key: str) -> Returned:
        """Give the money back; a key that was never charged is closed. Raises NoAnswer."""
        await self._travel()
        with _answering():
            returned = self._give_back(key)
        await self._travel()
        return returned

    async def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _travel(self) -> None:
        """Half of the way: it takes its time, and what is on it may be lost."""
        manners, loop = self.manners, asyncio.get_running_loop()
        slow = 10 if self.chance.random() < 0.01 else 1
        await asyncio.sleep(manners.latency_s / 2 * slow * self.chance.lognormvariate(0, 0.3))
        away = manners.outage_s > 0 and loop.time() % manners.outage_every_s < manners.outage_s
        if away or self.chance.random() < manners.timeouts / 2:
            await asyncio.sleep(manners.timeout_s)
            raise NoAnswer(f"no answer after {manners.timeout_s:g} s")

    def _charge(self, charge: Charge) -> Charged | Declined:
        with self._open() as books:
            books.execute("BEGIN IMMEDIATE")
            found = books.execute("SELECT state, reason, amount FROM charges WHERE key = ?", (charge.key,)).fetchone()
            if found is None:
                reason = self.manners.declined(charge.key)
                found = ("charged" if reason is None else "declined", reason, charge.amount)
                row = (charge.key, charge.amount, charge.currency, found[0], reason)
                books.execute("INSERT INTO charges VALUES (?, ?, ?, ?, ?)", row)
                if reason is None:
                    self._move(books, charge.key, charge.amount)
        state, reason, amount = found
        if state != "charged":
            return Declined(reason or state)
        if amount != charge.amount:
            return Declined(f"the key was used for another amount, {amount}")
        return Charged(f"local-{charge.key}")

    def _give_back(self, key: str) -> Returned:
        with self._open() as books:
            books.execute("BEGIN IMMEDIATE")
            found = books.execute("SELECT state, amount FROM charges WHERE key = ?", (key,)).fetchone()
            state, amount = found or ("new", 0)
            if state == "charged":
                self._move(books, key, -amount)
                books.execute("UPDATE charges SET state = 'returned', reason = 'given back' WHERE key = ?", (key,))
            elif state == "new":
                books.execute("INSERT INTO charges VALUES (?, 0, '', 'closed', 'closed before it was charged')", (key,))
        return Returned(amount if state in ("charged", "returned") else 0)

    @staticmethod
    def _move(books: sqlite3.Connection, key: str, amount: int) -> None:
        books.execute("INSERT INTO movements (key, amount) VALUES (?, ?)", (key, amount))

    def _open(self) -> sqlite3.Connection:
        """The books; as a context they are committed, or rolled back."""
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
            try:
                connection.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {TABLES}")
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection


@contextmanager
def _answering() -> Iterator[None]:
    """Books that are locked, or on a full disk, are a gateway that does not answer now."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if (error.sqlite_errorcode & 0xFF) not in PASSES:
            raise
        raise NoAnswer(f"the gateway's books: {error}") from error


def holdings(path: Path) -> dict[str, Held]:
    """What a local gateway holds, by key: for whoever checks the books."""
    books = sqlite3.connect(path, timeout=BUSY_S)
    try:
        found = books.execute("SELECT key, sum(amount), count(*) FROM movements GROUP BY key").fetchall()
    finally:
        books.close()
    return {key: Held(key, amount, movements) for key, amount, movements in found}
