"""Loading a version of a topology: what was declared when it was made, with the settings that it was made with."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from streams.errors import MillraceError
from streams.topics import missing_topics
from topologies.loading import load_topology
from topologies.settings import Settings
from topologies.topology import FIRST, Topology
from topologies.versions.naming import as_version, check_version
from topologies.versions.register import Register, Version, read_register

# The settings that decide what a topology counts. A worker and a view server of a version have to agree on them.
SHAPING: Final = (
    "slice_s",
    "grace_s",
    "retention_s",
    "max_ahead_s",
    "currency",
    "session_gap_s",
    "cart_timeout_s",
    "alert_window_s",
    "alert_orders",
    "alert_amount",
    "half_life_days",
)


def shaping(settings: Settings) -> dict[str, Any]:
    """What of the settings a version keeps."""
    return {name: getattr(settings, name) for name in SHAPING}


def shaped(settings: Settings, kept: Mapping[str, Any]) -> Settings:
    """The settings with what a version kept of those that it was made with."""
    return replace(settings, **{name: value for name, value in kept.items() if name in SHAPING})


def first_version(register: Register, named: str | None, settings: Settings) -> Topology:
    """The first version of the topology that is named, else of the only one that has others.

    Raises MillraceError where that does not say which.
    """
    if named is not None:
        return load_topology(named, settings)
    known = [name for name in register.topologies if register.first_of(name) is not None]
    if len(known) == 1:
        return load_topology(register.first_of(known[0]) or known[0], settings)
    if known:
        names = ", ".join(sorted(register.first_of(name) or name for name in known))
        raise MillraceError(f"several topologies have versions: say which with --topology ({names})")
    raise MillraceError("no topology has versions here: `millrace replay analytics --as v2` makes one of analytics")


def load_version(
    first: Topology, version: str, settings: Settings, register: Register, *, dropped: bool = False
) -> Topology:
    """A version of the topology `first`, which is its own first one. Raises MillraceError where there is none.

    One that was dropped is none, except to who asks for `dropped` ones too: of those something may be left.
    """
    check_version(version)
    known = register.known(first.name, dropped=dropped)
    if version not in known:
        raise MillraceError(
            f"there is no version {version} of {first.name}: there are {', '.join(known) or 'none'}; "
            f"`millrace replay <topology> --as {version}` makes it"
        )
    return first if version == FIRST else load_as(first, version, known[version], settings)


def load_as(first: Topology, version: str, kept: Version, settings: Settings) -> Topology:
    """The version that is kept like this. Raises MillraceError where it cannot be loaded."""
    return as_version(load_topology(kept.load, shaped(settings, kept.settings)), first.name, version)


def refuse_dropped(first: Topology, named: str, settings: Settings) -> None:
    """Raise MillraceError for a first version that was dropped: a worker would make all of it anew."""
    if not missing_topics(settings.cluster, [first.group.progress.name]):
        return
    register = read_register(settings.cluster, settings.prefix)
    if FIRST not in register.known(first.name):
        served = register.served(first.name).version
        raise MillraceError(
            f"{FIRST} of {named} was dropped, {served} is served: start `millrace worker {named} --as {served}`"
        )
