"""Quantiles: the buckets of a DDSketch (Masson, Rim, Lee, VLDB 2019), kept as a dict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ddsketch.mapping import LogarithmicMapping

from tables.aggregates.aggregate import Aggregate

Buckets = dict[int, int]
Memo = dict[int | float, int]

# Below every index that a positive float can have (-35,000 at an accuracy of 1%), so that it sorts first.
ZERO = -(2**31)

# Values repeat (prices, order totals), and a look-up costs a tenth of the logarithm. 65,536 take about 6 MB.
MEMO = 65_536


@dataclass(frozen=True)
class Quantiles(Aggregate[Buckets]):
    """Quantiles of numbers >= 0, each within `accuracy` of the true one; None when empty.

    The state counts values per bucket: bucket i holds (g**(i-1), g**i], g = (1 + accuracy) / (1 - accuracy),
    a bucket of its own holds 0. Counts add up, so the result is free of order. `ranks` are read only by
    `result`, they can change without a new state. A negative or endless value raises ValueError.

    >>> quantiles = Quantiles()
    >>> state = quantiles.initial()
    >>> for amount in range(1, 1001):
    ...     state = quantiles.add(state, amount)
    >>> {rank: round(value) for rank, value in quantiles.result(state).items()}
    {'p50': 498, 'p90': 907, 'p99': 983}
    """

    accuracy: float = 0.01
    ranks: tuple[float, ...] = (0.5, 0.9, 0.99)
    memo: Memo = field(default_factory=dict, init=False, repr=False, compare=False)
    _mapping: LogarithmicMapping = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0.0001 <= self.accuracy <= 0.5:
            raise ValueError(f"Quantiles takes an accuracy of 0.0001 to 0.5, 0.01 is 1%: got {self.accuracy}")
        if not self.ranks or not all(0 <= rank <= 1 for rank in self.ranks):
            raise ValueError(f"Quantiles takes ranks between 0 and 1, such as (0.5, 0.99): got {self.ranks}")
        object.__setattr__(self, "_mapping", LogarithmicMapping(self.accuracy))

    def initial(self) -> Buckets:
        """No buckets."""
        return {}

    def bucket(self, value: int | float) -> int:
        """The bucket of a value, kept in `memo`; raises ValueError when it is negative or not finite."""
        if not 0 <= value <= self._mapping.max_possible:
            raise ValueError(f"Quantiles takes numbers of 0 and above, None adds nothing: got {value}")
        index = ZERO if value < self._mapping.min_possible else self._mapping.key(value)
        if len(self.memo) >= MEMO:
            self.memo.clear()
        self.memo[value] = index
        return index

    def add(self, state: Buckets, value: int | float | None) -> Buckets:
        """One value more in its bucket, in place."""
        if value is not None:
            index = self.bucket(value)
            state[index] = state.get(index, 0) + 1
        return state

    def merge(self, a: Buckets, b: Buckets) -> Buckets:
        """The counts of both added up."""
        return self.merge_all((a, b))

    def merge_all(self, states: Sequence[Buckets]) -> Buckets:
        """The counts of all added up."""
        merged: Buckets = {}
        for state in states:
            for index, count in state.items():
                merged[index] = merged.get(index, 0) + count
        return merged

    def result(self, state: Buckets) -> dict[str, float] | None:
        """The value at each rank, as `{"p50": 49876.1, ...}`."""
        if not state:
            return None
        return {f"p{rank * 100:g}": self._value(index) for rank, index in self._indices(state)}

    def describe(self) -> str:
        """`quantiles` with its accuracy; ranks shape no state."""
        return f"quantiles(ddsketch, accuracy={self.accuracy!r})"

    def add_source(self, slot: str, value: str, this: str) -> str:
        """Two dict look-ups in place; a call only for a value not in `memo`."""
        # No try around the count: half of the buckets of a cell with few events are new, and an exception
        # costs more than the whole rest.
        return (
            f"if {value} is not None:\n"
            f"    try: _bucket = {this}.memo[{value}]\n"
            f"    except KeyError: _bucket = {this}.bucket({value})\n"
            f"    _counts = {slot}\n"
            f"    if _bucket in _counts: _counts[_bucket] += 1\n"
            f"    else: _counts[_bucket] = 1"
        )

    def _indices(self, state: Buckets) -> Iterator[tuple[float, int]]:
        ordered = sorted(state.items())
        total = sum(state.values())
        for rank in self.ranks:
            below, target = 0, rank * (total - 1)
            for index, count in ordered:
                below += count
                if below > target:
                    yield rank, index
                    break

    def _value(self, index: int) -> float:
        # Six digits are far finer than the accuracy, and hide the last bit, where maths libraries may differ.
        return 0.0 if index == ZERO else float(f"{self._mapping.value(index):.6g}")
