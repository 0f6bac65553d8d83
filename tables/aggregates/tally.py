"""How often each key came, the frequent ones at least: counts in bounded memory with an error bound."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tables.aggregates.aggregate import Aggregate

Counts = list[Any]
"""A state: `[{key: count}, error]`."""


@dataclass(frozen=True)
class Tally(Aggregate[Counts]):
    """Counts by key, at most `2 * cap` of them: a count is never too high, and too low by at most `error`.

    What is added is the keys of one event, a list of distinct strings. While no more than `2 * cap` keys came, counts
    are exact and `error` is 0. When there are more, the (cap + 1)-th largest count is taken from all, those not above
    it are forgotten, and it is added to the error (Misra and Gries 1982, in the mergeable form of Agarwal et al. 2012,
    put off until twice the cap is reached: paid once in `cap` keys). As each such cut takes its amount from
    `cap + 1` counts at least, `error <= (sum of all counts) / (cap + 1)` in whatever order keys come and states merge;
    within that bound counts do depend on the order.

    >>> tally = Tally(1)
    >>> state = tally.initial()
    >>> for keys in [["a", "b"], ["a"], ["a", "c"]]:
    ...     state = tally.add(state, keys)
    >>> tally.result(state)
    {'counts': {'a': 2}, 'error': 1}
    """

    cap: int = 500

    def __post_init__(self) -> None:
        if self.cap < 1:
            raise ValueError(f"Tally keeps at least one key: cap is {self.cap}, give 1 or more")

    def initial(self) -> Counts:
        """No keys, no error."""
        return [{}, 0]

    def add(self, state: Counts, value: Iterable[str] | None) -> Counts:
        """One more for each of the keys, in place."""
        if not value:
            return state
        counts = state[0]
        for key in value:
            counts[key] = counts.get(key, 0) + 1
        if len(counts) > 2 * self.cap:
            self._cut(state)
        return state

    def merge(self, a: Counts, b: Counts) -> Counts:
        """A new state of the sums."""
        return self.merge_all((a, b))

    def merge_all(self, states: Sequence[Counts]) -> Counts:
        """A new state of all sums, cut once."""
        if not states:
            return self.initial()
        counts = dict(states[0][0])
        for state in states[1:]:
            for key, count in state[0].items():
                counts[key] = counts.get(key, 0) + count
        merged = [counts, sum(state[1] for state in states)]
        if len(counts) > 2 * self.cap:
            self._cut(merged)
        return merged

    def result(self, state: Counts) -> dict[str, Any]:
        """`counts` by key, largest first, and `error`."""
        ranked = sorted(state[0].items(), key=lambda item: (-item[1], item[0]))
        return {"counts": dict(ranked), "error": state[1]}

    def describe(self) -> str:
        """`tally` with its cap."""
        return f"tally(misra-gries, cap={self.cap})"

    def add_source(self, slot: str, value: str, this: str) -> str:
        """A call, where there are keys."""
        return f"if {value}: {this}.add({slot}, {value})"

    def _cut(self, state: Counts) -> None:
        counts, error = state
        cut = sorted(counts.values(), reverse=True)[self.cap]
        state[:] = [{key: count - cut for key, count in counts.items() if count > cut}, error + cut]
