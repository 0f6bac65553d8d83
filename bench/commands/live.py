"""`millrace bench live`."""

import os
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from bench.freshness import own_cluster
from bench.live import Load, measure
from streams.errors import MillraceError
from topologies.cli.options import Bootstrap, Json
from topologies.settings import find_cluster, home_directory

Rate = Annotated[float, typer.Option("--rate", help="Order events per second that flow in meanwhile.")]
Clients = Annotated[int, typer.Option("--clients", help="How many follow live views, on a connection each.")]
Slow = Annotated[int, typer.Option("--slow", help="How many beside them read nothing for five seconds at a time.")]
Seconds = Annotated[float, typer.Option("--seconds", help="How long to follow.")]
Flush = Annotated[float, typer.Option("--flush", help="Seconds between two flushes of the worker.")]


def register(bench: typer.Typer) -> None:
    """Add `live` to `millrace bench`."""
    bench.command("live", epilog="Example: millrace bench live")(live)


def live(
    rate: Rate = 10_000,
    clients: Clients = 1_000,
    slow: Slow = 10,
    seconds: Seconds = 30,
    flush: Flush = 0.1,
    bootstrap: Bootstrap = None,
    json: Json = False,
) -> None:
    """Measure how late live views come to many clients of one view server, and compare what all end with.

    With --bootstrap topics and groups are named `live-...`, and stay there.
    """
    if rate <= 0 or clients < 1 or slow < 0 or seconds < 1:
        raise MillraceError("give --rate above 0, --clients and --seconds of at least 1, --slow of at least 0")
    named = bootstrap or os.environ.get("MILLRACE_BOOTSTRAP")
    cluster = find_cluster(os.environ, home_directory(os.environ), named) if named else None
    shown = Console(stderr=True)
    shown.print(f"{clients:,} clients for {seconds:g} s beside {rate:,.0f} events/s; half a minute more in all")
    with own_cluster(cluster) as (found, home):
        told = measure(found, home, Load(rate, clients, slow, seconds), flush)
    typer.echo(orjson.dumps(told) if json else "\n".join(lines(told)))
    if told["wrong"]:
        raise MillraceError(f"{told['wrong']} clients ended with wrong numbers")


def lines(told: dict[str, Any]) -> list[str]:
    """The figures in words."""
    right = told["clients"] + told["slow_clients"] - told["wrong"]
    return [
        f"{told['clients']:,} clients of {told['views']} live views beside {told['events_per_s']:,} events/s, and "
        f"{told['slow_clients']} that read nothing for seconds: {right:,} ended with the right numbers",
        f"from computed to received: p50 {told['p50_ms']} ms, p99 {told['p99_ms']} ms, max {told['max_ms']} ms of "
        f"{told['frames_per_s']:,} frames a second",
        f"the view server took {told['view_server_cores']} of a core, and {told['view_server_mb']} MB of memory "
        f"({told['view_server_mb_alone']} without clients); the clients took {told['clients_cores']} of a core, "
        f"load average {told['load_average']} on {told['machine_cores']} cores",
    ]
