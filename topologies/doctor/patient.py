"""Whom is looked at."""

from dataclasses import dataclass

from topologies.topology import Topology


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
    def sources(self) -> list[str]:
        """All topics that its group consumes, second stages included."""
        return sorted(source.topic.name for source in self.topology.group.sources)

    @property
    def worker(self) -> str:
        """The command that starts a worker of it."""
        return f"millrace worker {self.argument}"

    @property
    def replay(self) -> str:
        """The command that counts everything anew."""
        return f"millrace replay {self.argument} --from earliest"
