"""The latest value by event time."""

from dataclasses import dataclass
from typing import Any

import msgspec

from tables.aggregates.aggregate import Aggregate

Stamped = tuple[int, int | str, Any]


def _rank(state: Stamped) -> tuple[int, bool, int | str, bytes]:
    # The value's bytes decide only between two values of one id at one time: no order of arrival may.
    at_ms, key, value = state
    return at_ms, isinstance(key, str), key, msgspec.msgpack.encode(value)


@dataclass(frozen=True)
class Last(Aggregate[Stamped | None]):
    """The value of the highest (event time in ms, id); what is added is `(event_time_ms, id, value)`.

    Ids are ints or strings (ints rank below strings), the value is anything that msgpack and JSON can write.
    None when empty.

    >>> last = Last()
    >>> last.result(last.add((2_000, "b", "paid"), (1_000, "a", "placed")))
    'paid'
    """

    def initial(self) -> Stamped | None:
        """None."""
        return None

    def add(self, state: Stamped | None, value: Stamped | None) -> Stamped | None:
        """The later of state and value."""
        if value is None or (state is not None and self._keeps(state, value)):
            return state
        return value

    def merge(self, a: Stamped | None, b: Stamped | None) -> Stamped | None:
        """The later of both."""
        return self.add(a, b)

    def result(self, state: Stamped | None) -> Any:
        """The latest value, or None."""
        return None if state is None else state[2]

    def load(self, raw: Any) -> Stamped | None:
        """The tuple again."""
        return None if raw is None else (raw[0], raw[1], raw[2])

    def describe(self) -> str:
        """`last`."""
        return "last"

    def add_source(self, slot: str, value: str, this: str) -> str:
        """A comparison of times in place; a call where there are two of one time."""
        return (
            f"if {value} is not None:\n"
            f"    if {slot} is None or {value}[0] > {slot}[0]: {slot} = {value}\n"
            f"    elif {value}[0] == {slot}[0]: {slot} = {this}.add({slot}, {value})"
        )

    @staticmethod
    def _keeps(state: Stamped, value: Stamped) -> bool:
        if state[0] != value[0]:
            return state[0] > value[0]
        return _rank(state) >= _rank(value)
