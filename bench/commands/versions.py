"""`millrace bench versions`."""

import os
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from bench.freshness import own_cluster
from bench.versions import Load, measure
from streams.errors import MillraceError
from topologies.cli.options import Bootstrap, Json
from topologies.settings import find_cluster, home_directory

History = Annotated[int, typer.Option("--history", help="Orders that a version has to catch up with.", min=1_000)]
Rate = Annotated[float, typer.Option("--rate", help="Order events per second that flow in meanwhile.")]
Requests = Annotated[float, typer.Option("--requests", help="Requests per second while versions are switched.")]


def register(bench: typer.Typer) -> None:
    """Add `versions` to `millrace bench`."""
    bench.command("versions", epilog="Example: millrace bench versions")(versions)


def versions(
    history: History = 500_000,
    rate: Rate = 5_000,
    requests: Requests = 200,
    bootstrap: Bootstrap = None,
    json: Json = False,
) -> None:
    """Measure what building a version beside the served one costs it, and what requests see of a switch.

    With --bootstrap topics and groups are named `versions-...`, and stay there.
    """
    if rate <= 0 or requests <= 0:
        raise MillraceError("give a --rate and --requests above 0")
    named = bootstrap or os.environ.get("MILLRACE_BOOTSTRAP")
    cluster = find_cluster(os.environ, home_directory(os.environ), named) if named else None
    console = Console(stderr=True)
    with own_cluster(cluster) as (found, home):
        told = measure(found, home, Load(history, rate, requests), lambda line: console.print(line, soft_wrap=True))
    typer.echo(orjson.dumps(told) if json else "\n".join(lines(told)))
    wrong = told["same"]["differing"] + told["changed"]["unplanted"] + told["switching"]["mixed"]
    if wrong or told["switching"]["failed"]:
        raise MillraceError("versions did not say what they must, or requests failed: see the figures")


def lines(told: dict[str, Any]) -> list[str]:
    """The figures in words."""
    switching = told["switching"]
    found = [
        f"live freshness beside {told['events_per_s']:,} orders/s: p50 {told['alone']['p50_ms']:.0f} ms, "
        f"p99 {told['alone']['p99_ms']:.0f} ms"
    ]
    for version in ("v2", "v3"):
        one = told[version]
        found.append(
            f"while {version} is built beside it, {one['records']:,} orders in {one['seconds']} s "
            f"({one['records_per_s']:,}/s): p50 {one['p50_ms']:.0f} ms, p99 {one['p99_ms']:.0f} ms, "
            f"max {one['max_ms']:.0f} ms"
        )
    found += [
        f"the same logic: {told['same']['differing']} of {told['same']['cells']:,} closed cells differ",
        f"a changed one: {told['changed']['differing']} of {told['changed']['cells']:,} differ, "
        f"{told['changed']['planted']} as planted, {told['changed']['unplanted']} otherwise",
        f"{switching['requests']:,} requests over a switch ({switching['switch_s']} s) and a rollback "
        f"({switching['rollback_s']} s): {sum(switching['failed'].values())} failed, {switching['mixed']} of more than "
        f"one version; p50 {switching['p50_ms']:.1f} ms, p99 {switching['p99_ms']:.0f} ms",
    ]
    return found
