"""`millrace perf`: how many records a second a cluster takes and gives, and how long it takes to acknowledge one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from streams.admin import perf as measuring
from streams.admin.perf import Consumed, Load, Produced, Report
from topologies.cli.completing import topics as known_topics
from topologies.cli.ending import INTERRUPTED, ended_by_signals
from topologies.cli.options import Bootstrap, Home, Json
from topologies.settings import Settings

perf = typer.Typer(help="Measure a cluster: throughput, and latency percentiles.", no_args_is_help=True)

TopicName = Annotated[str, typer.Argument(help="The topic, which is there.", autocompletion=known_topics)]
Records = Annotated[int, typer.Option("--records", "-n", min=1, help="How many.")]
Size = Annotated[int, typer.Option("--size", "-s", min=1, help="Bytes of each value: random letters, without a key.")]
Rate = Annotated[float, typer.Option("--rate", min=0, help="At most so many records a second; 0: as fast as it goes.")]
Acks = Annotated[str, typer.Option("--acks", help="Who must have a record: all (replicas in sync), 1 (leader), 0.")]
Linger = Annotated[float, typer.Option("--linger-ms", min=0, help="How long a record may wait for others.")]
Batch = Annotated[
    int | None, typer.Option("--batch-bytes", min=1, help="The largest batch; librdkafka's 1,000,000 if not given.")
]
Compression = Annotated[str, typer.Option("--compression", help="none, gzip, snappy, lz4 or zstd.")]
Group = Annotated[
    str | None, typer.Option("--group", "-g", help="Of this group, which stays; else of one made for this alone.")
]
Idle = Annotated[float, typer.Option("--timeout", min=0, help="Give up when none has come for so many seconds.")]


def register(app: typer.Typer) -> None:
    """Add `perf` to `millrace`."""
    app.add_typer(perf, name="perf")


@perf.command(epilog="Example: millrace perf produce clicks --records 1000000 --size 1000 --acks all")
def produce(
    topic: TopicName,
    records: Records = 100_000,
    size: Size = 1000,
    rate: Rate = 0,
    acks: Acks = "all",
    linger_ms: Linger = 5,
    batch_bytes: Batch = None,
    compression: Compression = "none",
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Send records and measure until the last is acknowledged; figures mean what kafka-producer-perf-test's mean."""
    if acks not in ("all", "1", "0"):
        raise typer.BadParameter(f"--acks is all, 1 or 0, not {acks!r}")
    load = Load(records, size, rate, acks, linger_ms, batch_bytes, compression)
    cluster = Settings.from_environment(bootstrap=bootstrap, home=home).cluster
    with ended_by_signals(INTERRUPTED), _shown(records) as report:
        done = measuring.produce(cluster, topic, load, report)
    typer.echo(orjson.dumps(produced(done)) if json else _said_produced(done))


@perf.command(epilog="Example: millrace perf consume clicks --records 1000000")
def consume(
    topic: TopicName,
    records: Records = 100_000,
    group: Group = None,
    timeout: Idle = 10,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Read records from the beginning and measure; figures mean what kafka-consumer-perf-test's mean."""
    cluster = Settings.from_environment(bootstrap=bootstrap, home=home).cluster
    with ended_by_signals(INTERRUPTED), _shown(records) as report:
        done = measuring.consume(cluster, topic, records, group=group, idle_s=timeout, report=report)
    typer.echo(orjson.dumps(consumed(done)) if json else _said_consumed(done))


def produced(done: Produced) -> dict[str, Any]:
    """As one JSON object."""
    p50, p95, p99, p999 = (round(ms, 3) for ms in done.percentiles_ms)
    return {
        "records": done.records,
        "bytes": done.bytes,
        "seconds": round(done.seconds, 3),
        "recordsPerSecond": round(done.rate, 1),
        "megabytesPerSecond": round(done.megabytes, 2),
        "latencyMs": {
            "average": round(done.average_ms, 3),
            "p50": p50,
            "p95": p95,
            "p99": p99,
            "p99.9": p999,
            "max": round(done.max_ms, 3),
        },
    }


def consumed(done: Consumed) -> dict[str, Any]:
    """As one JSON object."""
    return {
        "records": done.records,
        "bytes": done.bytes,
        "seconds": round(done.seconds, 3),
        "recordsPerSecond": round(done.rate, 1),
        "megabytesPerSecond": round(done.megabytes, 2),
        "joinSeconds": round(done.join_s, 3),
        "fetchRecordsPerSecond": round(done.fetch_rate, 1),
    }


def _said_produced(done: Produced) -> str:
    p50, p95, p99, p999 = done.percentiles_ms
    return (
        f"{done.records:,} records sent in {done.seconds:.2f} s: {done.rate:,.0f} a second, {done.megabytes:.2f} MB/s\n"
        f"acknowledged after {done.average_ms:.1f} ms on average; 50% within {p50:.1f} ms, 95% {p95:.1f}, "
        f"99% {p99:.1f}, 99.9% {p999:.1f}, all {done.max_ms:.1f}"
    )


def _said_consumed(done: Consumed) -> str:
    return (
        f"{done.records:,} records read in {done.seconds:.2f} s: {done.rate:,.0f} a second, {done.megabytes:.2f} MB/s\n"
        f"{done.join_s:.2f} s of it until partitions were assigned; {done.fetch_rate:,.0f} a second without them"
    )


@contextmanager
def _shown(records: int) -> Iterator[Report | None]:
    """A live line on stderr, on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    line = TextColumn("{task.completed:,.0f} records  {task.fields[rate]:,.0f}/s")
    with Progress(BarColumn(), line, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=records, rate=0.0)

        def report(count: int, seconds: float) -> None:
            bar.update(task, completed=count, rate=count / max(seconds, 1e-6))

        yield report
