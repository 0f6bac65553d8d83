"""`millrace chaos`: seeded faults against a running topology, and everything compared afterwards."""

import os
import secrets
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from streams.broker import Broker
from streams.cluster import Cluster
from streams.errors import MillraceError
from topologies.chaos.faults import FAULTS
from topologies.chaos.own import own_subject
from topologies.chaos.run import Outcome, delete_topics, run_once, schedule
from topologies.chaos.soak import soak as run_soak
from topologies.chaos.subject import BEHAVIOUR, SALES, SUBJECTS, subject_named
from topologies.cli.broker import bring_up
from topologies.cli.chaos_beside import RATE as RATE_BESIDE
from topologies.cli.chaos_beside import beside
from topologies.cli.completing import topologies
from topologies.cli.ending import INTERRUPTED, ended_by_signals
from topologies.cli.options import Bootstrap, Home, Json
from topologies.settings import Settings, find_cluster, home_directory

SHOWN = 10
# Three days of event time in twenty minutes.
SOAK_SPEED = 216.0
SESSION_S = 4.0
# Short sessions, so that a paused worker is a zombie soon, and a cleaner that looks often.
PROPERTIES = {"group.min.session.timeout.ms": "1000", "log.cleaner.backoff.ms": "200"}

Runs = Annotated[int, typer.Option("--runs", help="How many runs, each with a schedule of its own.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the first run; the next ones count on from it.")]
Count = Annotated[
    int,
    typer.Option(
        "--faults", help="Faults in a run; those at whose moment nothing was at stake do not count and are repeated."
    ),
]
Only = Annotated[str | None, typer.Option("--only", help=f"Choose among these alone: {', '.join(FAULTS)}.")]
Nodes = Annotated[int, typer.Option("--nodes", help="Of the embedded broker: 1 or 3.")]
Rate = Annotated[
    float | None,
    typer.Option(
        "--rate",
        help=f"Events per second; else {SALES.rate:,.0f}, of behaviour and recommendations {BEHAVIOUR.rate:,.0f}, "
        f"beside Faust {RATE_BESIDE:,.0f}.",
    ),
]
Soak = Annotated[
    float | None,
    typer.Option("--soak", help="Minutes of one long run instead: are memory, disk and open files flat?"),
]
TopologyName = Annotated[
    str,
    typer.Option(
        "--topology",
        help=f"Which one: {', '.join(SUBJECTS)}, or yours as module:attribute with a --load.",
        autocompletion=topologies,
    ),
]
LoadName = Annotated[
    str | None,
    typer.Option(
        "--load",
        help="The load of your own topology, as module:function: called with a random.Random, it yields (topic, key, "
        "value) for ever.",
    ),
]
Beside = Annotated[
    bool, typer.Option("--beside-faust", help="Do the same to plain Faust, and show side by side what each counts.")
]


@dataclass
class Place:
    """Where runs happen; `keep` leaves logs, state and the broker's data there."""

    cluster: Cluster
    broker: Broker | None
    directory: Path
    keep: bool = False


def register(app: typer.Typer) -> None:
    """Add `chaos` to `millrace`."""
    app.command("chaos", epilog="Example: millrace chaos --runs 3 --seed 7")(chaos)


def chaos(
    runs: Runs = 5,
    seed: Seed = 1,
    faults: Count = 5,
    only: Only = None,
    nodes: Nodes = 1,
    rate: Rate = None,
    soak: Soak = None,
    topology: TopologyName = "analytics",
    load: LoadName = None,
    beside_faust: Beside = False,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Try to make the tables wrong: kill, wipe, pause, join, corrupt, stop brokers, then compare every cell.

    The last line is one JSON object; the exit code is 0 only if every run was exact. Some runs end with a fault that
    workers must refuse to go on after (`refused_runs`): they were compared before it, and count as exact if they
    refused. State and logs of a run that was not exact are kept. Beside Faust, the faults are those that any worker
    can suffer, and the exit code is 0 only if something was caught there too, with each of its two guarantees. A
    topology of yours is compared with what the test driver makes of the same source records.
    """
    console = Console(stderr=True)
    if (beside_faust or soak is not None) and (topology != SALES.name or (beside_faust and soak is not None)):
        raise MillraceError("--soak and --beside-faust are each for themselves, and for --topology analytics alone")
    if beside_faust:
        with ended_by_signals(INTERRUPTED), _place(home, nodes, bootstrap) as place:
            settings_for = partial(_settings, place)
            found = beside(console, settings_for, place.directory, range(seed, seed + runs), faults, only, rate)
            place.keep = not found["exact"]
        _end(found, found["exact"] and found["caught"])
        return
    if soak is not None:
        with ended_by_signals(INTERRUPTED), _place(home, nodes, bootstrap) as place:
            figures = run_soak(
                _settings(place, seed),
                place.broker,
                place.directory / "soak",
                minutes=soak,
                rate=rate or SALES.rate,
                speed=SOAK_SPEED,
                seed=seed,
                report=partial(_report, console),
            )
            place.keep = not figures["exact"]
        _print_soak(console, figures)
        _end({**figures, "bootstrap": place.cluster.bootstrap}, figures["exact"])
        return
    subject = own_subject(topology, load) if load is not None else subject_named(topology)
    if load is not None and (bootstrap or os.environ.get("MILLRACE_BOOTSTRAP")):
        raise MillraceError("a topology of yours is tried on the embedded broker, where its topics are its own")
    outcomes: list[Outcome] = []
    names = _chosen(only, embedded=not (bootstrap or os.environ.get("MILLRACE_BOOTSTRAP")))
    with ended_by_signals(INTERRUPTED), _place(home, nodes, bootstrap) as place:
        for number in range(seed, seed + runs):
            settings = subject.fitted(_settings(place, number, **subject.settings))
            planned = schedule(number, faults, names)
            console.print(f"run {number}: {', '.join(planned)}")
            outcome = run_once(
                settings,
                place.broker,
                place.directory / str(number),
                number,
                planned,
                rate=rate or subject.rate,
                report=partial(_report, console),
                subject=subject,
            )
            outcomes.append(outcome)
            _print(console, outcome)
            if outcome.exact:
                delete_topics(settings, subject)
                shutil.rmtree(settings.state_dir, ignore_errors=True)
        _print_tally(console, outcomes)
        place.keep = not all(outcome.exact for outcome in outcomes)
        if place.keep:
            console.print(f"state and logs of what was not exact are kept in {place.directory}", markup=False)
    _end(_answer(place, nodes, outcomes), not place.keep)


def _print_soak(console: Console, figures: dict[str, Any]) -> None:
    table = Table("measured", "second quarter", "last quarter", "highest", "trend an hour", box=None)
    for name, told in figures["measured"].items():
        table.add_row(name, *(f"{told[part]:,.1f}" for part in ("early", "late", "highest", "per_hour")))
    console.print(table)


def _end(answer: dict[str, Any], good: bool) -> None:
    typer.echo(orjson.dumps(answer))
    if not good:
        raise typer.Exit(1)


def _answer(place: Place, nodes: int, outcomes: list[Outcome]) -> dict[str, Any]:
    return {
        "runs": len(outcomes),
        "faults": sum(len(outcome.faults) for outcome in outcomes),
        "exact_runs": sum(outcome.exact for outcome in outcomes),
        "refused_runs": sum(outcome.refused for outcome in outcomes),
        "bootstrap": place.cluster.bootstrap,
        "nodes": nodes if place.broker is not None else None,
        "events": sum(outcome.events for outcome in outcomes),
        "cells": sum(outcome.cells for outcome in outcomes),
        "by_fault": dict(sorted(Counter(name for outcome in outcomes for name in outcome.faults).items())),
    }


def _chosen(only: str | None, *, embedded: bool) -> list[str]:
    names = only.split(",") if only else [name for name in FAULTS if embedded or not name.startswith("broker")]
    for name in names:
        if name not in FAULTS:
            raise MillraceError(f"there is no fault {name!r}; there are {', '.join(FAULTS)}")
    return names


def _report(console: Console, line: str) -> None:
    console.print(f"  {line}", markup=False, highlight=False)


def _print_tally(console: Console, outcomes: list[Outcome]) -> None:
    table = Table("fault", "counted", "nothing at stake", box=None)
    counted = Counter(name for outcome in outcomes for name in outcome.faults)
    idle = Counter(name for outcome in outcomes for name in outcome.idle)
    for name in FAULTS:
        if counted[name] or idle[name]:
            table.add_row(name, str(counted[name]), str(idle[name]))
    console.print(table)


def _print(console: Console, outcome: Outcome) -> None:
    verdict = "exact" if outcome.exact else f"{len(outcome.mismatches)} WRONG"
    console.print(
        f"  {verdict}: {outcome.events:,} events, {outcome.cells:,} cells compared, "
        f"{len(outcome.faults)} faults counted, {outcome.seconds:.0f} s"
        + (", refused after the last one" if outcome.refused else "")
    )
    for mismatch in outcome.mismatches[:SHOWN]:
        console.print(f"    {mismatch}", markup=False)


@contextmanager
def _place(home: Path | None, nodes: int, bootstrap: str | None) -> Iterator[Place]:
    directory = (home or home_directory(os.environ)) / f"chaos-{secrets.token_hex(4)}"
    if bootstrap or os.environ.get("MILLRACE_BOOTSTRAP"):
        place = Place(find_cluster(os.environ, directory, bootstrap), None, directory)
    else:
        broker = Broker(directory, nodes, PROPERTIES)
        place = Place(bring_up(broker), broker, directory)
    try:
        yield place
    except MillraceError:
        place.keep = True  # the logs say what went wrong
        raise
    finally:
        if place.broker is not None:
            place.broker.down(wipe=not place.keep)
        if not place.keep:
            shutil.rmtree(directory, ignore_errors=True)


def _settings(place: Place, number: int, **more: Any) -> Settings:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Settings.from_environment(
        cluster=place.cluster,
        home=place.directory,
        state_dir=place.directory / f"state-{number}",
        views_port=port,
        prefix=f"chaos-{number}-",
        # Claimed among the workers of one state directory; far from those of other runs on this machine.
        worker_port=10_000 + secrets.randbelow(10_000),
        session_s=SESSION_S,
        **more,
    )
