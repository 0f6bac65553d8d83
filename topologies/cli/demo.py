"""`millrace demo`: broker, topics, workers, views and a simulated shop, in one command."""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from streams.broker import Broker
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.simulator.ledger import Ledger
from streams.simulator.run import FLAT_OUT_EVENTS_PER_S, Plan, plan_run
from streams.simulator.settings import ShopSettings
from streams.topics import USER_ACTIVITY, missing_topics
from topologies.chaos.behaviour import behaviour_ledger
from topologies.chaos.subject import BEHAVIOUR, LOOKED_S, RECOMMENDATIONS
from topologies.cli.broker import bring_up
from topologies.cli.ending import INTERRUPTED, ended_by_signals
from topologies.cli.options import Bootstrap, Home, Json
from topologies.cli.simulate import as_dict, topic_names
from topologies.demo.kills import Kills
from topologies.demo.run import Demo, demo
from topologies.demo.status import Status
from topologies.demo.verify import Comparison, together
from topologies.names import free_port
from topologies.sales import own_topic
from topologies.settings import Settings, find_cluster, home_directory

SHOWN = 20
BESIDE = ("behaviour", "recommendations")
# Sessions that end need customers who stay away for half an hour: at 500 events/s each of these comes every 40 minutes.
DEMO_USERS = 100_000
# Carts are given up after an hour, so there must be more than that; at a rate that is sent in seconds.
HISTORY_S = 6_000
HISTORY_EVENTS_PER_S = 15
# To verify behaviour, event time is spread so widely that sessions and carts end.
VERIFIED_S = 4 * 3600
SETTLE_S = 300.0

Events = Annotated[int | None, typer.Option("--events", "-n", help="Send so many, flat out unless --rate is given.")]
Verify = Annotated[bool, typer.Option("--verify", help="Compare every total of the views with the exact answers.")]
Nodes = Annotated[int | None, typer.Option("--nodes", help="Of the embedded broker: 1 or 3.")]
Rate = Annotated[float | None, typer.Option("--rate", help="Events per second; 0 is flat out. Else 500, for ever.")]
Speed = Annotated[
    float | None,
    typer.Option(
        "--speed",
        help="Seconds of event time in a second; else 1, or four hours in all to verify behaviour, so that it ends.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Of the simulated shop.")]
Workers = Annotated[int, typer.Option("--workers", help="How many workers share the partitions.")]
Kill = Annotated[
    int, typer.Option("--kills", help="Kill a worker with SIGKILL so many times; the third time wipe all state.")
]
TopicNames = Annotated[
    str | None, typer.Option("--topics", help="Only events of these topics, with commas between; else all three.")
]
Port = Annotated[int | None, typer.Option("--port", help="Of the view server; else 8090, or a free one to verify.")]


def register(app: typer.Typer) -> None:
    """Add `demo` to `millrace`."""
    app.command("demo", epilog="Example: millrace demo --events 300000 --kills 5 --verify")(run_demo)


def run_demo(
    events: Events = None,
    verify: Verify = False,
    nodes: Nodes = None,
    rate: Rate = None,
    speed: Speed = None,
    seed: Seed = 1,
    workers: Workers = 2,
    topics: TopicNames = None,
    kills: Kill = 0,
    port: Port = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Run everything on this machine: look at the URLs, end it with Ctrl-C. With --verify: prove that it is exact.

    Beside the sales workers one worker each runs of behaviour and of recommendations, unless --topics leaves
    user-activity out. Without --events, the shop first has the last hours behind it, sent flat out. What --verify
    found is one JSON object in any case; with --json so is what was sent.
    """
    if verify and events is None:
        raise MillraceError("--verify needs an end: give --events, e.g. `millrace demo --events 300000 --verify`")
    console = Console(stderr=True)
    ended = 0 if events is None else INTERRUPTED  # without an end of its own, Ctrl-C is how it is meant to end
    with ended_by_signals(ended), _cluster(home, nodes, bootstrap, apart=verify) as (cluster, directory):
        settings = _settings(cluster, directory, port, apart=verify)
        shop = ShopSettings(seed=seed, currency=settings.currency, topics=topic_names(topics))
        beside = BESIDE if USER_ACTIVITY.name in shop.topics else ()
        if beside and events is None:
            shop = replace(shop, users=DEMO_USERS)
        elif beside and verify:
            shop = replace(shop, daily_swing=0.0)  # or four hours from a quiet time of the day on are over too late
        pace = rate if rate is not None else (0.0 if events else 500.0)
        passing = speed or (_speed_to_verify(events, pace) if beside and verify and events else 1.0)
        plan = plan_run(shop, now_ms=time.time_ns() // 1_000_000, events=events, rate=pace, speed=passing)
        ledger = Ledger(settings.partitions, currency=settings.currency) if verify else None
        behaviour = behaviour_ledger(settings) if verify and beside else None
        past = _history(settings, plan) if beside and events is None and passing == 1 else None
        count = f"{workers} workers" + "".join(f", one of {name}" for name in beside)
        console.print(f"Starting {count} and a view server; logs in {directory / 'logs'}", soft_wrap=True)
        with demo(
            settings, plan, directory, ledger, workers, behaviour=behaviour, beside=beside, history=past
        ) as running:
            console.print(f"Views: {running.client.url}")
            _follow(running, console, verify=verify, kills=Kills(running, kills, seed), json=json)


def _speed_to_verify(events: int, rate: float) -> float:
    return max(1.0, (rate or FLAT_OUT_EVENTS_PER_S) * VERIFIED_S / events)


def _history(settings: Settings, plan: Plan) -> Plan | None:
    """The shop's last hours, thinly, for a cluster that has seen none: after others, event time would go back."""
    if not missing_topics(settings.cluster, [own_topic(USER_ACTIVITY, settings).name]):
        return None
    now_ms = time.time_ns() // 1_000_000
    shop = replace(plan.shop, start_ms=now_ms - 1000 * HISTORY_S, events_per_s=HISTORY_EVENTS_PER_S)
    return Plan(shop, until_ms=now_ms)


def _follow(running: Demo, console: Console, *, verify: bool, kills: Kills, json: bool) -> None:
    started = time.monotonic()
    running.simulate()
    if kills.count:
        kills.start()
    Status(running, console).follow()
    kills.wait()
    if not verify:
        if json:
            typer.echo(orjson.dumps({**as_dict(running.sent), "views": f"{running.client.url}/"}))
        elif running.plan.events is not None:
            console.print(f"Sent {running.sent}", soft_wrap=True)
        return
    console.print(f"Sent {running.sent}; waiting for the views", soft_wrap=True)
    compared = {"sales": running.verify(), **_verify_behaviour(running)}
    comparison = together(compared)
    for mismatch in comparison.mismatches[:SHOWN]:
        console.print(mismatch, markup=False, soft_wrap=True)
    answer: dict[str, Any] = {
        "events": running.sent.events,
        "exact": not comparison.mismatches,
        "mismatches": len(comparison.mismatches),
        "seconds": round(time.monotonic() - started, 2),
        "cells": comparison.cells,
        "values": comparison.values,
        **({"compared": {name: part.cells for name, part in compared.items()}} if len(compared) > 1 else {}),
        "late": sum(source.late for source in running.ledger.sources) if running.ledger else 0,
        "duplicates": sum(source.duplicates for source in running.ledger.sources) if running.ledger else 0,
    }
    if kills.count:
        answer |= {"kills": kills.done, "ready_s": kills.ready_s}
    typer.echo(orjson.dumps(answer))
    if comparison.mismatches:
        raise typer.Exit(1)


def _verify_behaviour(running: Demo) -> dict[str, Comparison]:
    if running.behaviour is None:
        return {}
    found: dict[str, Comparison] = {}
    for subject in (BEHAVIOUR, RECOMMENDATIONS):
        running.wait(partial(subject.applied, running.settings), SETTLE_S, f"{subject.name} has not caught up")
        time.sleep(LOOKED_S)  # the views' next look is later than that
        running.wait(partial(subject.shown, running), SETTLE_S, "the views have not caught up")
        parts = subject.compare(running.settings, running.behaviour, running.client)
        found |= {f"{subject.name} {name}" if name == "views" else name: part for name, part in parts.items()}
    return found


@contextmanager
def _cluster(
    home: Path | None, nodes: int | None, bootstrap: str | None, *, apart: bool
) -> Iterator[tuple[Cluster, Path]]:
    """The cluster to run on and a directory; the embedded broker is ended again if it was started here.

    To verify, broker and state are the run's own and are deleted at its end.
    """
    base = home or home_directory(os.environ)
    directory = base / f"verify-{secrets.token_hex(4)}" if apart else base
    try:
        if bootstrap or os.environ.get("MILLRACE_BOOTSTRAP"):
            yield find_cluster(os.environ, base, bootstrap), directory
            return
        broker = Broker(directory, nodes)
        running = broker.cluster() is not None
        try:
            yield bring_up(broker), directory
        finally:
            if not running:
                broker.down(wipe=apart)
    except MillraceError:
        if apart:
            shutil.rmtree(directory / "state", ignore_errors=True)  # the logs stay: they say what went wrong
        raise
    except KeyboardInterrupt:
        if apart:
            shutil.rmtree(directory, ignore_errors=True)
        raise
    else:
        if apart:
            shutil.rmtree(directory, ignore_errors=True)


def _settings(cluster: Cluster, directory: Path, port: int | None, *, apart: bool) -> Settings:
    if not apart:
        state = Path(os.environ.get("MILLRACE_STATE") or directory / "state")
        return Settings.from_environment(cluster=cluster, home=directory, views_port=port, state_dir=state)
    return Settings.from_environment(
        cluster=cluster,
        home=directory,
        state_dir=directory / "state",
        views_port=port or free_port(),
        prefix=f"verify-{secrets.token_hex(3)}-",
    )
