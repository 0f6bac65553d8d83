"""`millrace bench restore`."""

import tempfile
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from bench.freshness import own_cluster
from bench.restore import run
from topologies.cli.options import Json

Records = Annotated[int, typer.Option("--records", help="Changelog records to restore from.")]


def register(bench: typer.Typer) -> None:
    """Add `restore` to `millrace bench`."""
    bench.command("restore")(restore)


def restore(records: Records = 2_000_000, json: Json = False) -> None:
    """Measure how fast a worker without local state reads its tables back from their changelogs."""
    Console(stderr=True).print(f"Writing {records:,} changelog records, then restoring them from nothing")
    with own_cluster(None) as (cluster, home), tempfile.TemporaryDirectory() as state:
        result = run(cluster, Path(home), Path(state), records)
    typer.echo(orjson.dumps(result) if json else f"{result['records_per_s']:,} records/s ({result['seconds']} s)")
