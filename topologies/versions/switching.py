"""Which version is served: the decision, and waiting until the view servers have heard of it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from streams.admin.connection import Admin
from streams.admin.groups import committed_offsets, members_of
from streams.errors import MillraceError
from streams.kafka_log import KafkaLog
from topologies.settings import Settings
from topologies.topology import Topology
from topologies.versions.giving_way import Behind, ends_of, source_partitions
from topologies.versions.register import (
    Follower,
    Register,
    Seen,
    Served,
    entry,
    now_ms,
    read_register,
    topic_of,
    write_register,
)

# A version that is served has to be about as fresh as the one before it.
FRESH_S: Final = 5.0
LOOK_S: Final = 6.0
LOOK_EVERY_S: Final = 0.25
TOLD_EVERY_S: Final = 0.2
Tell = Callable[[Mapping[str, Seen]], None]


@dataclass(frozen=True)
class Switched:
    """What a switch came to: `servers` are the view servers by name, and what they say."""

    topology: str
    version: str
    before: str
    servers: Mapping[str, Seen]

    @property
    def waiting(self) -> dict[str, Seen]:
        """The servers that have not moved."""
        return {name: seen for name, seen in self.servers.items() if seen.version != self.version}


def previous(register: Register, family: str) -> str:
    """The version that a rollback leads to. Raises MillraceError where there is none."""
    before = register.served(family).before
    if before is None:
        raise MillraceError(f"{family} has not been switched, so there is nothing to roll back to")
    if before not in register.known(family):
        raise MillraceError(f"{before} of {family} was dropped, so there is nothing to roll back to")
    return before


def switch(
    target: Topology, settings: Settings, *, behind: bool = False, wait_s: float = 60.0, tell: Tell = lambda seen: None
) -> Switched:
    """Let a version be served, and wait until every view server does; `tell` hears how far they are.

    With `behind` also one that is further behind the sources than what is served. Raises MillraceError where it is
    served already, or is not up to date, before anything is changed.
    """
    register = read_register(settings.cluster, settings.prefix)
    served = register.served(target.family)
    if target.version == served.version:
        raise MillraceError(f"{target.version} of {target.family} is served already")
    if not behind:
        refuse_behind(target, settings)
    decided = Served(target.version, served.version, now_ms(), behind)
    write_register(settings.cluster, settings.prefix, entry("served", target.family, value=decided))
    servers = asyncio.run(_moved(target, settings, wait_s, tell))
    return Switched(target.family, target.version, served.version, servers)


def refuse_behind(target: Topology, settings: Settings) -> None:
    """Raise MillraceError for a version that does not follow its sources closely."""
    admin, tps = Admin(settings.cluster), source_partitions(target.group)
    behind, deadline, lag = Behind(tps), time.monotonic() + LOOK_S, 0
    while time.monotonic() < deadline:
        at = time.time()
        ends = ends_of(admin, tps)
        committed = committed_offsets(admin, target.name)
        lag = sum(max(0, end - committed.get(tp, 0)) for tp, end in ends.items())
        age_s = behind.look(at, ends, committed)
        if age_s is not None and age_s < FRESH_S:
            return
        time.sleep(LOOK_EVERY_S)
    nobody = not members_of(admin, target.name)
    way = f"start a worker of it (`--as {target.version}`)" if nobody else "wait until it has caught up"
    raise MillraceError(
        f"{target.version} of {target.family} is {lag:,} records behind its sources: {way}, or switch all the same "
        "with --behind"
    )


async def _moved(target: Topology, settings: Settings, wait_s: float, tell: Tell) -> dict[str, Seen]:
    """The view servers once all of them serve the version, or as they are when the time is over."""
    topic = topic_of(settings.prefix)
    log = KafkaLog(settings.cluster, client_id="millrace-versions")
    await log.start()
    following, deadline = Follower(log, topic), time.monotonic() + wait_s
    try:
        while True:
            await following.read()
            servers = following.register.serving(target.family, now_ms())
            tell(servers)
            if all(seen.version == target.version for seen in servers.values()) or time.monotonic() > deadline:
                return servers
            await asyncio.sleep(TOLD_EVERY_S)
    finally:
        await log.stop()
