"""Who relays which shard: a row a shard, with its owner, that the owner renews while it lives.

A lease keeps two relays from doing the same work; it is not what keeps events right. A relay that was paused, and goes
on after another has its shards, sends again what the other has sent: the same bytes with the same event ids, in the
same order, which readers drop. So a lease may be judged by signs, without clocks that agree:

- its owner gave it back;
- its owner was a process of this very machine that is gone (found at once: a relay that was killed and started again
  does not wait for its own lease);
- it has not changed for `lease_s` of our own clock while we looked.

`until_ms` is by the owner's clock, for people, and changes with each renewal; `epoch` rises with each new owner.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Self

import psutil
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from topologies.orders.outbox import now_ms
from topologies.orders.schema import relay_leases

LEASE_S: Final = 6.0
# A start time is kept in whole seconds, and computed from the time since the machine started.
SAME_START_S: Final = 1.0


class Lease(NamedTuple):
    """One shard's row."""

    shard: int
    owner: str | None
    until_ms: int
    epoch: int


@dataclass(frozen=True)
class Owner:
    """A process as others can recognise it: `place` is where its process id means something.

    >>> Owner("shop-1/4026531836", 1234, 1767225600.0, "k3").text
    'shop-1/4026531836 1234 1767225600 k3'
    """

    place: str
    pid: int
    started_s: float
    salt: str = ""

    @classmethod
    def this(cls) -> Self:
        """Name the process that asks; two relays of one process are two owners."""
        pid = os.getpid()
        return cls(_place(), pid, psutil.Process(pid).create_time(), os.urandom(4).hex())

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The owner that a row names; None for what is no name of ours."""
        with suppress(ValueError):
            place, pid, started_s, salt = text.rsplit(" ", 3)
            return cls(place, int(pid), float(started_s), salt)
        return None

    @property
    def text(self) -> str:
        """Its name in a row."""
        return f"{self.place} {self.pid} {self.started_s:.0f} {self.salt}"

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine."""
        return self.place == _place()

    def is_gone(self) -> bool:
        """Whether it was a process here, and is none any more; False for processes of other machines."""
        if not self.is_here:
            return False
        try:
            process = psutil.Process(self.pid)
            another = abs(process.create_time() - self.started_s) > SAME_START_S
            return another or bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


def _place() -> str:
    """The machine since it was started, and of one with containers the one that has these process ids.

    Neither its name nor that number is its own: many machines are `localhost`, and what is in no container has the
    same number on all.
    """
    space, started = Path("/proc/self/ns/pid"), Path("/proc/sys/kernel/random/boot_id")
    number = space.readlink().name.strip("pid:[]") if space.exists() else "0"
    boot = f"/{started.read_text().strip()}" if started.exists() else ""
    return f"{socket.gethostname()[:100]}{boot}/{number}"


def owner_is_gone(text: str) -> bool:
    """Whether a row's owner is known to be gone."""
    owner = Owner.read(text)
    return owner is not None and owner.is_gone()


async def read_leases(connection: AsyncConnection) -> list[Lease]:
    """All shards' rows, by shard."""
    found = await connection.execute(select(relay_leases).order_by(relay_leases.c.shard))
    return [Lease(row.shard, row.owner, row.until_ms, row.epoch) for row in found]


@dataclass
class Leases:
    """The shards that one relay holds."""

    owner: str = field(default_factory=lambda: Owner.this().text)
    lease_s: float = LEASE_S
    clock: Callable[[], float] = time.monotonic
    gone: Callable[[str], bool] = owner_is_gone
    _held: dict[int, int] = field(default_factory=dict)  # shard: epoch
    _renewed_at: float = float("-inf")
    _seen: dict[int, tuple[Lease, float]] = field(default_factory=dict)

    @property
    def held(self) -> frozenset[int]:
        """The shards that are ours; none once the lease was not renewed for as long as it lasts."""
        return frozenset(self._held) if self.clock() < self._renewed_at + self.lease_s else frozenset()

    async def keep(self, connection: AsyncConnection) -> "Kept":
        """Renew what is ours and take what is free. Say `kept` after the commit, or nothing is held."""
        at, until_ms = self.clock(), now_ms() + round(self.lease_s * 1000)
        held: dict[int, int] = {}
        for lease in await read_leases(connection):
            ours = lease.owner == self.owner and self._held.get(lease.shard) == lease.epoch
            if not ours and not self.is_free(lease):
                continue
            epoch = lease.epoch if ours else lease.epoch + 1
            # whoever was quicker has changed one of the two
            same = (relay_leases.c.epoch == lease.epoch, relay_leases.c.until_ms == lease.until_ms)
            statement = update(relay_leases).where(relay_leases.c.shard == lease.shard, *same)
            taken = await connection.execute(statement.values(owner=self.owner, until_ms=until_ms, epoch=epoch))
            if taken.rowcount == 1:
                held[lease.shard] = epoch
        return Kept(at, held)

    def kept(self, kept: "Kept") -> bool:
        """Note what `keep` has committed; returns whether that is another set of shards than before."""
        changed = kept.held.keys() != self._held.keys()
        self._held, self._renewed_at = dict(kept.held), kept.at
        return changed

    def is_free(self, lease: Lease) -> bool:
        """Whether a lease that is not ours can be taken, and a note of when it was first seen as it is now."""
        if lease.owner is None or self.gone(lease.owner):
            return True
        seen, since = self._seen.get(lease.shard, (None, 0.0))
        if seen != lease:
            self._seen[lease.shard] = (lease, self.clock())
            return False
        return self.clock() >= since + self.lease_s

    async def give_back(self, connection: AsyncConnection) -> None:
        """Let others have what is ours at once."""
        mine = relay_leases.c.owner == self.owner
        await connection.execute(update(relay_leases).where(mine).values(owner=None, until_ms=0))


@dataclass(frozen=True)
class Kept:
    """What a transaction made ours: epochs by shard, as of a time of our clock."""

    at: float
    held: dict[int, int]
