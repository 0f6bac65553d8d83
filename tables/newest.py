"""The newest partial of each source partition, for the second stage of an aggregation."""

from dataclasses import dataclass
from typing import Any

from tables.accumulators import stamp_of
from tables.aggregates import Aggregate

Partials = dict[int, bytes]


@dataclass(frozen=True)
class NewestBySource(Aggregate[Partials]):
    """For each source partition the partial with the highest stamp; what is added is `(partition, partial)`.

    Adding the same partial again, or an older one later, changes nothing.
    """

    def initial(self) -> Partials:
        """No partial yet."""
        return {}

    def add(self, state: Partials, value: tuple[int, bytes] | None) -> Partials:
        """Keep the partial if it is newer than its partition's."""
        if value is not None:
            partition, partial = value
            known = state.get(partition)
            if known is None or stamp_of(partial) > stamp_of(known):
                state[partition] = partial
        return state

    def merge(self, a: Partials, b: Partials) -> Partials:
        """The newest of both, for each partition."""
        merged = dict(a)
        for item in b.items():
            self.add(merged, item)
        return merged

    def result(self, state: Partials) -> list[int]:
        """Which source partitions have a part in the key."""
        return sorted(state)

    def dump(self, state: Partials) -> list[tuple[int, bytes]]:
        """Pairs in the order of their partitions."""
        return sorted(state.items())

    def load(self, raw: Any) -> Partials:
        """Read what `dump` wrote."""
        return {int(partition): bytes(partial) for partition, partial in raw}

    def describe(self) -> str:
        """The name; there are no parameters."""
        return "newest-by-source"
