"""`millrace bench sizing`."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from bench.freshness import own_cluster
from bench.sizing import Cost, Wire, measure, needs
from topologies.cli.options import Json
from topologies.cli.showing import print_table
from topologies.loading import OURS
from topologies.settings import Settings

Events = Annotated[int, typer.Option("--events", help="Of the simulated shop, for each topology.", min=1000)]
Rate = Annotated[float, typer.Option("--rate", help="Events a second, as they would come live.", min=100)]
RATES = (1_000_000, 10_000_000, 100_000_000)


def register(bench: typer.Typer) -> None:
    """Add `sizing` to `millrace bench`."""
    bench.command("sizing", epilog="Example: millrace bench sizing")(sizing)


def sizing(events: Events = 300_000, rate: Rate = 10_000, json: Json = False) -> None:
    """Measure what an event costs, and reckon what one, ten and a hundred million a second would take."""
    console = Console(stderr=True)
    measured = []
    for name in OURS:  # each with a broker of its own
        with own_cluster(None) as (cluster, home), tempfile.TemporaryDirectory() as state:
            settings = Settings.from_environment(cluster=cluster, home=home, state_dir=Path(state))
            measured.append(measure(settings, Path(home), name, events, rate, console.print))
    wire, costs = measured[0][0], [cost for _, cost in measured]
    if json:
        typer.echo(orjson.dumps({"wire": asdict(wire), "costs": [asdict(one) for one in costs]}))
        return
    _print(wire, costs)


def _print(wire: Wire, costs: list[Cost]) -> None:
    typer.echo(f"one event: {wire.bytes:.0f} bytes on disk, one copy; {wire.broker_cpu_us:.1f} us of the broker's time")
    columns = ("topology", "events", "us an event", "changelog records", "bytes", "keys", "bytes a key", "worker MiB")
    print_table(
        columns,
        [
            (
                one.topology,
                one.events,
                f"{one.cpu_us:.1f}",
                f"{one.changelog_records:.2f}",
                f"{one.changelog_bytes:.0f}",
                one.keys,
                f"{one.bytes_a_key:.0f}",
                one.rss_mib,
            )
            for one in costs
        ],
    )
    typer.echo("")
    rows = []
    for rate in RATES:
        for one in costs:
            found = needs(rate, one.cpu_us, wire.bytes)
            rows.append((rate, one.topology, found.workers, found.partitions, found.brokers, f"{found.disk_tb:,.0f}"))
    print_table(("events/s", "topology", "workers", "partitions", "brokers", "TB in a week"), rows)
