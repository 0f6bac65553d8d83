"""Dropping a version: its topics, its group and what this machine keeps of it, once nobody needs them any more."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streams.admin.connection import Admin, answers
from streams.admin.groups import committed_offsets, list_groups, members_of
from streams.admin.topics import delete_topics, topic_names
from streams.errors import MillraceError
from topologies.settings import Settings
from topologies.topology import Topology
from topologies.versions.naming import own_topics
from topologies.versions.register import Register, Version, entry, now_ms, read_register, write_register


@dataclass(frozen=True)
class Dropping:
    """What is deleted with a version."""

    topology: Topology
    topics: Sequence[str]
    group: str | None
    directory: Path | None


def plan_drop(topology: Topology, settings: Settings) -> Dropping:
    """What there is of a version, to be deleted. Raises MillraceError where somebody needs it, or nothing is left."""
    admin = Admin(settings.cluster)
    present = set(topic_names(admin))
    topics = [topic.name for topic in own_topics(topology) if topic.name in present]
    register = read_register(settings.cluster, settings.prefix)
    refuse_served(register, topology)
    _refuse_used(topology, topics, admin)
    group = topology.name if topology.name in {one.name for one in list_groups(admin)} else None
    directory = Path(settings.state_dir) / topology.name
    found = Dropping(topology, topics, group, directory if directory.is_dir() else None)
    if topology.version not in register.known(topology.family) and not (topics or group or found.directory):
        raise MillraceError(f"{topology.version} of {topology.family} was dropped, and nothing of it is left here")
    return found


def refuse_served(register: Register, topology: Topology) -> None:
    """Raise MillraceError for a version that is served, or that a view server still has."""
    version = topology.version
    if register.served(topology.family).version == version:
        raise MillraceError(f"{version} of {topology.family} is served: switch to another version first")
    for name, seen in register.serving(topology.family, now_ms()).items():
        if version in (seen.version, seen.moving):
            raise MillraceError(f"view server {name} still has {version} of {topology.family}: wait until it has moved")


def _refuse_used(topology: Topology, topics: Sequence[str], admin: Admin) -> None:
    members = members_of(admin, topology.name)
    if members:
        names = ", ".join(member.name for member in members)
        raise MillraceError(f"{topology.version} of {topology.family} has workers ({names}): stop them first")
    for group in list_groups(admin):
        read = {tp.topic for tp in committed_offsets(admin, group.name)} & set(topics)
        if group.name != topology.name and read:
            raise MillraceError(
                f"group {group.name} reads {min(read)}, which only {topology.version} of {topology.family} writes: "
                "let it read another, or keep this version"
            )


def drop(dropping: Dropping, settings: Settings) -> None:
    """Delete it. Started again after it was ended in the middle, it deletes the rest. Raises MillraceError."""
    topology, admin = dropping.topology, Admin(settings.cluster)
    register = read_register(settings.cluster, settings.prefix)
    # asked once more: whoever was to agree to the plan may have taken a while
    refuse_served(register, topology)
    _refuse_used(topology, dropping.topics, admin)
    kept = register.known(topology.family, dropped=True).get(topology.version, Version())
    first = register.first_of(topology.family) or ""
    gone = Version(kept.load, first, kept.settings, now_ms(), dropped=True)
    # first, so that no worker and no view server makes them anew in between
    write_register(settings.cluster, settings.prefix, entry("version", topology.family, topology.version, value=gone))
    if dropping.topics:
        delete_topics(admin, dropping.topics)
    if dropping.group is not None:
        answers(admin.client.delete_consumer_groups([dropping.group]), f"group {dropping.group} cannot be deleted")
    if dropping.directory is not None:
        shutil.rmtree(dropping.directory, ignore_errors=True)
