"""`millrace bench restore`."""

from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from bench.freshness import own_cluster
from bench.measure import Outcome
from bench.restore import measure
from topologies.cli.options import Json

Records = Annotated[int, typer.Option("--records", help="Changelog records to restore from.")]
PlainRecords = Annotated[int, typer.Option("--plain-records", help="The same for plain Faust, which takes its time.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="How often the two take turns.")]


def register(bench: typer.Typer) -> None:
    """Add `restore` to `millrace bench`."""
    bench.command("restore", epilog="Example: millrace bench restore")(restore)


def restore(
    records: Records = 2_000_000, plain_records: PlainRecords = 80_000, rounds: Rounds = 3, json: Json = False
) -> None:
    """Measure how fast a worker without local state has its tables back, beside plain Faust; both are checked."""
    console = Console(stderr=True)
    console.print(f"Writing {records:,} changelog records, and {plain_records:,} of plain Faust's")

    def done(name: str, outcome: Outcome) -> None:
        console.print(f"{name:>12} {outcome.eps:>12,.0f} records/s")

    with own_cluster(None) as (cluster, _):
        result = measure(cluster, records, plain_records, rounds, done)
    typer.echo(orjson.dumps(result) if json else _text(result))


def _text(result: dict[str, Any]) -> str:
    ours, plain = result["contenders"].values()
    return (
        f"restored from nothing, every cell checked: {result['records_per_s']:,} records/s ({ours['records']:,} "
        f"records, {ours['records_per_cpu_s']:,} a second of processor time); plain Faust "
        f"{result['plain_faust_records_per_s']:,} ({plain['records']:,} records): "
        f"{result['ratio_to_plain_faust']:g} times"
    )
