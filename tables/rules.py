"""Rules: derived records that are decided when event time says so, without timers and whatever dies in between.

What a rule needs to know is what plain exact tables keep. A *decision* is a pure function of one cell of its trigger
table and of cells beside it, taken at a flush when the watermarks have passed the time at which it falls due. Which
times are decided follows from what is durable alone: everything due in `(since, until]`, where `since` is how far all
slices of all the sources looked at were closed as of their *durable* progress, and `until` how far they are now. The
records are part of the flush before its progress, so none is ever missing, and what comes again after a crash, or
late from a zombie, has the same key and the same bytes: it was decided from the same closed events.

*Two sources* have closed what both have closed: `since` and `until` are the minimum over them (on a replay one topic
outruns the other). A source that never had an event in a partition has closed nothing there, and holds decisions up.

*What a decision may depend on.* Every event before `until` is in its cell, and no other can come. But cells may also
hold events at `until` or after: the slice that holds `until` is open where slices are wide, a batch runs ahead of the
watermark that has closed slices, and after a torn flush cells are ahead of the log. How many of those are there is
chance. So a decision must be a function of the events before `until` that are in the cells, and what it says of a due
time must be the same for every `until` from that time on. Slices that begin at `until` or later are never shown.

*What may be looked at* goes back from the cell's slice by `back_ms`; slices before that are never shown either, since
they may be dropped already or not yet. Tables that a rule looks at drop a slice only when it is `retention_s` behind
what is decided, not only behind their own watermark.

*Early* decisions give an opinion on cells as soon as they have changed, with an `until` of `EVER`. They are not
functions of closed cells, so they may be missing after a crash, and a zombie may send an old one late; the decision
that follows at its time repairs everything but the latter.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from streams.topics import Topic

# No event time comes near: an early decision is not limited.
EVER = 2**62

States = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One cell of the trigger table, to be decided on. Times in ms, states by position of the table's aggregates.

    To decide is what falls due in `(since, until]`, from events before `until` alone; states are not to be changed.
    `look(table, slice start)` has the states of the same key in this partition, None if nothing is there.
    """

    window: int
    key: str
    states: States
    since: int
    until: int
    look: Callable[[str, int], States | None]

    @property
    def early(self) -> bool:
        """Whether an opinion is asked for before the time has come."""
        return self.until == EVER


Decide = Callable[[Candidate], Iterable[tuple[bytes, bytes | None]]]
Dues = Callable[[int, States], Iterable[int]]


@dataclass(frozen=True)
class Rule:
    """A decision on the cells of one table of a group, and the topic of upserts that it writes.

    `decide` gives records (key, value), functions of its candidate; a value of None is a tombstone. A cell's events
    fall due after their own time, by 1 ms at the least and `due_ms` at the most. `looks_at` names the other tables that
    `decide` looks at, also of other, co-partitioned sources; `back_ms` is how far before the cell's slice (None: as far
    as retention allows).

    `dues(slice start, states)` spares work: the times at which the cell may have something to decide, given what is
    in it: for every due time that `decide` has something to say at, and whatever events of later times are in the
    cell too. Without it every cell is a candidate each time a slice closes, until `due_ms` after its end.
    """

    name: str
    topic: Topic
    table: str
    decide: Decide
    due_ms: int
    looks_at: tuple[str, ...] = ()
    early: bool = False
    back_ms: int | None = None
    dues: Dues | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for times that cannot be."""
        if self.due_ms < 1:  # an event at `until` is no event before it, and what is due at `until` is over after it
            raise ValueError(f"rule {self.name!r}: due_ms must be at least 1, not {self.due_ms}")
        if self.back_ms is not None and self.back_ms < 0:
            raise ValueError(f"rule {self.name!r}: back_ms must not be negative")

    @property
    def tables(self) -> tuple[str, ...]:
        """Every table that it reads, the trigger first."""
        return tuple(dict.fromkeys((self.table, *self.looks_at)))

    def reach_ms(self, slice_ms: int, retention_ms: int) -> int:
        """How far before a cell's slice may be looked, given the trigger's slices and the shortest retention.

        Raises ValueError where something that is to be decided, or looked at, may be dropped before.
        """
        longest = retention_ms - self.due_ms - slice_ms
        if longest < (self.back_ms or 0):
            needed = self.due_ms + slice_ms + (self.back_ms or 0)
            raise ValueError(
                f"rule {self.name!r}: its tables must be kept for {needed / 1000:g} s at least (what falls due, one "
                f"slice and how far it looks back), not {retention_ms / 1000:g} s"
            )
        return longest if self.back_ms is None else self.back_ms
