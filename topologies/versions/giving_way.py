"""A version that rebuilds gives way to the one that is served: it takes less of a core the further that one is behind.

Four times a second the rebuilding worker looks how old what the served version has committed is. While that is well
within the bound it takes more each time, up to a whole core; from half of the bound on it takes half as much each time;
beyond the bound next to nothing. Processor time is what two workers of a machine, and the broker's work for them, have
to share; so the share is one of processor time, and a worker on a machine of its own is held back by it only when the
served version falls behind. Who has nobody to give way to (no workers serve, or it is served itself) takes all.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from streams.admin.connection import Admin
from streams.admin.groups import committed_offsets, members_of
from streams.admin.topics import LATEST, offsets_at
from streams.errors import MillraceError
from streams.log import TP
from tables.read_model import partitions_of
from tables.table import Group
from topologies.settings import Settings
from topologies.topology import Topology
from topologies.versions.naming import group_name
from topologies.versions.register import Register, read_register
from topologies.views.freshness import Source, earliest

if TYPE_CHECKING:
    from streams.delivery import BatchApp

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.25
# Whether anybody works for the served version, and which one that is.
ASK_EVERY_S: Final = 5.0
BOUND_S: Final = 1.5
FIRST_SHARE: Final = 0.25
LEAST_SHARE: Final = 0.02
MORE: Final = 0.05
# A read is put off for so long at most: the group and Faust take silence for an end.
LONGEST_S: Final = 1.0
# So many records of each partition at a time, for a share to be fine enough.
RECORDS: Final = 1_000


@dataclass
class Behind:
    """How old what a group has committed is: since when everything that was there is known to be in it."""

    tps: Sequence[TP]
    _sources: dict[str, Source] = field(default_factory=dict)
    _first_at: float | None = None

    def look(self, at: float, ends: Mapping[TP, int], committed: Mapping[TP, int]) -> float | None:
        """The age in seconds as of `at` (epoch s), when `ends` and then `committed` were asked for; None: not known."""
        self._first_at = at if self._first_at is None else self._first_at
        for topic in {tp.topic for tp in self.tps}:
            source = self._sources.setdefault(topic, Source(topic))
            source.look(at, {tp.partition: ends[tp] for tp in self.tps if tp.topic == topic})
            source.settle({tp.partition: committed.get(tp, 0) for tp in self.tps if tp.topic == topic})
        since = earliest(source.complete_at for source in self._sources.values())
        return None if since is None else max(0.0, at - since)

    def least(self, at: float) -> float | None:
        """How old it is at least while that is not known: not even what was there at the first look is in it."""
        return None if self._first_at is None or at <= self._first_at else at - self._first_at


@dataclass
class Share:
    """The share of a core that a rebuilding worker takes. `bound_s`: how old the served version may be."""

    bound_s: float = BOUND_S
    share: float = FIRST_SHARE

    def hear(self, age_s: float | None) -> float:
        """The share from now on, given the served version's age; None: it is not known yet, or nobody needs it."""
        if age_s is None:
            return self.share
        if age_s > self.bound_s:
            self.share = LEAST_SHARE
        elif age_s > self.bound_s / 2:
            self.share = max(LEAST_SHARE, self.share / 2)
        else:
            self.share = min(1.0, self.share + MORE)
        return self.share


def source_partitions(group: Group) -> list[TP]:
    """Every source partition of a group."""
    return [tp for source in group.sources for tp in partitions_of(source)]


def ends_of(admin: Admin, tps: Sequence[TP]) -> dict[TP, int]:
    """The end offset of each partition. Raises MillraceError."""
    return {tp: end or 0 for tp, end in offsets_at(admin, tps, LATEST).items()}


def served_group(own: Topology, register: Register) -> str | None:
    """The group of the version that is served; None if that is this one."""
    served = register.served(own.family).version
    return None if served == own.version else group_name(own.family, served)


class GivingWay:
    """Holds a worker back. `wait` before each read, `watch` beside it."""

    def __init__(self, own: Topology, settings: Settings, bound_s: float = BOUND_S) -> None:
        """Connects nothing."""
        self.own = own
        self.settings = settings
        self.share = Share(bound_s)
        self._admin = Admin(settings.cluster)
        shared = Group(own.name, tuple(own.sources.values()))
        self._tps = [tp for tp in source_partitions(shared) if tp.topic not in own.renamed.values()]
        self._behind = Behind(self._tps)
        self._group: str | None = None
        self._ask_at = 0.0
        self._used, self._at = time.process_time(), time.monotonic()

    async def wait(self) -> None:
        """Return when it is this worker's turn again."""
        used, now = time.process_time(), time.monotonic()
        due = self._at + (used - self._used) / self.share.share
        # nothing is saved up by waiting longer, and what takes too long to wait for is let off
        self._used, self._at = used, min(max(due, now), now + LONGEST_S) if self.share.share < 1 else now
        if self._at > now:
            await asyncio.sleep(self._at - now)

    async def watch(self) -> None:
        """Look after the served version until cancelled."""
        told = ""
        while True:
            try:
                self.share.hear(await asyncio.to_thread(self._look))
                told = ""
            except (MillraceError, OSError) as error:
                if str(error) != told:
                    logger.warning("how far behind the served version is cannot be asked: %s", error)
                told = str(error)
                self.share.share = LEAST_SHARE
            await asyncio.sleep(LOOK_EVERY_S)

    def _look(self) -> float | None:
        if time.monotonic() >= self._ask_at:
            self._ask()
            self._ask_at = time.monotonic() + ASK_EVERY_S
        if self._group is None or not self._tps:
            return 0.0
        at = time.time()
        ends = ends_of(self._admin, self._tps)
        age_s = self._behind.look(at, ends, committed_offsets(self._admin, self._group))
        return self._behind.least(at) if age_s is None else age_s

    def _ask(self) -> None:
        register = read_register(self.settings.cluster, self.settings.prefix)
        group = served_group(self.own, register)
        self._group = group if group is not None and members_of(self._admin, group) else None


def give_way(app: "BatchApp", own: Topology, settings: Settings, bound_s: float) -> None:
    """Let a worker's app give way to the version that is served."""
    giving = GivingWay(own, settings, bound_s)
    app.take_turns = giving.wait

    @app.task  # type: ignore[untyped-decorator]  # Faust's
    async def look_after_the_served_version() -> None:
        await giving.watch()
