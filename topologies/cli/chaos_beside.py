"""`millrace chaos --beside-faust`: the same faults on millrace and on plain Faust, in one table."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from streams.errors import MillraceError
from topologies.chaos.run import schedule
from topologies.chaos.side_by_side import FAULTS_FOR_ALL, Run, Verdict, plan_for, run_target
from topologies.chaos.target import TARGETS, Target
from topologies.settings import Settings

RATE = 1000.0


def beside(
    console: Console,
    settings_for: Callable[[int], Settings],
    directory: Path,
    seeds: range,
    faults: int,
    only: str | None = None,
    rate: float | None = None,
) -> dict[str, Any]:
    """Run every target under the schedule and the load of every seed, show the table, and return it as JSON has it.

    Raises MillraceError for a fault that plain Faust cannot have.
    """
    names = only.split(",") if only else FAULTS_FOR_ALL
    if strange := [name for name in names if name not in FAULTS_FOR_ALL]:
        raise MillraceError(
            f"plain Faust cannot have the fault {strange[0]!r}; it can have {', '.join(FAULTS_FOR_ALL)}"
        )
    found: dict[Target, list[Run]] = {target: [] for target in TARGETS}
    for seed in seeds:
        planned, plan = schedule(seed, faults, names), plan_for(seed, rate or RATE)
        console.print(f"run {seed}: {', '.join(planned)}")
        for number, target in enumerate(TARGETS):
            base = settings_for(seed)
            settings = replace(base, prefix=f"{base.prefix}{number}-", state_dir=base.state_dir / str(number))
            run = run_target(target, settings, directory / f"{seed}-{number}", seed, planned, plan)
            found[target].append(run)
            console.print(f"  {said(run)}", highlight=False, soft_wrap=True)
            shutil.rmtree(base.state_dir, ignore_errors=True)
    console.print(grid(found))
    return answer(found)


def said(run: Run) -> str:
    """One run in a line."""
    verdict = run.verdict
    over = f"{verdict.over:,} counted too often in {verdict.over_cells} cells"
    lost = f"{verdict.lost:,} lost in {verdict.under_cells} cells"
    words = ["exact" if run.exact else f"{over}, {lost}"]
    words += [f"{run.restarts} workers started again"] * bool(run.restarts)
    words += [f"all state deleted by hand {run.wiped} times"] * bool(run.wiped)
    if run.stuck:
        return f"{run.target}: stuck: {', '.join([run.stuck, *words[1:]])}"
    return f"{run.target}: {', '.join(words)}; {verdict.orders:,} orders in {verdict.cells} cells, {run.seconds:.0f} s"


def total(runs: list[Run]) -> Verdict:
    """All runs of one target."""
    return sum((run.verdict for run in runs), Verdict())


def grid(found: dict[Target, list[Run]]) -> Grid:
    """Targets side by side."""
    totals = [total(runs) for runs in found.values()]
    shown = Grid("", *(target.name for target in found))
    shown.add_row("runs that ended exact", *(f"{sum(r.exact for r in s)} of {len(s)}" for s in found.values()))
    shown.add_row("orders sent", *(f"{v.orders:,}" for v in totals))
    shown.add_row("counted too often", *(share(v.over, v.orders) for v in totals))
    shown.add_row("lost", *(share(v.lost, v.orders) for v in totals))
    shown.add_row("cells compared", *(f"{v.cells:,}" for v in totals))
    shown.add_row("cells too high", *(share(v.over_cells, v.cells) for v in totals))
    shown.add_row("cells too low", *(share(v.under_cells, v.cells) for v in totals))
    shown.add_row("runs that got stuck", *(str(sum(bool(run.stuck) for run in s)) for s in found.values()))
    shown.add_row("workers that ended by themselves", *(str(sum(run.restarts for run in s)) for s in found.values()))
    shown.add_row("state deleted by hand to go on", *(str(sum(run.wiped for run in s)) for s in found.values()))
    return shown


def share(part: int, whole: int) -> str:
    """A number and what it is of the whole.

    >>> share(5, 1000), share(0, 0)
    ('5 (0.5%)', '0 (0.0%)')
    """
    return f"{part:,} ({part / max(whole, 1):.1%})"


def answer(found: dict[Target, list[Run]]) -> dict[str, Any]:
    """`exact`: millrace always was; `caught`: under each of Faust's guarantees something was found wrong."""
    ours, *others = found.values()
    return {
        "runs": len(ours),
        "faults": sum(len(run.faults) for run in ours),
        "exact": all(run.exact for run in ours),
        "caught": all(any(not run.verdict.exact for run in runs) for runs in others),
        "targets": {target.name: asdict(total(runs)) for target, runs in found.items()},
        "details": [asdict(run) for runs in found.values() for run in runs],
    }
