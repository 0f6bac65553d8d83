"""Merged results of one table over stretches of slices, kept in memory while they are asked for.

A stretch is cut into aligned *blocks* of 1, 5, 15, 60 and 1,440 slices: with minute slices minutes, hours,
days. A block of one slice merges the partials of all source partitions, a wider one the blocks inside it, so
a day costs 24 merges a key, not 5,760. Sliding windows are blocks too, made of the aligned ones.

One key of a stretch is merged alone where the stretch is not a block already, and kept likewise, so that a question
about one key costs nothing for the others, and nothing when it is asked again.

A changed partial marks its key stale in the blocks that hold its slice; the next reader merges the stale keys
anew and nothing else: all of them from the smallest blocks up, so that each changed slice is read once, or the one
that is asked for, which reads no slice whole. Slices that change while they are read are *hot*: their partials stay
in memory. Blocks are dropped, least recently read first, when together they pass the budget.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from tables.table import Table

HotSlice = dict[str, dict[int, bytes]]
States = list[Any]
Results = dict[str, Any]
Bounds = tuple[int, int]

LEVELS = (1, 5, 15, 60, 1_440)
# Of partials as stored; in memory, as Python objects, it comes to about three times that.
BUDGET_BYTES = 32 << 20
BLOCK_BYTES = 300
# Reading a slice that is written again with every flush from RocksDB costs ten times what it costs from here, since
# all its versions are passed over (measured). Slices within the grace and a few more.
HOT_SLICES = 8
# Keys of stretches that are kept alone: a page of windows of a minute, for some tens of keys.
ALONE_KEPT = 2_000
# Merging a key takes some ten microseconds, and a millisecond where it has large sketches: steps go by time (s).
STEP_S = 0.001
# Sliding windows that are followed: each has to hear of every change.
SPANS_KEPT = 32


@dataclass(slots=True)
class Block:
    """The merged states of a stretch by key; those in `stale` are out of date."""

    states: dict[str, States]
    key_bytes: int
    results: dict[str, Results] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)

    def put(self, key: str, states: States | None) -> None:
        """Set a key's states; None: it does not occur any more."""
        if states is None:
            self.states.pop(key, None)
        else:
            self.states[key] = states

    @property
    def weight(self) -> int:
        """About how many bytes it stands for."""
        return BLOCK_BYTES + self.key_bytes * len(self.states)


@dataclass(slots=True)
class Alone:
    """One key of a stretch: its merged states, and its results once they were asked for; None: it does not occur."""

    states: States | None
    results: Results | None = None


class _Step:
    """How long somebody who has others to think of has been at work."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._until = time.perf_counter() + STEP_S

    def is_over(self) -> bool:
        return time.perf_counter() >= self._until


@dataclass(frozen=True)
class Partials:
    """Where a rollup finds the values of a slice (start in ms) by source partition: of all keys, or of one."""

    of_slice: Callable[[int], dict[str, dict[int, bytes]]]
    of_key: Callable[[int, str], dict[int, bytes]]


class Rollup:
    """The blocks of one table. Stretches are `[start, end)` in ms, of whole slices."""

    def __init__(self, table: Table, slice_ms: int, partials: Partials, budget: int = BUDGET_BYTES) -> None:
        """Begin empty."""
        self.weight = 0
        self._row = table.row
        self._aggregates = list(table.row.aggregates.values())
        self._slice_ms = slice_ms
        self._widths = [level * slice_ms for level in LEVELS]
        self._partials = partials
        self._budget = budget
        self._blocks: OrderedDict[Bounds, Block] = OrderedDict()
        self._spans: OrderedDict[Bounds, None] = OrderedDict()
        self._hot: OrderedDict[int, HotSlice] = OrderedDict()
        self._alone: OrderedDict[tuple[int, int, str], Alone] = OrderedDict()

    def change(self, partition: int, changes: Mapping[tuple[int, str], bytes | None]) -> None:
        """Hear of new values of one source partition by (slice start, key); None: it is gone."""
        slices: dict[int, dict[str, bytes | None]] = {}
        for (start, key), raw in changes.items():
            slices.setdefault(start, {})[key] = raw
        for start, values in slices.items():
            self._mark(start, values.keys())
            hot = self._hot.get(start)
            if hot is not None:
                _put_all(hot, partition, values)

    def _mark(self, start: int, keys: Set[str]) -> None:
        stretches = [(start - start % width, start - start % width + width) for width in self._widths]
        if self._alone:
            for one in stretches:
                for key in keys:
                    self._alone.pop((*one, key), None)
        stretches += [span for span in self._spans if span[0] <= start < span[1]]
        for bounds in stretches:
            block = self._blocks.get(bounds)
            if block is not None:
                block.stale |= keys

    def results(self, start: int, end: int) -> dict[str, Results]:
        """The merged results of every key in the stretch. Not to be changed."""
        block = self._block(start, end)
        found, results = block.results, self._row.results
        for key in block.states.keys() - found.keys():
            found[key] = results(block.states[key])
        return found

    def result(self, start: int, end: int, key: str) -> Results | None:
        """The merged results of one key, None if it does not occur; reads no other key. Not to be changed."""
        block = self._blocks.get((start, end))
        if block is None:
            return self._alone_results(start, end, key)
        states = self._states(start, end, key)
        self._evict((start, end))
        if key not in block.results and states is not None:
            block.results[key] = self._row.results(states)
        return block.results.get(key)

    def keys(self, start: int, end: int) -> set[str]:
        """Every key that occurs in the stretch."""
        return set(self._block(start, end).states)

    def steps(self, start: int, end: int) -> Iterator[None]:
        """Do the work of `results` in steps of about a millisecond, for callers that have other work in between.

        What changes meanwhile may be left for `results`. A stretch that nobody has asked for takes one step a block.
        """
        step = _Step()
        yield from self._merging(start, end, step)
        block = self._block(start, end)
        for key in block.states.keys() - block.results.keys():
            if step.is_over():
                yield
                step.begin()
                if self._blocks.get((start, end)) is not block:
                    return
            if key not in block.results and (states := block.states.get(key)) is not None:
                block.results[key] = self._row.results(states)

    def _merging(self, start: int, end: int, step: "_Step") -> Iterator[None]:
        block = self._blocks.get((start, end))
        if block is not None and not block.stale:
            return
        parts = self.parts(start, end)
        for part in parts:
            yield from self._merging(*part, step)
        if block is None:
            self._block(start, end)
            if step.is_over():
                yield
                step.begin()
            return
        if not parts:
            self._hot_slice(start)
        left = len(block.stale)  # what becomes stale meanwhile may do so for ever
        while block.stale and left > 0 and self._blocks.get((start, end)) is block:
            self._refresh_key(block, (start, end), block.stale.pop(), parts)
            left -= 1
            if step.is_over():
                yield
                step.begin()

    @property
    def held(self) -> list[Bounds]:
        """The stretches that are merged in memory, least recently read first."""
        return list(self._blocks)

    def _alone_results(self, start: int, end: int, key: str) -> Results | None:
        found = self._kept_alone(start, end, key, asked=True)
        if found.results is None and found.states is not None:
            found.results = self._row.results(found.states)
        return found.results

    def _kept_alone(self, start: int, end: int, key: str, *, asked: bool) -> Alone:
        found = self._alone.get((start, end, key))
        if found is not None:
            self._alone.move_to_end((start, end, key))
            return found
        found = Alone(self._merged_alone(start, end, key))
        # a day would leave 1,440 slices that nobody asked for, and five are soon merged again
        if self._is_aligned(start, end) and (asked or end - start > self._slice_ms):
            self._alone[start, end, key] = found
            if len(self._alone) > ALONE_KEPT:
                self._alone.popitem(last=False)
        return found

    def _merged_alone(self, start: int, end: int, key: str) -> States | None:
        parts = self.parts(start, end)
        if not parts:
            return self._merged(self._values(start, key))
        return self._merged_parts([self._states(*part, key) for part in parts])

    def _states(self, start: int, end: int, key: str) -> States | None:
        """One key of a stretch, from its block if there is one, of which no other key is brought up to date."""
        bounds = (start, end)
        block = self._blocks.get(bounds)
        if block is None:
            return self._kept_alone(start, end, key, asked=False).states
        self._touch(bounds)
        if key in block.stale:
            self._refresh_key(block, bounds, key, self.parts(start, end))
        return block.states.get(key)

    def _values(self, start: int, key: str) -> Mapping[int, bytes]:
        """One key of a slice; a slice that is not in memory is not read for it."""
        hot = self._hot.get(start)
        return self._partials.of_key(start, key) if hot is None else hot.get(key, {})

    def _is_aligned(self, start: int, end: int) -> bool:
        return end - start in self._widths and start % (end - start) == 0

    def _block(self, start: int, end: int) -> Block:
        bounds = (start, end)
        block = self._blocks.get(bounds)
        if block is None:
            block = self._blocks[bounds] = self._build(start, end)
            self.weight += block.weight
            self._note_span(bounds)
        elif block.stale:
            self._touch(bounds)
            self._refresh(block, start, end)
        self._touch(bounds)
        self._evict(bounds)
        return block

    def _touch(self, bounds: Bounds) -> None:
        if bounds in self._blocks:  # its parts may have taken its room
            self._blocks.move_to_end(bounds)
        if bounds in self._spans:
            self._spans.move_to_end(bounds)

    def _build(self, start: int, end: int) -> Block:
        parts = self.parts(start, end)
        if not parts:
            values = self._partials.of_slice(start)
            states = {key: merged for key, one in values.items() if (merged := self._merged(one)) is not None}
            size = sum(len(raw) for one in values.values() for raw in one.values())
            return Block(states, size // max(1, len(values)))
        blocks = [self._block(*part) for part in parts]
        gathered: dict[str, list[States]] = {}
        for block in blocks:
            for key, one in block.states.items():
                gathered.setdefault(key, []).append(one)
        merge = self._merge
        return Block({key: merge(lists) for key, lists in gathered.items()}, max(b.key_bytes for b in blocks))

    def _refresh(self, block: Block, start: int, end: int) -> None:
        """Bring all stale keys up to date, first those of its parts: a changed slice is read once, not once a key."""
        # a part that loses its room to the next one is right all the same: nothing changes until this is done
        parts = [self._block(*part) for part in self.parts(start, end)]
        if not parts:
            self._hot_slice(start)
        sizes = [part.key_bytes for part in parts]
        while block.stale:
            key = block.stale.pop()
            self._renew(block, (start, end), key, [part.states.get(key) for part in parts], sizes)

    def _refresh_key(self, block: Block, bounds: Bounds, key: str, parts: Sequence[Bounds]) -> None:
        """Bring one key up to date, and nothing but it in the parts."""
        block.stale.discard(key)
        found = [self._states(*part, key) for part in parts]
        sizes = [part.key_bytes for at in parts if (part := self._blocks.get(at)) is not None]
        self._renew(block, bounds, key, found, sizes)

    def _renew(
        self, block: Block, bounds: Bounds, key: str, of_parts: Sequence[States | None], sizes: Sequence[int]
    ) -> None:
        """Put what a key comes to now: of the states that the parts have of it, or of the partials of a slice."""
        before = block.weight
        block.results.pop(key, None)
        if of_parts:
            block.put(key, self._merged_parts(of_parts))
        else:
            values = self._values(bounds[0], key)
            sizes = [sum(map(len, values.values()))]
            block.put(key, self._merged(values))
        block.key_bytes = max([block.key_bytes, *sizes])
        if self._blocks.get(bounds) is block:  # its parts may have taken its room
            self.weight += block.weight - before

    def _hot_slice(self, start: int) -> HotSlice:
        hot = self._hot.get(start)
        if hot is None:
            hot = self._hot[start] = self._partials.of_slice(start)
            if len(self._hot) > HOT_SLICES:
                self._hot.popitem(last=False)
        else:
            self._hot.move_to_end(start)
        return hot

    def _merged(self, values: Mapping[int, bytes]) -> States | None:
        read = self._row.read
        return self._row.merge([read(raw) for raw in values.values()]) if values else None

    def _merged_parts(self, of_parts: Sequence[States | None]) -> States | None:
        found = [states for states in of_parts if states is not None]
        return self._merge(found) if found else None

    def _merge(self, lists: Sequence[States]) -> States:
        if len(lists) == 1:
            return lists[0]
        columns = zip(*lists, strict=True)
        return [a.merge_all(column) for a, column in zip(self._aggregates, columns, strict=True)]

    def parts(self, start: int, end: int) -> list[Bounds]:
        """The largest aligned blocks, smaller than the stretch, that make it up; none for a single slice."""
        if end - start <= self._slice_ms:
            return []
        parts, at = [], start
        while at < end:
            width = next(w for w in reversed(self._widths) if at % w == 0 and w <= end - at and w < end - start)
            parts.append((at, at + width))
            at += width
        return parts

    def _note_span(self, bounds: Bounds) -> None:
        if self._is_aligned(*bounds):
            return
        self._spans[bounds] = None
        if len(self._spans) > SPANS_KEPT:
            self._drop(next(iter(self._spans)))

    def _evict(self, keep: Bounds) -> None:
        while self.weight > self._budget and len(self._blocks) > 1:
            oldest = next(iter(self._blocks))
            if oldest == keep:
                return
            self._drop(oldest)

    def _drop(self, bounds: Bounds) -> None:
        self._spans.pop(bounds, None)
        block = self._blocks.pop(bounds, None)
        if block is not None:
            self.weight -= block.weight


def _put_all(hot: HotSlice, partition: int, values: Mapping[str, bytes | None]) -> None:
    for key, raw in values.items():
        if raw is not None:
            hot.setdefault(key, {})[partition] = raw
        elif key in hot:
            hot[key].pop(partition, None)
            if not hot[key]:
                del hot[key]
