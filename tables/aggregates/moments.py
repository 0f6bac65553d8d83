"""The earliest moments: a bounded set of tuples that begin with a time."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

from tables.aggregates.aggregate import Aggregate

Moment = tuple[Any, ...]
Kept = list[Any]
"""A state: `[dropped, moments]`, the moments sorted."""


@dataclass(frozen=True)
class Moments(Aggregate[Kept]):
    """The `cap` smallest of a set of flat tuples `(time in ms, ...)`, in order; `dropped` says there were more.

    It is a set: a tuple that comes again changes nothing, so give it an id where two may be alike. The places of
    all tuples hold the same types, ints or strings, so that any two compare.

    >>> moments = Moments(2)
    >>> moments.result(moments.merge([False, [(5, "a")]], [False, [(3, "b"), (9, "c")]]))
    {'moments': [[3, 'b'], [5, 'a']], 'dropped': True}
    """

    cap: int = 100

    def __post_init__(self) -> None:
        if self.cap < 1:
            raise ValueError(f"Moments keeps at least one tuple: cap is {self.cap}, give 1 or more")

    def initial(self) -> Kept:
        """No moments, none dropped."""
        return [False, []]

    def add(self, state: Kept, value: Moment | None) -> Kept:
        """The tuple takes its place in the list, in place, and the largest beyond `cap` leaves."""
        if value is None:
            return state
        moments = state[1]
        if len(moments) == self.cap and value > moments[-1]:
            state[0] = True
            return state
        place = bisect_left(moments, value)
        if place == len(moments) or moments[place] != value:
            moments.insert(place, value)
            if len(moments) > self.cap:
                state[0] = True
                moments.pop()
        return state

    def merge(self, a: Kept, b: Kept) -> Kept:
        """A new state of the smallest of both sets."""
        moments = sorted({*a[1], *b[1]})
        return [a[0] or b[0] or len(moments) > self.cap, moments[: self.cap]]

    def result(self, state: Kept) -> dict[str, Any]:
        """`moments`, a sorted list of lists, and `dropped`."""
        return {"moments": [list(moment) for moment in state[1]], "dropped": state[0]}

    def load(self, raw: Any) -> Kept:
        """The tuples again."""
        dropped, moments = raw
        return [dropped, [tuple(moment) for moment in moments]]

    def describe(self) -> str:
        """`moments` with its cap."""
        return f"moments(cap={self.cap})"

    def add_source(self, slot: str, value: str, this: str) -> str:
        """A call, for tuples only."""
        return f"if {value} is not None: {this}.add({slot}, {value})"
