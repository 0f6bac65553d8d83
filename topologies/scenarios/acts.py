"""What a scenario tells: one value an act, for text and for JSON."""

from collections.abc import Mapping
from dataclasses import dataclass

from topologies.scenarios.ownership import Ownership
from topologies.scenarios.spreading import Spread


@dataclass(frozen=True)
class Opening:
    """What was made for the scenario, and where."""

    bootstrap: str
    topic: str
    group: str


@dataclass(frozen=True)
class Stage:
    """Who owns what with so many consumers, by the broker; ``seconds`` from their start until it was settled."""

    consumers: int
    partitions: int
    ownership: Ownership
    seconds: float

    @property
    def relation(self) -> str:
        """Consumers against partitions, in words."""
        if self.consumers == self.partitions:
            return "as many consumers as partitions"
        return f"{'fewer' if self.consumers < self.partitions else 'more'} consumers than partitions"


@dataclass(frozen=True)
class Spreading:
    """How one partitioner spread its records, and how many of them each consumer read."""

    partitioner: str
    sent: int
    spread: Spread
    read_by: Mapping[str, int]


@dataclass(frozen=True)
class Death:
    """A consumer that was killed under load. Times are in seconds.

    ``noticed_s``: until the broker no longer counted it; ``settled_s``: until its partitions were others';
    ``waited_s``: how long the record that waited longest in them was not read, ``others_waited_s`` in all others.
    ``again`` were read twice, ``lost`` never; ``out_of_order`` keys were not read in their order the first time.
    """

    consumer: str
    pid: int
    owned: tuple[int, ...]
    noticed_s: float
    settled_s: float
    ownership: Ownership
    waited_s: float
    others_waited_s: float
    sent: int
    again: int
    lost: int
    out_of_order: int

    @property
    def moved(self) -> dict[int, str | None]:
        """Whose each of its partitions is now."""
        return {partition: self.ownership.owner(partition) for partition in self.owned}


@dataclass(frozen=True)
class Closing:
    """Topic and group are gone."""

    topic: str
    group: str


Act = Opening | Stage | Spreading | Death | Closing
