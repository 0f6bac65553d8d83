"""`millrace bench memory`."""

import tempfile
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from bench.freshness import own_cluster
from bench.memory import measure
from topologies.cli.options import Json
from topologies.settings import Settings

Events = Annotated[int, typer.Option("--events", help="Order events to send, 720,000 to the hour of event time.")]


def register(bench: typer.Typer) -> None:
    """Add `memory` to `millrace bench`."""
    bench.command("memory", epilog="Example: millrace bench memory")(memory)


def memory(events: Events = 5_000_000, json: Json = False) -> None:
    """Measure how much memory a worker holds while millions of events pass and old windows expire."""
    console = Console(stderr=True)
    with own_cluster(None) as (cluster, home), tempfile.TemporaryDirectory() as state:
        settings = Settings.from_environment(cluster=cluster, home=home, state_dir=Path(state), prefix="memory-")
        result = measure(settings, Path(home), events, console.print)
    typer.echo(orjson.dumps(result) if json else "\n".join(f"{name}: {value}" for name, value in result.items()))
