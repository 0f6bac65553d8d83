"""What a rule decides on: one cell of a table, and what may be looked at beside it.

A *decision* is a pure function from a candidate to records (key, value) of a derived topic, upserts with
deterministic keys; a value of None is a tombstone. It decides what falls due at times in `(since, until]`, where all
slices before `until` are closed: no event earlier than `until` can come any more. Cells may already hold events from
`until` on, some of them or all. So a decision must be a function of the events before `until` alone: then it does not
matter when decisions are taken, nor how often again, and what all of them emit is a function of the events.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

Emission = tuple[bytes, bytes | None]

EARLY_FROM = 2**53
"""Event times are below this: an `until` of at least this asks for an early opinion on all that is known so far."""


class Candidate(Protocol):
    """One cell: `states` by the place of the table's aggregates; all times in ms."""

    @property
    def window(self) -> int:
        """The start of the cell's slice."""
        ...

    @property
    def key(self) -> str:
        """The cell's key."""
        ...

    @property
    def states(self) -> Sequence[Any]:
        """Its aggregates' states, not to be changed."""
        ...

    @property
    def since(self) -> int:
        """What fell due until then was decided before."""
        ...

    @property
    def until(self) -> int:
        """What falls due until then is to be decided."""
        ...

    @property
    def look(self) -> Callable[[str, int], Sequence[Any] | None]:
        """`(table, slice start) -> states` of the same key in this partition, or None."""
        ...


Decide = Callable[[Candidate], Iterable[Emission]]
