"""`millrace bench rebalance`."""

import tempfile
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from bench.freshness import own_cluster
from bench.rebalance import measure
from topologies.cli.options import Json
from topologies.settings import Settings

Joins = Annotated[int, typer.Option("--joins", help="How often a third worker joins and leaves.")]
Rate = Annotated[float, typer.Option("--rate", help="Order events per second meanwhile.")]


def register(bench: typer.Typer) -> None:
    """Add `rebalance` to `millrace bench`."""
    bench.command("rebalance", epilog="Example: millrace bench rebalance")(rebalance)


def rebalance(joins: Joins = 10, rate: Rate = 3_000, json: Json = False) -> None:
    """Measure how long two workers stand still while a third one joins and leaves under load."""
    console = Console(stderr=True)
    with own_cluster(None) as (cluster, home), tempfile.TemporaryDirectory() as state:
        settings = Settings.from_environment(cluster=cluster, home=home, state_dir=Path(state), prefix="rebalance-")
        result = measure(settings, Path(home), joins, rate, console.print)
    typer.echo(orjson.dumps(result) if json else "\n".join(f"{name}: {value}" for name, value in result.items()))
