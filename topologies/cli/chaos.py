"""`millrace chaos`: seeded faults against a running topology, and everything compared afterwards."""

import os
import secrets
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from streams.broker import Broker
from streams.cluster import Cluster
from streams.errors import MillraceError
from topologies.chaos.faults import FAULTS
from topologies.chaos.run import Outcome, run_once, schedule
from topologies.cli.broker import bring_up
from topologies.cli.options import Bootstrap, Home, Json
from topologies.settings import Settings, find_cluster, home_directory

SHOWN = 10
SESSION_S = 4.0
# Short sessions, so that a paused worker is a zombie soon, and a cleaner that looks often.
PROPERTIES = {"group.min.session.timeout.ms": "1000", "log.cleaner.backoff.ms": "200"}

Runs = Annotated[int, typer.Option("--runs", help="How many runs, each with a schedule of its own.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the first run; the next ones count on from it.")]
Count = Annotated[int, typer.Option("--faults", help="Faults in a run.")]
Only = Annotated[str | None, typer.Option("--only", help=f"Choose among these alone: {', '.join(FAULTS)}.")]
Nodes = Annotated[int, typer.Option("--nodes", help="Of the embedded broker: 1 or 3.")]
Rate = Annotated[float, typer.Option("--rate", help="Events per second while the faults happen.")]


def register(app: typer.Typer) -> None:
    """Add `chaos` to `millrace`."""
    app.command("chaos")(chaos)


def chaos(
    runs: Runs = 5,
    seed: Seed = 1,
    faults: Count = 6,
    only: Only = None,
    nodes: Nodes = 1,
    rate: Rate = 4000.0,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Try to make the tables wrong: kill, wipe, pause, join, corrupt, stop brokers, then compare every cell.

    The last line is one JSON object; the exit code is 0 only if every run was exact.
    """
    console = Console(stderr=True)
    outcomes: list[Outcome] = []
    names = _chosen(only, embedded=not (bootstrap or os.environ.get("MILLRACE_BOOTSTRAP")))
    with _place(home, nodes, bootstrap) as (cluster, broker, directory):
        for number in range(seed, seed + runs):
            settings = _settings(cluster, directory, number)
            planned = schedule(number, faults, names)
            console.print(f"run {number}: {', '.join(planned)}")
            outcome = run_once(settings, broker, directory / str(number), number, planned, rate=rate)
            outcomes.append(outcome)
            _print(console, outcome)
            shutil.rmtree(settings.state_dir, ignore_errors=True)
        answer = {
            "runs": len(outcomes),
            "faults": sum(outcome.counted for outcome in outcomes),
            "exact_runs": sum(outcome.exact for outcome in outcomes),
            "bootstrap": cluster.bootstrap,
            "nodes": nodes if broker is not None else None,
            "events": sum(outcome.events for outcome in outcomes),
            "cells": sum(outcome.cells for outcome in outcomes),
            "by_fault": dict(Counter(name for outcome in outcomes for name in outcome.faults)),
        }
    typer.echo(orjson.dumps(answer))
    if not all(outcome.exact for outcome in outcomes):
        raise typer.Exit(1)


def _chosen(only: str | None, *, embedded: bool) -> list[str]:
    names = only.split(",") if only else [name for name in FAULTS if embedded or name != "broker"]
    for name in names:
        if name not in FAULTS:
            raise MillraceError(f"there is no fault {name!r}; there are {', '.join(FAULTS)}")
    return names


def _print(console: Console, outcome: Outcome) -> None:
    verdict = "exact" if outcome.exact else f"{len(outcome.mismatches)} WRONG"
    console.print(
        f"  {verdict}: {outcome.events:,} events, {outcome.cells:,} cells compared, "
        f"{outcome.counted} of {len(outcome.faults)} faults under load, {outcome.seconds:.0f} s"
    )
    for mismatch in outcome.mismatches[:SHOWN]:
        console.print(f"    {mismatch}", markup=False)


@contextmanager
def _place(home: Path | None, nodes: int, bootstrap: str | None) -> Iterator[tuple[Cluster, Broker | None, Path]]:
    directory = (home or home_directory(os.environ)) / f"chaos-{secrets.token_hex(4)}"
    broker: Broker | None = None
    try:
        if bootstrap or os.environ.get("MILLRACE_BOOTSTRAP"):
            yield find_cluster(os.environ, directory, bootstrap), None, directory
        else:
            broker = Broker(directory, nodes, PROPERTIES)
            yield bring_up(broker), broker, directory
    except MillraceError:
        if broker is not None:
            broker.down(wipe=True)
        raise  # the logs stay: they say what went wrong
    except BaseException:
        if broker is not None:
            broker.down(wipe=True)
        shutil.rmtree(directory, ignore_errors=True)
        raise
    else:
        if broker is not None:
            broker.down(wipe=True)
        shutil.rmtree(directory, ignore_errors=True)


def _settings(cluster: Cluster, directory: Path, number: int) -> Settings:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Settings.from_environment(
        cluster=cluster,
        home=directory,
        state_dir=directory / f"state-{number}",
        views_port=port,
        prefix=f"chaos-{number}-",
        session_s=SESSION_S,
    )
