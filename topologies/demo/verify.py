"""Compare what the views answer with the simulator's ledger, cell by cell, over HTTP as any client would.

Money, orders and units must be equal. Distinct customers are an estimate (HyperLogLog, standard error 1.6%), and
quantiles are exact to 1% of their value (DDSketch): those must be within four standard errors and within 1%.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from streams.simulator.ledger import BY, Cell

EXACT = ("placed", "cancelled", "refunded", "orders", "units")
# Four standard errors of an HLL with 4,096 registers, and two customers for the small ones.
CUSTOMERS_OFF = 4 * 1.04 / math.sqrt(4096)
CUSTOMERS_OFF_ALWAYS = 2
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
QUANTILE_OFF = 0.0101

Rows = Callable[[str, int], list[dict[str, Any]]]


@dataclass
class Comparison:
    """How many values were compared, and what did not agree, in words."""

    cells: int = 0
    values: int = 0
    mismatches: list[str] = field(default_factory=list)


class Known(Protocol):
    """What is compared with: the exact cells of a grouping, by (slice start in ms, key)."""

    def cells(self, by: str) -> Mapping[tuple[int, str], Cell]:
        """All of them."""
        ...


def together(parts: Mapping[str, Comparison]) -> Comparison:
    """All of them as one; mismatches say which."""
    return Comparison(
        sum(part.cells for part in parts.values()),
        sum(part.values for part in parts.values()),
        [f"{name}: {mismatch}" for name, part in parts.items() for mismatch in part.mismatches],
    )


def compare(ledger: Known, rows_of: Rows) -> Comparison:
    """Compare every cell of every table; `rows_of(table, slice start)` asks the views."""
    found = Comparison()
    for by in BY:
        expected: dict[int, dict[str, Cell]] = {}
        for (start, key), cell in ledger.cells(by).items():
            expected.setdefault(start, {})[key] = cell
        for start in sorted(expected):
            answered = {row["key"]: row["values"] for row in rows_of(f"sales_by_{by}", start)}
            _compare_slice(found, f"sales_by_{by} {start}", expected[start], answered)
    return found


def _compare_slice(
    found: Comparison, where: str, expected: Mapping[str, Cell], answered: Mapping[str, Mapping[str, Any]]
) -> None:
    for key in sorted(expected.keys() | answered.keys()):
        found.cells += 1
        if key not in answered or key not in expected:
            found.values += 1
            found.mismatches.append(f"{where} {key!r}: only in the {'ledger' if key in expected else 'views'}")
            continue
        for problem in _compare_cell(found, expected[key], answered[key]):
            found.mismatches.append(f"{where} {key!r}: {problem}")


def _compare_cell(found: Comparison, cell: Cell, answer: Mapping[str, Any]) -> Iterator[str]:
    for name in EXACT:
        found.values += 1
        if getattr(cell, name) != answer[name]:
            yield f"{name} is {answer[name]}, must be {getattr(cell, name)}"
    if "customers" in answer:
        found.values += 1
        exact = len(cell.customers)
        if abs(answer["customers"] - exact) > max(CUSTOMERS_OFF_ALWAYS, CUSTOMERS_OFF * exact):
            yield f"customers is {answer['customers']}, must be about {exact}"
    if "order_value" in answer:
        yield from _compare_quantiles(found, sorted(cell.order_values), answer["order_value"])


def _compare_quantiles(found: Comparison, values: list[int], answer: Mapping[str, float] | None) -> Iterator[str]:
    found.values += 1
    if not values:
        if answer is not None:
            yield f"order_value is {answer}, must be null"
        return
    for name, rank in QUANTILES.items():
        exact = values[int(rank * (len(values) - 1))]
        if answer is None or abs(answer[name] - exact) > QUANTILE_OFF * exact:
            yield f"order_value {name} is {answer and answer[name]}, must be {exact} within 1%"
