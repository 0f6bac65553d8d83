"""What an explained number (`/api/explain`) comes to when it is counted again from the log, partition by partition."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tables.accumulators import EVENTS, FIRST, STAMP
from tables.recount import CannotRecount, Recount, Wanted, as_written, compared_by
from tables.table import Group, Table
from tables.windows import Window
from topologies.views.problems import to_json

AGREE: Final = "agree"
DIFFER: Final = "differ"
UNKNOWN: Final = "unknown"
Count = Callable[[Wanted], Recount]
Json = Mapping[str, Any]
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True)
class Verdict:
    """Of one source partition: `counted` is what it says again, `what` the names of what differs from what is served.

    `began` is the offset that was read from, `records` how many were. `reason`: why it is unknown.
    """

    partition: int
    verdict: str
    what: tuple[str, ...] = ()
    counted: dict[str, Any] | None = None
    began: int | None = None
    records: int = 0
    reason: str | None = None


def wanted_from(group: Group, explained: Json) -> list[Wanted]:
    """What to count again for an answer of `/api/explain`: of each source partition that had events."""
    source = group.source_of(explained["table"])
    table = _table(group, explained)
    window = Window(explained["startMs"], explained["endMs"])
    last = {part["partition"]: part["lastOffset"] for part in explained["partials"]}
    found = []
    for number in range(source.topic.partitions):
        name = f"{source.topic.name}:{number}"
        covered = explained["freshness"]["offsets"].get(name)
        if covered is not None:
            # an open window may be further already than what was known to be covered
            end = max(covered, last.get(number, -1) + 1)
            found.append(Wanted(source, number, (table,), window, end, explained["since"].get(name, {})))
    return found


def verdicts(group: Group, explained: Json, count: Count) -> list[Verdict]:
    """Count every partition of an explained number again. Raises what `count` raises, but `CannotRecount`."""
    table = _table(group, explained)
    served = {part["partition"]: part for part in explained["partials"]}
    return [
        _verdict(table, explained["key"], wanted, served.get(wanted.number), count)
        for wanted in wanted_from(group, explained)
    ]


def overall(found: Sequence[Verdict]) -> str:
    """One word for all partitions: differs if one does, else unknown if one is."""
    said = {one.verdict for one in found}
    return next((word for word in (DIFFER, UNKNOWN) if word in said), AGREE)


def how(group: Group, table: str) -> dict[str, str]:
    """How each column is compared: exact results, estimates that must be equal, or counts within their stated error."""
    declared = next(t for t in group.tables if t.name == table)
    words = {"state": "exact", "estimate": "equal estimates", "error": "within its stated error"}
    return {name: words[compared_by(aggregate)] for name, aggregate in declared.aggregates.items()}


def _table(group: Group, explained: Json) -> Table:
    return next(table for table in group.tables if table.name == explained["table"])


def _verdict(table: Table, key: str, wanted: Wanted, served: Json | None, count: Count) -> Verdict:
    number = wanted.number
    try:
        counting = count(wanted)
    except CannotRecount as reason:
        return Verdict(number, UNKNOWN, reason=str(reason))
    began, records = counting.begin.offset, counting.records
    start, end = wanted.window.start_ms, wanted.window.end_ms
    cells = [cells[key] for at, cells in counting.cells[table.name].items() if start <= at < end and key in cells]
    counted = None if not cells else _counted(table, [as_written(table, cell) for cell in cells])
    what = _differing(table, served, counted, wanted.since)
    return Verdict(number, DIFFER if what else AGREE, tuple(what), counted, began, records)


def _counted(table: Table, cells: Sequence[list[Any]]) -> dict[str, Any]:
    """As an answer says it: over JSON, for numbers and keys to be the same."""
    results = _decode(to_json(table.row.results(table.row.merge(cells))))
    return {
        "results": results,
        "firstOffset": min(cell[FIRST] for cell in cells),
        "lastOffset": max(cell[STAMP] for cell in cells),
        "events": sum(cell[EVENTS] for cell in cells),
    }


def _differing(table: Table, served: Json | None, counted: Json | None, since: Mapping[str, int]) -> list[str]:
    if served is None or counted is None:
        return [] if served is counted else ["cell"]
    found = [name for name in ("firstOffset", "lastOffset", "events") if served[name] != counted[name]]
    for name, aggregate in table.aggregates.items():
        one, other = served["results"][name], counted["results"][name]
        if since.get(f"{table.name}.{name}", 0) > counted["firstOffset"]:
            continue
        if not (within(one, other) if compared_by(aggregate) == "error" else one == other):
            found.append(name)
    return found


def within(one: Json, other: Json) -> bool:
    """Whether two estimates that state their errors may both be right."""
    error = max(one["error"], other["error"])
    keys = one["counts"].keys() | other["counts"].keys()
    return all(abs(one["counts"].get(key, 0) - other["counts"].get(key, 0)) <= error for key in keys)
