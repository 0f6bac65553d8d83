"""`millrace bench ready`."""

import tempfile
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from bench.freshness import own_cluster
from bench.ready import measure
from topologies.cli.options import Json
from topologies.settings import Settings

Kills = Annotated[int, typer.Option("--kills", min=1, help="How often the worker is killed.")]
Rate = Annotated[float, typer.Option("--rate", help="Order events per second meanwhile.")]


def register(bench: typer.Typer) -> None:
    """Add `ready` to `millrace bench`."""
    bench.command("ready", epilog="Example: millrace bench ready")(ready)


def ready(kills: Kills = 25, rate: Rate = 3_000, json: Json = False) -> None:
    """Measure how soon a worker is ready again after kill -9 under load, from the start of its process."""
    console = Console(stderr=True)

    def done(number: int, seconds: float) -> None:
        console.print(f"kill {number + 1} of {kills}: ready {seconds:.2f} s after its start")

    with own_cluster(None) as (cluster, home), tempfile.TemporaryDirectory() as state:
        settings = Settings.from_environment(cluster=cluster, home=home, state_dir=Path(state), prefix="ready-")
        result = measure(settings, Path(home), kills, rate, done)
    typer.echo(orjson.dumps(result) if json else "\n".join(f"{name}: {value}" for name, value in result.items()))
