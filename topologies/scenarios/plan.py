"""What a scenario is made of, in numbers."""

from dataclasses import dataclass, field
from typing import Final, Literal

from streams.errors import MillraceError
from streams.partitioners import Partitioner

Name = Literal["one-to-one", "one-to-many", "many-to-many"]
# Each consumer is a process of 30 MB, each producer a thread with a connection.
MOST: Final = {"producers": 32, "partitions": 1_000, "consumers": 32, "records": 1_000_000, "keys": 100_000}


@dataclass(frozen=True)
class Spreader:
    """A partitioner and what to call it; None is the producer's own, the key's hash."""

    name: str
    partitioner: Partitioner | None


@dataclass(frozen=True)
class Plan:
    """One scenario. ``session_s`` is after how long without a heartbeat the broker takes a consumer for dead.

    Raises MillraceError for numbers that cannot be, and for a death without a survivor.
    """

    name: Name
    producers: int = 1
    partitions: int = 1
    consumers: int = 1
    records: int = 300
    keys: int = 12
    kill: bool = False
    session_s: float = 6.0
    seed: int = 1
    spreaders: tuple[Spreader, ...] = field(default=(Spreader("key-hash", None),))

    def __post_init__(self) -> None:
        """Check every number."""
        for what, most in MOST.items():
            if not 1 <= getattr(self, what) <= most:
                raise MillraceError(f"--{what} must be between 1 and {most:,}, not {getattr(self, what):,}")
        if self.kill and self.consumers < 2:
            raise MillraceError("--kill needs a second consumer, to whom the partitions can move: give --consumers 2")
        if not 1 <= self.session_s <= 300:
            raise MillraceError(f"--session must be between 1 and 300 s, not {self.session_s:g}")

    @property
    def stages(self) -> tuple[int, ...]:
        """How many consumers there are when ownership is looked at: fewer than partitions, as many, more.

        >>> Plan("one-to-many", partitions=4, consumers=6).stages
        (1, 2, 4, 6)
        """
        sizes = {1, self.partitions // 2, self.partitions, self.consumers}
        return tuple(sorted(size for size in sizes if 1 <= size <= self.consumers))

    @property
    def consumer_names(self) -> tuple[str, ...]:
        """All of them, in the order in which they join; padded, so that their order is that of their numbers."""
        width = len(str(self.consumers))
        return tuple(f"consumer-{number:0{width}}" for number in range(1, self.consumers + 1))
