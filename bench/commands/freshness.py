"""`millrace bench freshness`."""

import os
from typing import Annotated

import typer
from rich.console import Console

from bench.freshness import Load, as_json, measure, own_cluster
from streams.errors import MillraceError
from topologies.cli.options import Bootstrap, Json
from topologies.settings import find_cluster, home_directory

Rate = Annotated[float, typer.Option("--rate", help="Order events per second beside the probes.")]
Seconds = Annotated[float, typer.Option("--seconds", help="How long to probe, ten times a second.")]
Workers = Annotated[int, typer.Option("--workers", help="How many workers share the partitions.")]

Flush = Annotated[float, typer.Option("--flush", help="Seconds between two flushes of a worker.")]
Live = Annotated[bool, typer.Option("--live", help="Measure to a client of a live view, instead of an HTTP answer.")]


def register(bench: typer.Typer) -> None:
    """Add `freshness` to `millrace bench`."""
    bench.command("freshness", epilog="Example: millrace bench freshness")(freshness)


def freshness(
    rate: Rate = 10_000,
    seconds: Seconds = 30,
    workers: Workers = 1,
    flush: Flush = 0.2,
    live: Live = False,
    bootstrap: Bootstrap = None,
    json: Json = False,
) -> None:
    """Measure the time from producing an order to an HTTP answer or a live client that has it, beside a load.

    With --bootstrap topics and groups are named `freshness-...`, and stay there.
    """
    if rate <= 0 or seconds < 1 or workers < 1:
        raise MillraceError("give a --rate above 0, --seconds of at least 1, --workers of at least 1")
    named = bootstrap or os.environ.get("MILLRACE_BOOTSTRAP")
    cluster = find_cluster(os.environ, home_directory(os.environ), named) if named else None
    Console(stderr=True).print(f"Measuring for {seconds:g} s beside {rate:,.0f} events/s; half a minute more in all")
    with own_cluster(cluster) as (found, home):
        result = measure(found, home, Load(rate, seconds, workers, flush, live))
    typer.echo(as_json(result) if json else str(result))
