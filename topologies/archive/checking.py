"""Whether an archive is what it promises: each offset once, no two files over the same, none missing."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

from streams.errors import MillraceError
from streams.log import TP
from topologies.archive.files import Files


@dataclass
class Checked:
    """What was found of one partition: the offsets `[first, end)` are covered, with so many rows in so many files.

    `faults` says what is wrong, each in a line; empty where nothing is.
    """

    tp: TP
    first: int
    end: int
    rows: int = 0
    files: int = 0
    faults: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "topic": self.tp.topic,
            "partition": self.tp.partition,
            "first": self.first,
            "end": self.end,
            "rows": self.rows,
            "files": self.files,
            "faults": self.faults,
        }


def check(files: Files, topic: str) -> Iterator[Checked]:
    """Read every file's footer and offsets; one answer for each partition. Raises OSError."""
    for tp, places in groupby(files.places(topic), key=lambda one: one[1].tp):
        yield _check(files, tp, [path for path, _ in places])


def _check(files: Files, tp: TP, paths: list[str]) -> Checked:
    found: Checked | None = None
    for path in paths:
        try:
            footer, offsets = files.footer(path), files.offsets(path)
        except MillraceError as error:
            found = found or Checked(tp, 0, 0)
            found.faults.append(str(error))
            continue
        found = found or Checked(tp, footer.first, footer.first)
        if footer.first < found.end:
            found.faults.append(f"{path} begins at {footer.first}, before {found.end}, where the one before it ends")
        elif footer.first > found.end:
            found.faults.append(f"{path} begins at {footer.first}: {found.end} to {footer.first - 1} are missing")
        if footer.lost:
            last = footer.first + footer.lost - 1
            found.faults.append(
                f"{path} lacks {footer.first} to {last}: the log had deleted them (retention) before they were archived"
            )
        inside = bool(offsets) and footer.first <= offsets[0] and offsets[-1] < footer.end
        if not inside or len(offsets) != footer.rows or any(one >= two for one, two in pairwise(offsets)):
            found.faults.append(f"{path} does not hold the offsets that it says")
        found.end = max(found.end, footer.end)
        found.rows += len(offsets)
        found.files += 1
    assert found is not None
    return found
