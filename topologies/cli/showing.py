"""Tables for people: drawn by rich on a terminal, columns parted by spaces where a script reads them."""

import sys
from collections.abc import Sequence
from typing import Final

import typer

NOTHING: Final = "-"


def cell(value: object) -> str:
    """One value; numbers with thousands parted, nothing as `-`.

    >>> cell(12345), cell(None), cell("w0")
    ('12,345', '-', 'w0')
    """
    if value is None or value == "":
        return NOTHING
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns; whole numbers stand to the right. Nothing for no rows."""
    if not rows:
        return
    right = [all(isinstance(row[at], int | None) for row in rows) for at in range(len(columns))]
    cells = [[cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _drawn(columns, cells, right)
        return
    widths = [max(len(name), *(len(row[at]) for row in cells)) for at, name in enumerate(columns)]
    for row in [list(columns), *cells]:
        placed = zip(row, widths, right, strict=True)
        typer.echo("  ".join(one.rjust(width) if far else one.ljust(width) for one, width, far in placed).rstrip())


def _drawn(columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, far in zip(columns, right, strict=True):
        table.add_column(name, justify="right" if far else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)
