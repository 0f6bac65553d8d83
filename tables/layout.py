"""What a table's row is made of, written down, so that a later program can judge whether old state fits it.

A *layout* is the row's aggregates in order, each as (name, description). It goes into every progress record, and
its *fingerprint* with it; records from before layouts were written have the fingerprint alone.

What may change in place: aggregates appended at the end, all former ones as they were, in name, order and
parameters. A cell of the former row is then the beginning of one of the new row: it decodes with the new aggregates
empty. They count what is applied after the change; `since` in the progress says from which position on.

- The first flush of the grown row, before it applies anything, writes the new layout and raises the epoch. So an old
  program finds out at its start that it is too old, and an old one that was never stopped (a zombie) loses to the new
  one by stamp: its shorter cells, however far ahead, never replace longer ones.
- A program of the former row refuses at its start. View servers of the former row go on: who only reads can leave out
  what it does not know.

Everything else is refused: the old bytes would be read as something that they are not.
"""

import hashlib
from collections.abc import Mapping
from enum import Enum
from typing import Any

from streams.errors import MillraceError
from tables.aggregates import Aggregate

VERSION = 1

Layout = tuple[tuple[str, str], ...]


class StateUnfit(MillraceError):
    """What is kept does not fit the source or the table any more; the text says the way out."""


class Fit(Enum):
    """How a row stands to what was written."""

    SAME = "same"
    GROWN = "grown"  # aggregates were appended to what was written
    OLDER = "older"  # what was written has aggregates appended that this program does not know
    OTHER = "other"


def layout_of(aggregates: Mapping[str, Aggregate[Any]]) -> Layout:
    """The row as names and descriptions."""
    return tuple((name, aggregate.describe()) for name, aggregate in aggregates.items())


def fingerprint(layout: Layout) -> str:
    """Twelve hex digits that stand for a layout and the version of the cell format."""
    text = "\n".join(f"{name}: {description}" for name, description in layout)
    return hashlib.sha256(f"{VERSION}\n{text}".encode()).hexdigest()[:12]


def kept(now: Layout, written: str, layout: Layout | None) -> Layout | None:
    """The layout that was written, from its fingerprint alone if need be; None if that tells nothing.

    Without a layout it is found if this row begins with it.
    """
    if layout is not None:
        return layout
    beginnings = (now[:length] for length in range(len(now), 0, -1))
    return next((beginning for beginning in beginnings if fingerprint(beginning) == written), None)


def fit(now: Layout, layout: Layout | None) -> Fit:
    """How this row stands to a layout that was written.

    >>> fit((("a", "sum"), ("b", "sum")), (("a", "sum"),))
    <Fit.GROWN: 'grown'>
    """
    if layout is None:
        return Fit.OTHER
    if now == layout:
        return Fit.SAME
    if now[: len(layout)] == layout:
        return Fit.GROWN
    return Fit.OLDER if layout[: len(now)] == now else Fit.OTHER


def refusal(table: str, group: str, now: Layout, layout: Layout | None) -> StateUnfit:
    """The error for a table whose state was written with another row: what changed, and the ways out."""
    if layout is not None and fit(now, layout) is Fit.OLDER:
        added = ", ".join(name for name, _ in layout[len(now) :])
        return StateUnfit(
            f"table {table} was written by a newer program, which also keeps {added}: start that one; this one would "
            "lose them"
        )
    what = "; ".join(_changes(layout, now)) if layout is not None else "the former ones were not written down"
    return StateUnfit(
        f"table {table} was written with other aggregates ({what}); in place only new ones can be added, at the end: "
        f"{_ways_out(group)}"
    )


def sliced_otherwise(table: str, group: str, now_ms: int, written_ms: int) -> StateUnfit:
    """The error for a table whose state was written in slices of another length, and the ways out."""
    return StateUnfit(
        f"table {table} was written in slices of {written_ms / 1000:g} s, this program has {now_ms / 1000:g} s: set it "
        f"back, or {_ways_out(group)}"
    )


def _ways_out(group: str) -> str:
    return (
        f"give the table another name (it begins now), or replay the group from earliest: stop {group}, and `millrace "
        "replay <topology>`"
    )


def _changes(before: Layout, now: Layout) -> list[str]:
    old, new = dict(before), dict(now)
    found = [f"{name} is gone" for name in old if name not in new]
    found += [f"{name} was {old[name]} and is {new[name]}" for name in old if name in new and old[name] != new[name]]
    common = [name for name in old if name in new]
    if [name for name in new if name in old] != common:
        found.append(f"the order was {', '.join(old)} and is {', '.join(new)}")
    found += [f"{name} is new, not at the end" for name, _ in now[: len(before)] if name not in old]
    return found
