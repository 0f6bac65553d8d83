"""`millrace bench perf`."""

from dataclasses import asdict
from typing import Annotated

import orjson
import typer
from rich.console import Console

from bench.freshness import own_cluster
from bench.perf import Row, measure, warm_up
from topologies.cli.options import Json
from topologies.cli.showing import print_table

Records = Annotated[list[int] | None, typer.Option("--records", "-n", min=1, help="How many; may be given again.")]
Size = Annotated[int, typer.Option("--size", min=1, help="Bytes of each.")]
Partitions = Annotated[int, typer.Option("--partitions", min=1, help="Of the topics.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="In which all take turns; medians are shown.")]
COLUMNS = ("records", "tool", "records/s", "MB/s", "average", "50%", "95%", "99%", "99.9%")


def register(bench: typer.Typer) -> None:
    """Add `perf` to `millrace bench`."""
    bench.command("perf", epilog="Example: millrace bench perf --records 10000 --records 1000000")(perf)


def perf(
    records: Records = None,
    size: Size = 1000,
    partitions: Partitions = 3,
    rounds: Rounds = 3,
    json: Json = False,
) -> None:
    """Measure `millrace perf` beside Kafka's ProducerPerformance and ConsumerPerformance."""
    console = Console(stderr=True)
    rows: list[Row] = []
    with own_cluster(None) as (cluster, _):
        warm_up(cluster, console.print)
        for count in records or (10_000, 1_000_000):
            rows += measure(cluster, count, size, partitions, rounds, console.print)
    if json:
        typer.echo(orjson.dumps([asdict(row) for row in rows]))
        return
    sent = [row for row in rows if row.what == "produce"]
    print_table(COLUMNS, [_sent(row) for row in sent])
    typer.echo("(milliseconds from handing a record over until it is acknowledged by all replicas)\n")
    read = [row for row in rows if row.what == "consume"]
    print_table(("records", "tool", "records/s", "MB/s", "join, s", "records/s without"), [_read(row) for row in read])


def _sent(row: Row) -> tuple[object, ...]:
    one = row.figures
    ms = (f"{one[name]:,.1f}" for name in ("average", "p50", "p95", "p99", "p99.9"))
    return (row.records, row.contender, round(one["rate"]), f"{one['megabytes']:.1f}", *ms)


def _read(row: Row) -> tuple[object, ...]:
    one = row.figures
    joined = (f"{one['join_s']:.2f}", round(one["fetch_rate"]))
    return (row.records, row.contender, round(one["rate"]), f"{one['megabytes']:.1f}", *joined)
