"""The k largest values with their ids."""

from bisect import insort
from dataclasses import dataclass
from typing import Any

from tables.aggregates.aggregate import Aggregate

Ranked = tuple[int | float, int | str]


def _rank(pair: Ranked) -> tuple[int | float, bool, int | str]:
    value, key = pair
    return value, isinstance(key, str), key


@dataclass(frozen=True)
class TopK(Aggregate[list[Ranked]]):
    """The `k` largest of a set of `(value, id)` pairs, by value, then id (int ids rank below string ids).

    It is a set: a pair that comes again changes nothing, and one id may stand in it with several values. Use
    an id that names the thing ranked (an order), not a key to sum over.

    >>> top = TopK(2)
    >>> top.result(top.merge([(5, "a")], [(3, "b"), (9, "c")]))
    [[9, 'c'], [5, 'a']]
    """

    k: int = 10

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"TopK keeps at least one pair: k is {self.k}, give 1 or more")

    def initial(self) -> list[Ranked]:
        """An empty list; states are sorted, smallest first."""
        return []

    def add(self, state: list[Ranked], value: Ranked | None) -> list[Ranked]:
        """The pair takes its place in the list, in place, and the smallest beyond `k` leaves."""
        if value is None:
            return state
        if state and value[0] > state[-1][0]:  # as times mostly come: it cannot be there yet, and belongs at the end
            state.append(value)
            if len(state) > self.k:
                del state[0]
            return state
        if (len(state) == self.k and value[0] < state[0][0]) or value in state:
            return state
        insort(state, value, key=_rank)
        del state[: -self.k]
        return state

    def merge(self, a: list[Ranked], b: list[Ranked]) -> list[Ranked]:
        """The `k` largest of both sets."""
        return sorted({*a, *b}, key=_rank)[-self.k :]

    def result(self, state: list[Ranked]) -> list[list[Any]]:
        """`[value, id]` lists, largest first."""
        return [list(pair) for pair in reversed(state)]

    def load(self, raw: Any) -> list[Ranked]:
        """The tuples again."""
        return [(value, key) for value, key in raw]

    def describe(self) -> str:
        """`top-k` with its k."""
        return f"top-k(k={self.k})"

    def add_source(self, slot: str, value: str, this: str) -> str:
        """A new largest value in place, as times mostly come; a call for any other."""
        return (
            f"if {value} is not None:\n"
            f"    if {slot} and {value}[0] > {slot}[-1][0]:\n"
            f"        {slot}.append({value})\n"
            f"        if len({slot}) > {self.k}: del {slot}[0]\n"
            f"    else: {this}.add({slot}, {value})"
        )
