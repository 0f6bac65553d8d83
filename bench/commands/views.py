"""`millrace bench views`."""

import os
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console

from bench import answers, endpoints
from bench.freshness import own_cluster
from streams.cluster import Cluster
from streams.errors import MillraceError
from topologies.cli.options import Bootstrap, Json
from topologies.real_time import may_run_first
from topologies.settings import find_cluster, home_directory

Rate = Annotated[float, typer.Option("--rate", help="Events per second that flow in meanwhile.")]
Requests = Annotated[float, typer.Option("--requests", help="Requests per second, of all paths together.")]
Seconds = Annotated[
    float | None, typer.Option("--seconds", help="How long to ask: 30, or with --each 1 for each endpoint and round.")
]
Each = Annotated[bool, typer.Option("--each", help="Instead each endpoint alone, beside a bare aiohttp handler.")]
RealTime = Annotated[
    bool | None,
    typer.Option(help="Run the view server before everything else (see millrace views); as is permitted without it."),
]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="With --each: how often the two take turns.")]


PRIORITIES: Final = {True: "real-time priority", False: "the same priority as all"}


def register(bench: typer.Typer) -> None:
    """Add `views` to `millrace bench`."""
    bench.command("views", epilog="Example: millrace bench views")(views)


def views(
    rate: Rate = 10_000,
    requests: Requests = 500,
    seconds: Seconds = None,
    real_time: RealTime = None,
    each: Each = False,
    rounds: Rounds = 3,
    bootstrap: Bootstrap = None,
    json: Json = False,
) -> None:
    """Measure how long the views of behaviour and recommendations take to answer while events flow in.

    Requests are sent at fixed times, and a request's time is from when it was to be sent. With --bootstrap topics and
    groups are named `answers-...`, and stay there.

    With --each instead every endpoint of the server is asked by 8 connections without a pause while nothing flows in,
    in turn with a bare aiohttp handler that returns the same bytes.
    """
    lasts = seconds or (1 if each else 30)
    if rate <= 0 or requests <= 0 or lasts < 1:
        raise MillraceError("give --rate and --requests above 0, --seconds of at least 1")
    named = bootstrap or os.environ.get("MILLRACE_BOOTSTRAP")
    cluster = find_cluster(os.environ, home_directory(os.environ), named) if named else None
    if each:
        _each(cluster, lasts, rounds, json)
    else:
        first = may_run_first() if real_time is None else real_time
        _beside(cluster, answers.Questions(rate, requests, lasts, first), json)


def _beside(cluster: Cluster | None, asked: answers.Questions, json: bool) -> None:
    shown = Console(stderr=True)
    shown.print(
        f"{asked.requests:g} requests/s for {asked.seconds:g} s beside {asked.rate:,.0f} events/s, "
        f"the view server with {PRIORITIES[asked.real_time]}; half a minute more in all"
    )
    with own_cluster(cluster) as (found, home):
        told = answers.measure(found, home, asked)
    typer.echo(orjson.dumps(told) if json else "\n".join(lines(told)))
    if told["all"]["failed"]:
        raise MillraceError(f"{told['all']['failed']} requests failed: these figures mean nothing")


def _each(cluster: Cluster | None, seconds: float, rounds: int, json: bool) -> None:
    shown = Console(stderr=True)
    shown.print("Requests a second and p99 in ms: ours, then a bare aiohttp handler with the same bytes")

    def done(one: endpoints.Figures) -> None:
        shown.print(row(one), highlight=False, soft_wrap=True)

    with own_cluster(cluster) as (found, home):
        told = endpoints.measure(found, home, seconds, rounds, done)
    if json:
        typer.echo(endpoints.as_json(told))


def row(one: endpoints.Figures) -> str:
    """One endpoint's figures."""
    return (
        f"{one.endpoint:<36} {one.size:>8,} B {one.per_s:>7,}/s {one.p99_ms:>7.2f} ms "
        f"{one.bare_per_s:>7,}/s {one.bare_p99_ms:>7.2f} ms {one.ratio:>6.2f}"
    )


def lines(told: dict[str, Any]) -> list[str]:
    """The figures in words."""
    found = [
        f"{path}: p50 {one['p50_ms']} ms, p99 {one['p99_ms']} ms, max {one['max_ms']} ms of {one['answers']:,} answers"
        for path, one in [*told["paths"].items(), ("all", told["all"])]
    ]
    priority = PRIORITIES[told["real_time"]]
    server = f"the view server, with {priority}, took {told['view_server_cores']} of a core"
    return [
        *found,
        f"beside {told['events_per_s']:,} events/s; {server}",
        f"load average {told['load_average']} on {told['machine_cores']} cores",
    ]
