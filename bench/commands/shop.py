"""`millrace bench shop`."""

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from sqlalchemy import URL

from bench.command_side import NEEDED, Trial, measure
from bench.customers import Habits
from bench.databases import SERVERS
from streams.errors import MillraceError
from topologies.cli.options import Json
from topologies.orders.database import database_url

On = Annotated[
    str, typer.Option("--on", help="sqlite, mariadb or postgresql, started for this; or the URL of an empty database.")
]
Orders = Annotated[int, typer.Option("--orders", help="How many are accepted in all.", min=1)]
Customers = Annotated[int, typer.Option("--customers", help="How many order at a time.", min=1)]
Seconds = Annotated[float | None, typer.Option("--seconds", help="Accept no more after so long.", min=1)]
Kills = Annotated[
    int, typer.Option("--kills", help="How often API, relay, payments and broker are killed, each.", min=0)
]
Victims = Annotated[
    list[str] | None, typer.Option("--kill", help="Only this of the four, or another process; may be given again.")
]
Also = Annotated[
    int, typer.Option("--also", help="How often worker, views, notices and archive are killed, each.", min=0)
]
Nodes = Annotated[int, typer.Option("--nodes", help="Brokers: 1 or 3; of 3 one is killed after the other.")]
Seed = Annotated[int, typer.Option("--seed", help="Decides who orders what, and what is killed when.")]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the directory with logs and state.")]


def register(bench: typer.Typer) -> None:
    """Add `shop` to `millrace bench`."""
    bench.command("shop", epilog="Example: millrace bench shop --on sqlite --orders 2000 --kills 1")(shop)


def shop(
    on: On = "mariadb",
    orders: Orders = 20_000,
    customers: Customers = 64,
    seconds: Seconds = None,
    kills: Kills = 3,
    kill: Victims = None,
    also: Also = 1,
    nodes: Nodes = 1,
    seed: Seed = 1,
    keep: Keep = False,
    json: Json = False,
) -> None:
    """Run a whole shop under customers, kill all of it meanwhile, and compare every book with every other.

    Database, gateway, topics, dashboard, archive and notices have to agree to the last piece, point and event.
    """
    console = Console(stderr=True)
    # per order as much as sells some products out, and empties some pockets
    trial = Trial(
        Habits(orders, customers, seconds or math.inf, seed=seed),
        kills,
        also,
        nodes,
        users=max(20, orders // 20),
        pieces=max(20, orders * 3 // 20),
        seed=seed,
        victims=kill or NEEDED,
    )
    with directory(keep) as home, database(on, home) as url:
        told = measure(url, home, trial, console.print)
    typer.echo(orjson.dumps(told) if json else "\n".join(lines(told)))
    if told["wrong"]:
        raise MillraceError(f"{len(told['wrong'])} things do not agree; the first: {told['wrong'][0]}")


@contextmanager
def directory(keep: bool) -> Iterator[Path]:
    """A directory for logs and state, gone at the end unless it is to be kept."""
    home = Path(tempfile.mkdtemp(prefix="millrace-shop-"))
    try:
        yield home
    finally:
        if keep:
            Console(stderr=True).print(f"logs and state are in {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)


@contextmanager
def database(on: str, home: Path) -> Iterator[URL]:
    """The database that `--on` names, started if it is a server's name."""
    if on == "sqlite":
        yield database_url(f"sqlite:///{home}/orders.db", os.environ, home)
    elif on in SERVERS:
        with SERVERS[on]() as server:
            yield server.url
    else:
        yield database_url(on, os.environ, home)


def lines(told: dict[str, Any]) -> list[str]:
    """The figures in words."""
    kills = ", ".join(f"{name} {count}" for name, count in told["kills"].items() if count) or "nothing"
    compared = told["compared"]
    return [
        f"{told['orders']:,} orders of {told['customers']} customers on {told['database']}, {told['orders_per_s']} a "
        f"second, p50 {told['p50_ms']} ms, p99 {told['p99_ms']} ms; killed: {kills}",
        f"{told['paid']:,} paid, {told['cancelled']:,} cancelled, {told['refunded']:,} refunded; refused: "
        f"{told['refused']}; asked again: {told['asked_again']:,}",
        f"{told['events']:,} events, {told['events_again']:,} of them in a topic again; all at rest "
        f"{told['at_rest_after_s']} s after the last order",
        f"compared: {compared['records']:,} records, {compared['dashboard_values']:,} numbers of the dashboard, "
        f"{compared['archived_records']:,} archived records: "
        + ("all agree" if not told["wrong"] else f"{len(told['wrong'])} do not agree"),
    ]
