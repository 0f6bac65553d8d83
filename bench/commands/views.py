"""`millrace bench views`."""

import os
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from bench.answers import measure
from bench.freshness import own_cluster
from streams.errors import MillraceError
from topologies.cli.options import Bootstrap, Json
from topologies.settings import find_cluster, home_directory

Rate = Annotated[float, typer.Option("--rate", help="Events per second that flow in meanwhile.")]
Requests = Annotated[float, typer.Option("--requests", help="Requests per second, of all paths together.")]
Seconds = Annotated[float, typer.Option("--seconds", help="How long to ask.")]


def register(bench: typer.Typer) -> None:
    """Add `views` to `millrace bench`."""
    bench.command("views")(views)


def views(
    rate: Rate = 10_000,
    requests: Requests = 500,
    seconds: Seconds = 30,
    bootstrap: Bootstrap = None,
    json: Json = False,
) -> None:
    """Measure how long the views of behaviour and recommendations take to answer while events flow in.

    Requests are sent at fixed times, and a request's time is from when it was to be sent. With --bootstrap topics and
    groups are named `answers-...`, and stay there.
    """
    if rate <= 0 or requests <= 0 or seconds < 1:
        raise MillraceError("give --rate and --requests above 0, --seconds of at least 1")
    named = bootstrap or os.environ.get("MILLRACE_BOOTSTRAP")
    cluster = find_cluster(os.environ, home_directory(os.environ), named) if named else None
    shown = Console(stderr=True)
    shown.print(f"{requests:g} requests/s for {seconds:g} s beside {rate:,.0f} events/s; half a minute more in all")
    with own_cluster(cluster) as (found, home):
        told = measure(found, home, rate, requests, seconds)
    typer.echo(orjson.dumps(told) if json else "\n".join(lines(told)))
    if told["all"]["failed"]:
        raise MillraceError(f"{told['all']['failed']} requests failed: these figures mean nothing")


def lines(told: dict[str, Any]) -> list[str]:
    """The figures in words."""
    found = [
        f"{path}: p50 {one['p50_ms']} ms, p99 {one['p99_ms']} ms, max {one['max_ms']} ms of {one['answers']:,} answers"
        for path, one in [*told["paths"].items(), ("all", told["all"])]
    ]
    beside = f"beside {told['events_per_s']:,} events/s; the view server took {told['view_server_cores']} of a core"
    return [*found, f"{beside}, load average {told['load_average']} on {told['machine_cores']} cores"]
