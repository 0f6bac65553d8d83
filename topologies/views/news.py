"""Who tells, and who hears, that there is something new to answer.

A follower tells after it has applied what it read and after each look at the ends of the sources; a background
function does when it posts. Who waits is woken by that, and does nothing meanwhile. Nobody has to sign off: whoever
is not there any more is not told.
"""

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol
from weakref import WeakSet

# (table, slice start in ms, key); as `tables.read_model` has it
Cells = set[tuple[str, int, str]]
NOTHING: Final[Cells] = set()


class Listener(Protocol):
    """Hears what changed."""

    def hear(self, cells: Cells | None) -> None:
        """`cells` of the tables have changed, or something else; None: anything may have."""
        ...


class News:
    """What is new of one topology."""

    def __init__(self) -> None:
        """Nobody listens yet."""
        self._listeners: WeakSet[Listener] = WeakSet()

    def listen(self, listener: Listener) -> None:
        """Have a listener hear of what changes from now on, as long as somebody else holds it."""
        self._listeners.add(listener)

    def tell(self, cells: Cells | None = NOTHING) -> None:
        """Say that something is new; None for cells: anything may be, such as after a copy began anew."""
        for listener in tuple(self._listeners):
            listener.hear(cells)


class Bell:
    """Wakes who waits for anything new of some topologies; what was new before the wait counts as well."""

    def __init__(self, news: Iterable[News]) -> None:
        """Listens from now on."""
        self._rung = asyncio.Event()
        for one in news:
            one.listen(self)

    def hear(self, cells: Cells | None) -> None:
        """Wake who waits."""
        self._rung.set()

    async def wait(self) -> None:
        """Return once there is something new since the last wait."""
        await self._rung.wait()
        self._rung.clear()


class Changed:
    """The cells of one table that have changed since they were last taken."""

    def __init__(self, table: str) -> None:
        """Anything may have changed before."""
        self._table = table
        self._cells: set[tuple[int, str]] | None = None

    def hear(self, cells: Cells | None) -> None:
        """Keep those of the table."""
        if cells is None:
            self._cells = None
        elif self._cells is not None:
            self._cells.update((start, key) for table, start, key in cells if table == self._table)

    def take(self) -> set[tuple[int, str]] | None:
        """The (slice start, key) that changed; None: all may have."""
        taken, self._cells = self._cells, set()
        return taken
