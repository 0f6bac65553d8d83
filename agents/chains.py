"""Chains: what one key did with pauses shorter than a gap, found from the cells of a table.

The table's slices are exactly `gap_ms` wide, and its first two aggregates are the Min and the Max of event times. Two
events of one slice are then always less than a gap apart, and two slices belong together iff they are neighbours and
`first of the later - last of the earlier < gap_ms`. So a chain is found by looking at neighbouring cells, whatever the
order in which its events came.

A chain that never ends is cut: slices are numbered by `start / gap_ms`, and those with numbers from `n * max_slices` to
`(n + 1) * max_slices - 1` are a *block*. Where all slices of a block hold events and each is linked to the next, a new
chain begins after the block's last event. So a chain has fewer than `2 * max_slices` slices, and where it begins
depends on no more than as many slices before it: a decision looks back by `reach_ms`.

A chain's end falls due at `last + gap_ms`, cut or not. That does not depend on events from `until` on: when that is at
most `until`, an event that came later would be a gap after `last`, and thus in neither its slice nor its chain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agents.candidate import Candidate

FIRST, LAST = 0, 1
# What goes on for so many gaps is cut: in the end it is a bot.
LONGEST_GAPS = 24


@dataclass(frozen=True)
class Chain:
    """A chain that is over: its cells' states, oldest first, and when the next chain or the gap's end comes (ms)."""

    cells: list[Sequence[Any]]
    before: int

    @property
    def first(self) -> int:
        """The time of its first event."""
        first: int = self.cells[0][FIRST]
        return first

    @property
    def last(self) -> int:
        """The time of its last event."""
        last: int = self.cells[-1][LAST]
        return last


def chain_ending(c: Candidate, table: str, gap_ms: int, max_slices: int) -> Chain | None:
    """The chain of `table`'s cells that ends with the candidate and falls due now; None if there is none."""
    due = c.states[LAST] + gap_ms
    if not c.since < due <= c.until:
        return None
    after = c.look(table, c.window + gap_ms)
    before = due if after is None else min(due, after[FIRST])
    place = c.window // gap_ms % max_slices
    if before < due and place != max_slices - 1:
        return None
    cells = _walk_back(c, table, gap_ms, place + max_slices)
    if before < due and len(cells) < max_slices:
        return None  # the block is not full, so the chain goes on
    return Chain(_cut(cells, place, max_slices), before)


def reach_ms(gap_ms: int, max_slices: int, other_slice_ms: int) -> int:
    """How far before its slice a decision on a chain looks, in tables of slices of `gap_ms` and `other_slice_ms`.

    >>> reach_ms(30, 2, 60)
    150
    """
    return (2 * max_slices - 1) * gap_ms + other_slice_ms


def _walk_back(c: Candidate, table: str, gap_ms: int, steps: int) -> list[Sequence[Any]]:
    """The candidate and the cells linked before it, at most `steps` of them, oldest first."""
    cells = [c.states]
    window = c.window
    for _ in range(steps):
        window -= gap_ms
        cell = c.look(table, window)
        if cell is None or cells[-1][FIRST] - cell[LAST] >= gap_ms:
            break
        cells.append(cell)
    cells.reverse()
    return cells


def _cut(cells: list[Sequence[Any]], place: int, max_slices: int) -> list[Sequence[Any]]:
    """Without the block before the candidate's, if that is full."""
    return cells[max_slices:] if len(cells) == place + 1 + max_slices else cells
