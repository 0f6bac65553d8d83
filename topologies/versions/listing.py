"""What versions there are, as an operator wants to see them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from streams.admin.connection import Admin
from streams.admin.groups import GroupState, describe_group
from streams.errors import MillraceError
from topologies.settings import Settings
from topologies.versions.naming import group_name
from topologies.versions.register import Register, Seen, Version, now_ms

SERVED: Final = "served"
BEFORE: Final = "before"
BESIDE: Final = "beside"


@dataclass(frozen=True)
class Listed:
    """One version. `behind` counts records of its sources; None where its group has never committed."""

    topology: str
    version: str
    group: str
    state: Literal["served", "before", "beside"]
    load: str | None
    workers: int
    behind: int | None
    made_ms: int
    servers: Mapping[str, str] = field(default_factory=dict)


def listed(register: Register, settings: Settings, topology: str | None = None) -> list[Listed]:
    """Every version that is not dropped, by topology; of one topology if it is named. Raises MillraceError."""
    names = register.topologies if topology is None else [topology]
    admin = Admin(settings.cluster)
    admin.metadata()
    return [
        _listed(name, version, kept, register, admin)
        for name in names
        for version, kept in register.known(name).items()
    ]


def _listed(topology: str, version: str, kept: Version, register: Register, admin: Admin) -> Listed:
    served = register.served(topology)
    group = group_name(topology, version)
    found = _group(admin, group)
    servers = register.serving(topology, now_ms())
    return Listed(
        topology,
        version,
        group,
        SERVED if version == served.version else BEFORE if version == served.before else BESIDE,
        kept.load or register.first_of(topology),
        0 if found is None else len(found.members),
        None if found is None or not found.positions else found.lag,
        kept.at_ms,
        _servers(servers, version),
    )


def _servers(servers: Mapping[str, Seen], version: str) -> dict[str, str]:
    """The view servers that have it, and what they do with it."""
    found = {name: "serves" for name, seen in servers.items() if seen.version == version}
    moving = {name: f"moves there: {seen.waiting}" for name, seen in servers.items() if seen.moving == version}
    return dict(sorted((found | moving).items()))


def _group(admin: Admin, name: str) -> GroupState | None:
    try:
        return describe_group(admin, name)
    except MillraceError:
        return None
