"""`millrace bench freshness`."""

import os
from typing import Annotated

import typer
from rich.console import Console

from bench.freshness import as_json, measure, own_cluster
from streams.errors import MillraceError
from topologies.cli.options import Bootstrap, Json
from topologies.settings import find_cluster, home_directory

Rate = Annotated[float, typer.Option("--rate", help="Order events per second beside the probes.")]
Seconds = Annotated[float, typer.Option("--seconds", help="How long to probe, ten times a second.")]
Workers = Annotated[int, typer.Option("--workers", help="How many workers share the partitions.")]


def register(bench: typer.Typer) -> None:
    """Add `freshness` to `millrace bench`."""
    bench.command("freshness")(freshness)


def freshness(
    rate: Rate = 10_000, seconds: Seconds = 30, workers: Workers = 1, bootstrap: Bootstrap = None, json: Json = False
) -> None:
    """Measure the time from producing an order to an HTTP answer that contains it, beside a load.

    With --bootstrap topics and groups are named `freshness-...`, and stay there.
    """
    if rate <= 0 or seconds < 1 or workers < 1:
        raise MillraceError("give a --rate above 0, --seconds of at least 1, --workers of at least 1")
    named = bootstrap or os.environ.get("MILLRACE_BOOTSTRAP")
    cluster = find_cluster(os.environ, home_directory(os.environ), named) if named else None
    Console(stderr=True).print(f"Measuring for {seconds:g} s beside {rate:,.0f} events/s; half a minute more in all")
    with own_cluster(cluster) as (found, home):
        result = measure(found, home, rate, seconds, workers)
    typer.echo(as_json(result) if json else str(result))
