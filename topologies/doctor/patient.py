"""Whom is looked at: topologies, in all of their versions that there are."""

from collections.abc import Iterable
from dataclasses import dataclass

from topologies.settings import Settings
from topologies.topology import FIRST, Topology
from topologies.versions.loading import load_version
from topologies.versions.register import Register


@dataclass(frozen=True)
class Patient:
    """A topology, and what the command line calls it, so that a command can be named that takes it."""

    argument: str
    topology: Topology

    @property
    def name(self) -> str:
        """Its group's name."""
        return self.topology.name

    @property
    def version(self) -> str:
        """Which of the topology's versions it is."""
        return self.topology.version

    @property
    def sources(self) -> list[str]:
        """All topics that its group consumes, second stages included."""
        return sorted(source.topic.name for source in self.topology.group.sources)

    @property
    def worker(self) -> str:
        """The command that starts a worker of it."""
        return f"millrace worker {self.argument}" + (f" --as {self.version}" if self.version != FIRST else "")

    @property
    def replay(self) -> str:
        """The command that counts everything anew."""
        if self.version == FIRST:
            return f"millrace replay {self.argument} --from earliest"
        again = f"millrace replay {self.argument} --as {self.version}"
        return f"millrace replay drop {self.version} --topology {self.argument} && {again}"


def in_all_versions(patients: Iterable[Patient], register: Register, settings: Settings) -> list[Patient]:
    """Each topology in every version that was made and not dropped. Raises MillraceError where one cannot be loaded."""
    return [
        Patient(one.argument, load_version(one.topology, version, settings, register))
        for one in patients
        for version in register.known(one.name)
    ]
