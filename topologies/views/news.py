"""Who tells, and who hears, that there is something new to answer.

A follower notes what changes in the tables as it applies it, and rings when it has applied what it read, and after
each look at the ends of the sources; a background function rings by posting. Who waits is woken by that, and does
nothing meanwhile. Nobody has to sign off: whoever is not there any more is not told.
"""

import asyncio
from collections.abc import Iterable
from typing import Final
from weakref import WeakSet

# (table, slice start in ms, key); as `tables.read_model` has it
Cells = set[tuple[str, int, str]]
NOTHING: Final[Cells] = set()


class News:
    """What is new of one topology."""

    def __init__(self) -> None:
        """Nobody listens yet."""
        self._bells: WeakSet[Bell] = WeakSet()
        self._watchers: WeakSet[Changed] = WeakSet()

    def wake(self, bell: "Bell") -> None:
        """Ring a bell from now on, as long as somebody else holds it."""
        self._bells.add(bell)

    def watch(self, changed: "Changed") -> None:
        """Note there what changes from now on, as long as somebody else holds it."""
        self._watchers.add(changed)

    def hand_over(self, to: "News") -> None:
        """Let all bells hear of another from now on, which is something new."""
        for bell in tuple(self._bells):
            to.wake(bell)
            bell.ring()

    def note(self, cells: Cells | None) -> None:
        """Say which cells of tables have just changed, before anybody can read them; None: anything may have."""
        for changed in tuple(self._watchers):
            changed.hear(cells)

    def tell(self, cells: Cells | None = NOTHING) -> None:
        """Say that something is new, and if so, which cells."""
        if cells is None or cells:
            self.note(cells)
        for bell in tuple(self._bells):
            bell.ring()


class Bell:
    """Wakes who waits for anything new of some topologies; what was new before the wait counts as well."""

    def __init__(self, news: Iterable[News]) -> None:
        """Listens from now on."""
        self._rung = asyncio.Event()
        for one in news:
            one.wake(self)

    def ring(self) -> None:
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
