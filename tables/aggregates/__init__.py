"""Aggregates: what an accumulator can remember of many events, merged exactly from any of its parts.

Rules, and why:

1. `merge` is associative and commutative, and the `result` of a state depends only on the values that went
   in, never on their order or on how they were split. A replay then equals the live run, and the partials of
   many partitions and slices add up in any order. `Tally` alone does so only up to its cap, and says how far
   it may be off beyond.
2. `add` may change its state in place and returns it, since it is the hot path. `merge`, `result` and `dump`
   change nothing: states are shared between windows and answers.
3. A value of None adds nothing.
4. `add_source` is the same as `add`, as Python source: the hot loop is generated from it and pays no call.
5. In `add` and `add_source`, everything that can raise comes before the state is touched.
"""

from tables.aggregates.aggregate import Aggregate
from tables.aggregates.distinct import Distinct
from tables.aggregates.last import Last
from tables.aggregates.moments import Moments
from tables.aggregates.numbers import Count, Max, Min, Sum
from tables.aggregates.quantiles import Quantiles
from tables.aggregates.tally import Tally
from tables.aggregates.topk import TopK
from tables.aggregates.trail import Trail

__all__ = [
    "Aggregate",
    "Count",
    "Distinct",
    "Last",
    "Max",
    "Min",
    "Moments",
    "Quantiles",
    "Sum",
    "Tally",
    "TopK",
    "Trail",
]
