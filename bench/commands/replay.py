"""`millrace bench replay`."""

import tempfile
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from bench.freshness import own_cluster
from bench.replay import Run
from streams.errors import MillraceError
from topologies.cli.options import Json
from topologies.settings import Settings

Events = Annotated[int, typer.Option("--events", "-n", min=50_000, help="Orders to replay.")]


def register(bench: typer.Typer) -> None:
    """Add `replay` to `millrace bench`."""
    bench.command("replay", epilog="Example: millrace bench replay")(replay)


def replay(events: Events = 2_000_000, json: Json = False) -> None:
    """Replay in place, beside the live catch-up: rates, and every cell compared; once more with a kill -9 in between.

    Runs on a broker of its own.
    """
    console = Console(stderr=True)
    with own_cluster(None) as (cluster, home), tempfile.TemporaryDirectory() as state:
        settings = Settings.from_environment(cluster=cluster, home=home, state_dir=Path(state), prefix="replay-")
        console.print(f"Producing {events:,} orders")
        result = Run(settings, events, lambda line: console.print(line, highlight=False)).measure()
    typer.echo(orjson.dumps(result) if json else "\n".join(f"{name}: {value}" for name, value in result.items()))
    if result["differing"] or result["differing_after_kill"]:
        raise MillraceError("cells differ: these figures mean nothing; please report it")
