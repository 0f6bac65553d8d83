"""The accumulators of one table in one partition that are in memory, over those in RocksDB.

Dirty cells differ from what the last flush wrote. Clean cells of closed slices leave after a flush (no event can
touch them any more), those that rules will look at soon a while later (`tables.deciding.looked_at_from`); past
`MAX_BYTES` those and the clean cells of open slices leave too, oldest slices first, and are read again when needed.

A slice is *complete* while everything of it that is stored is also in memory: since it began here, as long as none of
its cells has left. What is not in memory of such a slice is nowhere, and RocksDB is not asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tables.accumulators import DIRTY, KEY_BYTES, decode_key, encode_key
from tables.store import Store
from tables.table import Table

Cell = list[Any]
Taken = list[tuple[int, str, Cell]]

# As encoded. In memory a cell takes some six times as much (measured: sums 6.0, with a distinct count and quantiles 5.3
# to 8.9, tallies 5.3 to 7.1): 120 MB a table and partition at the most. Those that are no larger than `SMALL_BYTES` are
# not told apart: 200,000 rows of sums, at about 300 bytes 60 MB.
MAX_BYTES = 20_000_000
SMALL_BYTES = 100


@dataclass
class Cache:
    """Cells by slice start (ms) and key. `beyond`: by how many bytes those that are no small ones are larger."""

    table: Table
    store: Store
    slice_ms: int
    windows: dict[int, dict[str, Cell]] = field(default_factory=dict)
    dirty: Taken = field(default_factory=list)
    newest_stored: int = -1
    complete: set[int] = field(default_factory=set)
    beyond: dict[int, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Note the newest stored slice: what is newer needs no look into RocksDB."""
        key = self.store.newest_key(self.table.name)
        if key is not None:
            self.newest_stored = decode_key(key)[0]

    def load(self, window: int, key: str) -> Cell:
        """Bring a cell into memory: as stored, or new."""
        if window > self.newest_stored and window not in self.windows:
            self.complete.add(window)
        if window in self.complete:
            if len(key) > KEY_BYTES // 4 or not key.isascii():
                encode_key(window, key)  # what no flush could write must not get in
            cell = self.table.row.new_cell()
        else:
            raw = self._stored(window, key)
            cell = self.table.row.new_cell() if raw is None else self.table.row.decode(raw)[1]
            self.weigh(window, key, raw or b"")
        self.windows.setdefault(window, {})[key] = cell
        return cell

    def _stored(self, window: int, key: str) -> bytes | None:
        name = encode_key(window, key)  # also where nothing is stored: what no flush could write must not get in
        return self.store.get(self.table.name, name) if window <= self.newest_stored else None

    def look(self, window: int, key: str) -> Cell | None:
        """A cell as it is now, None if there is none. Brings nothing into memory; not to be changed."""
        cells = self.windows.get(window)
        cell = cells.get(key) if cells is not None else None
        if cell is not None or window in self.complete:
            return cell
        raw = self._stored(window, key)
        return None if raw is None else self.table.row.decode(raw)[1]

    def between(self, start: int, end: int) -> Iterator[tuple[int, str, Cell]]:
        """The cells of slices `[start, end)` as they are now, by slice and key. Not to be changed."""
        found: dict[tuple[int, str], Cell] = {}
        for raw_key, raw in self.stored(start, end):
            window, key = decode_key(raw_key)
            if self.peek(window, key) is None:
                found[window, key] = self.table.row.decode(raw)[1]
        for window in [window for window in self.windows if start <= window < end]:
            found.update(((window, key), cell) for key, cell in self.windows[window].items())
        yield from ((window, key, found[window, key]) for window, key in sorted(found))

    def starts(self, windows: list[int]) -> list[int]:
        """The table's slices that hold these of its source."""
        width = self.slice_ms
        return [window - window % width for window in windows]

    def peek(self, window: int, key: str) -> Cell | None:
        """A cell if it is in memory."""
        return self.windows.get(window, {}).get(key)

    def take_dirty(self) -> Taken:
        """Hand over the dirty cells as clean; `give_back` undoes it."""
        taken, self.dirty[:] = list(self.dirty), []
        for _, _, cell in taken:
            cell[DIRTY] = False
        return taken

    def give_back(self, taken: Taken) -> None:
        """Make cells dirty again whose flush failed."""
        for window, key, cell in taken:
            if not cell[DIRTY]:
                cell[DIRTY] = True
                self.dirty.append((window, key, cell))

    def weigh(self, window: int, key: str, raw: bytes) -> None:
        """Note how large a cell in memory is as encoded."""
        if len(raw) > SMALL_BYTES:
            self.beyond.setdefault(window, {})[key] = len(raw) - SMALL_BYTES

    def stored_up_to(self, window: int) -> None:
        """Note that a slice was written."""
        self.newest_stored = max(self.newest_stored, window)

    def evict(self, closed_before: int, held_from: int | None = None) -> None:
        """Let clean cells go: of closed slices before `held_from` all, then the oldest slices' until the rest fits.

        `held_from` None: of all closed slices.
        """
        before = closed_before if held_from is None else min(closed_before, held_from)
        sizes = {window: self._bytes(window) for window in sorted(self.windows)}
        over = sum(sizes.values()) - MAX_BYTES
        for window, size in sizes.items():
            if window >= before and over <= 0:
                return
            self._let_go(window)
            over -= size - self._bytes(window)

    def _bytes(self, window: int) -> int:
        beyond = self.beyond.get(window)
        return SMALL_BYTES * len(self.windows.get(window, ())) + (sum(beyond.values()) if beyond else 0)

    def _let_go(self, window: int) -> None:
        self.complete.discard(window)
        beyond = self.beyond.pop(window, {})
        kept = {k: c for k, c in self.windows.pop(window).items() if c[DIRTY]}
        if kept:
            self.windows[window] = kept
        if kept_beyond := {k: size for k, size in beyond.items() if k in kept}:
            self.beyond[window] = kept_beyond

    def oldest(self, window: int) -> int:
        """The oldest slice in memory, if it is older than this; else this."""
        return min(window, min(self.windows, default=window))

    def drop_before(self, window: int) -> None:
        """Forget expired slices."""
        for old in [w for w in self.windows if w < window]:
            self.complete.discard(old)
            self.beyond.pop(old, None)
            del self.windows[old]

    def stored(self, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
        """Key and value bytes of the slices `[start, end)` as the last flush left them."""
        return self.store.scan(self.table.name, encode_key(start, ""), encode_key(end, ""))

    def cells(self) -> int:
        """How many cells are in memory."""
        return sum(map(len, self.windows.values()))
