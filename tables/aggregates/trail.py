"""What was touched, and when first: distinct (action, thing) pairs, the earliest of them."""

from dataclasses import dataclass
from typing import Any

from tables.aggregates.aggregate import Aggregate

Step = tuple[int, str, str]
"""`(time in ms, action, thing)`"""
Steps = list[Any]
"""A state: `[bound, {(action, thing): first time in ms}]`; `bound` is None until something was dropped."""


@dataclass(frozen=True)
class Trail(Aggregate[Steps]):
    """The first time of each (action, thing), of the `cap` earliest pairs by (first time, action, thing).

    What is added is `(time in ms, action, thing)`. A pair keeps its smallest time only, so a thousand clicks on one
    product are one step. `dropped` says that there were more than `cap` pairs. Which are kept depends on no order:
    first times only fall, so a pair of the final `cap` is among the known `cap` from its first event on.

    Once something was dropped, `bound` is a step that nothing dropped later than it can come before: what lies
    beyond it is passed over at once, however long a bot goes on.

    >>> trail = Trail(2)
    >>> state = trail.initial()
    >>> for step in [(30, "viewed", "7"), (10, "carted", "7"), (20, "viewed", "7"), (40, "viewed", "8")]:
    ...     state = trail.add(state, step)
    >>> trail.result(state)
    {'steps': [[10, 'carted', '7'], [20, 'viewed', '7']], 'dropped': True}
    """

    cap: int = 100

    def __post_init__(self) -> None:
        if self.cap < 1:
            raise ValueError(f"Trail keeps at least one step: cap is {self.cap}, give 1 or more")

    def initial(self) -> Steps:
        """Nothing touched, nothing dropped."""
        return [None, {}]

    def add(self, state: Steps, value: Step | None) -> Steps:
        """One step more, in place."""
        if value is None:
            return state
        at, action, thing = value
        firsts = state[1]
        known = firsts.get((action, thing))
        if known is None:
            if state[0] is not None and value > state[0]:
                return state
            firsts[action, thing] = at
            if len(firsts) > self.cap:
                self._drop(state)
        elif at < known:
            firsts[action, thing] = at
        return state

    def merge(self, a: Steps, b: Steps) -> Steps:
        """A new state of the earliest pairs of both."""
        firsts = dict(a[1])
        for pair, at in b[1].items():
            if at < firsts.get(pair, at + 1):
                firsts[pair] = at
        merged: Steps = [None, firsts]
        if a[0] is not None or b[0] is not None:
            merged[0] = max(_steps(firsts))
        while len(firsts) > self.cap:
            self._drop(merged)
        return merged

    def result(self, state: Steps) -> dict[str, Any]:
        """`steps`, a list of `[time, action, thing]` by time, and `dropped`."""
        return {"steps": [list(step) for step in sorted(_steps(state[1]))], "dropped": state[0] is not None}

    def dump(self, state: Steps) -> list[Any]:
        """`[dropped, steps]`, the steps sorted: equal states have equal bytes."""
        return [state[0] is not None, sorted(_steps(state[1]))]

    def load(self, raw: Any) -> Steps:
        """The state again; a bound is its last step."""
        dropped, steps = raw
        firsts = {(action, thing): at for at, action, thing in steps}
        return [tuple(steps[-1]) if dropped else None, firsts]

    def describe(self) -> str:
        """`trail` with its cap."""
        return f"trail(cap={self.cap})"

    def add_source(self, slot: str, value: str, this: str) -> str:
        """A call, for steps only."""
        return f"if {value} is not None: {this}.add({slot}, {value})"

    @staticmethod
    def _drop(state: Steps) -> None:
        firsts = state[1]
        _, action, thing = max(_steps(firsts))
        del firsts[action, thing]
        state[0] = max(_steps(firsts))


def _steps(firsts: dict[tuple[str, str], int]) -> list[Step]:
    return [(at, action, thing) for (action, thing), at in firsts.items()]
