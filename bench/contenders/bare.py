"""What both bare loops do with records."""

from collections.abc import Iterable, Mapping

import msgspec
from orjson import loads

from bench.measure import Outcome, Sum

Sums = dict[tuple[int, str], int]


def add_up(sums: Sums, values: Iterable[bytes]) -> None:
    """Add revenue by (minute start in ms, category)."""
    for value in values:
        order = loads(value)
        at = order["occurredAt"]
        minute = at - at % 60_000
        for line in order["items"]:
            sums[minute, line["category"]] += line["price"] * line["quantity"]


def with_sums(stopped: Outcome, sums: Sums, positions: Mapping[int, int]) -> Outcome:
    """An outcome with what was added up."""
    found = [Sum(minute, category, revenue) for (minute, category), revenue in sums.items()]
    return msgspec.structs.replace(stopped, positions=dict(positions), sums=found)
