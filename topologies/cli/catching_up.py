"""How far something has come in each partition, while it goes on: bars on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_EVERY_S: Final = 5.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


class CatchingUp:
    """A bar for each partition: records that are done, of those that there are, a second, and time that is left."""

    def __init__(self, console: Console) -> None:
        """Shows nothing yet."""
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._line_at = 0.0
        self._before: tuple[float, int] | None = None

    def show(self, partitions: Mapping[str, tuple[int, int]], note: str = "") -> None:
        """Show (done, all) of each partition by its name."""
        for name, (done, total) in partitions.items():
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=total)
            self._progress.update(self._tasks[name], completed=done, total=total)
        if not self._console.is_terminal and partitions and time.monotonic() >= self._line_at:
            self._line(sum(done for done, _ in partitions.values()), sum(of for _, of in partitions.values()), note)

    def _line(self, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        self._line_at = now + LINE_EVERY_S
        rate = ""
        if self._before is not None and now > self._before[0]:
            rate = f", {max(0, done - self._before[1]) / (now - self._before[0]):,.0f}/s"
        self._before = now, done
        self._console.print(f"{done:,} of {total:,} records{rate}{note}", soft_wrap=True)

    def __enter__(self) -> Self:
        """Show it."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()
