"""The protocol of an aggregate: initialise, add, merge, result."""

from collections.abc import Sequence
from functools import reduce
from typing import Any, Protocol, TypeVar

S = TypeVar("S")


class Aggregate(Protocol[S]):
    """One named value of an accumulator; the object is frozen, its states are values that it makes.

    Subclass it to write your own.
    """

    def initial(self) -> S:
        """A new state that nothing was added to."""
        ...

    def add(self, state: S, value: Any) -> S:
        """The state with `value` added, which may be `state` itself, changed in place. None adds nothing."""
        ...

    def merge(self, a: S, b: S) -> S:
        """A state of all that went into `a` or `b`; neither is changed nor shared with the answer."""
        ...

    def merge_all(self, states: Sequence[S]) -> S:
        """A state of all that went into any of them, which stay as they are."""
        return reduce(self.merge, states, self.initial())

    def result(self, state: S) -> Any:
        """What a reader gets: a number, list or dict that JSON can write, or None when nothing was added."""
        ...

    def dump(self, state: S) -> Any:
        """The state in msgpack's types; by default the state itself."""
        return state

    def load(self, raw: Any) -> S:
        """The state that `dump` wrote, after a way through msgpack (tuples come back as lists)."""
        loaded: S = raw
        return loaded

    def describe(self) -> str:
        """Type and parameters that shape the state, in words that never change (a table's fingerprint)."""
        ...

    def add_source(self, slot: str, value: str, this: str) -> str:
        """Python statements that add the expression `value` into the assignable expression `slot`.

        `this` is the name of the aggregate. `slot` and `value` have no side effects and may be repeated;
        names that the statements assign start with an underscore.
        """
        return f"{slot} = {this}.add({slot}, {value})"
