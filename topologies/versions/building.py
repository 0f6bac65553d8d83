"""Building a version beside the one that is served: workers of its own read the sources from their beginning.

What it takes is checked before anything is written. Started again, it goes on from where it was.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from streams.admin.connection import Admin
from streams.admin.groups import committed_offsets
from streams.admin.topics import Stretch, stretches, topic_names
from streams.errors import MillraceError
from streams.log import TP, LogError
from streams.topics import missing_topics
from topologies.demo.processes import Children
from topologies.kept_topics import ensure_all
from topologies.loading import load_topology
from topologies.settings import Settings
from topologies.topology import FIRST, Topology
from topologies.versions.giving_way import Behind, source_partitions
from topologies.versions.loading import load_version, shaped, shaping
from topologies.versions.naming import as_version, check_version, own_topics
from topologies.versions.register import Version, entry, now_ms, read_register, write_register

CAUGHT_UP_S: Final = 2.0
LOOK_EVERY_S: Final = 0.25
SILENT_S: Final = 15.0


@dataclass(frozen=True)
class Wanted:
    """A version to build: of the topology named `name`, loaded as `load`."""

    name: str
    version: str
    load: str
    topology: Topology
    settings: Settings
    is_new: bool

    @property
    def family(self) -> str:
        """The topology that it is a version of."""
        return self.topology.family

    @property
    def sources(self) -> set[str]:
        """The topics that it reads and does not write itself."""
        own = set(self.topology.renamed.values())
        return {source.topic.name for source in self.topology.sources.values() if source.topic.name not in own}


@dataclass(frozen=True)
class Standing:
    """How far a version has come: of each source partition what it holds, and what the version has committed.

    `age_s`: since when it is known to have had everything; None: it has not yet.
    """

    held: Mapping[TP, Stretch]
    committed: Mapping[TP, int]
    age_s: float | None

    def done(self, tp: TP) -> int:
        """Records of a partition that it has."""
        return max(0, self.committed.get(tp, 0) - self.held[tp].first)

    @property
    def left(self) -> int:
        """Records that it does not have."""
        return sum(max(0, one.end - max(one.first, self.committed.get(tp, 0))) for tp, one in self.held.items())

    @property
    def caught_up(self) -> bool:
        """Whether it follows the sources closely."""
        return self.age_s is not None and self.age_s < CAUGHT_UP_S


def plan(name: str, version: str, settings: Settings, load: str | None = None) -> Wanted:
    """What is to be built, or built on. Raises MillraceError for what cannot be."""
    check_version(version)
    if version == FIRST:
        raise MillraceError(f"{FIRST} is the topology as `millrace worker {name}` runs it: build v2, or a later one")
    first = load_topology(name, settings)
    register = read_register(settings.cluster, settings.prefix)
    kept = register.versions.get((first.name, version))
    if kept is None or kept.dropped:
        made = as_version(load_topology(load or name, settings), first.name, version)
        if kept is not None:
            _refuse_left(made, settings)
        return Wanted(name, version, load or name, made, settings, is_new=True)
    if load is not None and load != kept.load:
        raise MillraceError(f"{version} of {name} was made of {kept.load}: give another version to {load}, or drop it")
    topology = load_version(first, version, settings, register)
    return Wanted(name, version, kept.load, topology, shaped(settings, kept.settings), is_new=False)


def _refuse_left(made: Topology, settings: Settings) -> None:
    """Raise MillraceError where something is left of a version that was dropped: it would pass for the new one's."""
    left = {topic.name for topic in own_topics(made)}.intersection(topic_names(Admin(settings.cluster)))
    if left:
        raise MillraceError(
            f"{made.version} of {made.family} is not dropped whole, {min(left)} is still there: "
            f"`millrace replay drop {made.version}` drops the rest"
        )


def lost_before(wanted: Wanted) -> dict[TP, int]:
    """The first offset of each source partition that does not reach back to its beginning.

    Raises MillraceError for a source that is not there.
    """
    shared = [tp for tp in source_partitions(wanted.topology.group) if tp.topic in wanted.sources]
    missing = missing_topics(wanted.settings.cluster, {tp.topic for tp in shared})
    if missing:
        raise MillraceError(f"topic {min(missing)!r} is not there to build from: see `millrace topics list`")
    return {tp: one.first for tp, one in stretches(Admin(wanted.settings.cluster), shared).items() if one.first}


def begin(wanted: Wanted) -> None:
    """Make its topics, and write down that there is this version and how it is loaded. Raises MillraceError."""
    try:
        asyncio.run(ensure_all(wanted.settings.cluster, wanted.topology))
    except LogError as error:
        raise MillraceError(f"its topics cannot be looked at: {error}; see `millrace doctor`") from error
    if not wanted.is_new:
        return
    kept = Version(wanted.load, wanted.name, shaping(wanted.settings), now_ms())
    settings = wanted.settings
    write_register(settings.cluster, settings.prefix, entry("version", wanted.family, wanted.version, value=kept))


def start_workers(children: Children, wanted: Wanted, count: int, bound_s: float) -> None:
    """Start workers of the version, which give way to the one that is served."""
    options = ["--as", wanted.version, "--give-way", str(bound_s)]
    for number in range(count):
        children.start(f"{wanted.family}-{wanted.version}-{number}", ["worker", wanted.name, *options])


def watch(wanted: Wanted) -> Iterator[Standing]:
    """How far the version is, again and again. Raises MillraceError for a cluster that does not say so for a while."""
    admin, tps = Admin(wanted.settings.cluster), source_partitions(wanted.topology.group)
    behind, heard = Behind(tps), time.monotonic()
    while True:
        at = time.time()
        try:
            held = stretches(admin, tps)
            committed = committed_offsets(admin, wanted.topology.name)
        except MillraceError:  # leaders of topics that were just made are not known everywhere
            if time.monotonic() - heard > SILENT_S:
                raise
        else:
            heard = time.monotonic()
            yield Standing(held, committed, behind.look(at, {tp: one.end for tp, one in held.items()}, committed))
        time.sleep(LOOK_EVERY_S)
