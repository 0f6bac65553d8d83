"""Running folds over a batch: the short way for whole batches, the careful way event by event."""

from collections.abc import Sequence
from typing import Any

from tables.accumulators import encode_key
from tables.table import Table

Rows = Sequence[tuple[Any, ...]]


class Poison(Exception):
    """An event that a fold cannot take; the text says which fold and why."""


def fold_all(tables: Sequence[Table], events: Sequence[Any], ats: Sequence[int]) -> list[list[Rows]] | None:
    """For each table, each event's rows; None if a fold raised anywhere."""
    try:
        return [_column(table, events, ats) for table in tables]
    except Exception:
        return None


def _column(table: Table, events: Sequence[Any], ats: Sequence[int]) -> list[Rows]:
    fold = table.fold
    column = list(map(fold, events, ats)) if table.timed else [fold(event) for event in events]
    if column and not isinstance(column[0], (list, tuple)):
        return [list(rows) for rows in column]  # the fold is a generator: run it now, before anything is touched
    return column  # type: ignore[return-value]


def fold_one(tables: Sequence[Table], event: Any, at: int) -> list[Rows]:
    """One event's rows for each table, tried out on an accumulator that is thrown away.

    A fold that raises is asked once more, since the cause may pass. Raises `Poison`.
    """
    return [_try(table, event, at) for table in tables]


def _try(table: Table, event: Any, at: int) -> Rows:
    reason = ""
    for _ in range(2):
        try:
            rows = list(table.fold(event, at) if table.timed else table.fold(event))
            scratch: dict[int, dict[str, list[Any]]] = {}
            table.row.apply([0], [0], [rows], scratch, _scratch_load(table, scratch), [])
            for key, cell in scratch.get(0, {}).items():
                encode_key(0, key)
                table.row.encode(cell, 0)
            return rows
        except Exception as error:
            reason = f"table {table.name}: {type(error).__name__}: {error}"
    raise Poison(reason)


def _scratch_load(table: Table, scratch: dict[int, dict[str, list[Any]]]) -> Any:
    def load(window: int, key: str) -> list[Any]:
        cell = scratch.setdefault(window, {})[key] = table.row.new_cell()
        return cell

    return load
