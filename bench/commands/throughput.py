"""`millrace bench throughput`."""

import os
import signal
import sys
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as Grid
from rich.text import Text

from bench.freshness import own_cluster
from bench.measure import Outcome
from bench.rounds import CONTENDERS
from bench.throughput import Result, Run, compare, summary
from streams.errors import MillraceError
from topologies.cli.options import Bootstrap, Json
from topologies.settings import find_cluster, home_directory

Events = Annotated[int, typer.Option("--events", "-n", help="Orders to measure with, after 50,000 to warm up.")]
Rounds = Annotated[int, typer.Option("--rounds", help="How often each contender runs; medians count.")]
Profile = Annotated[bool, typer.Option("--profile", help="Instead say where our own CPU time goes, by stage.")]

NAMES = {
    "bare_librdkafka": "librdkafka, orjson, a dict; nothing kept",
    "bare_aiokafka": "aiokafka, orjson, a dict; nothing kept",
    "plain_faust": "plain Faust, one windowed table",
    "one_table": "millrace, one table",
    "all_tables": "millrace, all sales tables",
}


def register(bench: typer.Typer) -> None:
    """Add `throughput` to `millrace bench`."""
    bench.command("throughput", epilog="Example: millrace bench throughput")(throughput)


def throughput(
    events: Events = 200_000,
    rounds: Rounds = 3,
    profile: Profile = False,
    bootstrap: Bootstrap = None,
    json: Json = False,
) -> None:
    """Measure events per second beside bare loops and plain Faust: same records, same broker, sums checked.

    Topics and groups are named `bench-...` and deleted at the end.
    """
    if rounds < 1:
        raise MillraceError("give --rounds of at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    named = bootstrap or os.environ.get("MILLRACE_BOOTSTRAP")
    cluster = find_cluster(os.environ, home_directory(os.environ), named) if named else None
    shown = Console(stderr=True)
    shown.print("Starting a broker of its own" if cluster is None else f"Measuring on {named}")
    with own_cluster(cluster) as (found, _):
        run = Run(found, events)
        try:
            with shown.status(f"Producing {run.orders.count:,} orders"):
                run.fill()
            found_out = _profile(run, shown) if profile else _compare(run, rounds, shown)
        finally:
            run.clear()
    if json:
        typer.echo(orjson.dumps(found_out))
    else:
        Console().print(_profile_grid(found_out) if profile else _grid(found_out))
    if not found_out["exact"]:
        raise MillraceError("totals are not right: these figures mean nothing; please report it")


def _compare(run: Run, rounds: int, shown: Console) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=shown, transient=True) as progress:
        bar = progress.add_task("Measuring", total=rounds * len(CONTENDERS))

        def done(number: int, result: Result) -> None:
            shown.print(f"round {number + 1}: {NAMES[result.contender]}: {_said(result)}")
            progress.advance(bar)

        return summary(compare(run, rounds, done))


def _said(result: Result) -> str:
    return f"{result.outcome.eps:,.0f} events/s, {'exact' if result.exact else 'WRONG'}"


def _grid(found: dict[str, Any]) -> Grid:
    grid = Grid("contender", "events/s", "of the bare loop", "CPU us an event", "cores", "totals")
    for name, details in found["contenders"].items():
        share = details["eps"] / found["bare_loop_eps"]
        numbers = (
            f"{details['eps']:,}",
            f"{share:.3f}",
            f"{details['cpu_us_per_event']:.2f}",
            f"{details['cores']:.2f}",
        )
        grid.add_row(NAMES[name], *numbers, "exact" if details["exact"] else "WRONG")
    return grid


def _profile(run: Run, shown: Console) -> dict[str, Any]:
    """Our contenders twice each: with clocks around the stages, and under Python's profiler."""
    found: dict[str, Any] = {"exact": True}
    for contender in CONTENDERS:
        if contender.module == "ours":
            shown.print(f"Profiling: {NAMES[contender.name]}")
            staged, profiled = run.measure(contender, "stages"), run.measure(contender, "functions")
            found["exact"] &= staged.exact and profiled.exact
            found[contender.name] = {
                "eps": round(staged.outcome.eps),
                "stages_us": {s.name: _us(s.cpu_s, staged.outcome) for s in staged.outcome.stages},
                "functions_us": {f.name: _us(f.own_s, profiled.outcome) for f in profiled.outcome.functions},
            }
    return found


def _us(cpu_s: float, outcome: Outcome) -> float:
    return round(cpu_s / outcome.events * 1e6, 3)


def _profile_grid(found: dict[str, Any]) -> Grid:
    grid = Grid("", "CPU us an event", "share")
    for name, parts in found.items():
        if name == "exact":
            continue
        for title, costs in (
            ("by stage", parts["stages_us"]),
            ("by function, under the profiler", parts["functions_us"]),
        ):
            grid.add_row(f"[bold]{NAMES[name]}, {title}", "", "")
            whole = sum(costs.values())
            for part, cost in costs.items():
                grid.add_row(Text(f"  {part}"), f"{cost:.2f}", f"{cost / whole:.1%}")
            grid.add_section()
    return grid
