"""`millrace bench orders`."""

from dataclasses import asdict
from typing import Annotated

import orjson
import typer
from rich.console import Console

from bench.databases import NoServer
from bench.order_api import DATABASES, Found, Load, measure
from streams.errors import MillraceError
from topologies.cli.options import Json
from topologies.cli.showing import print_table

Kinds = Annotated[
    list[str] | None,
    typer.Option("--on", help=f"A database: {', '.join(DATABASES)}; again for several, all that are here without it."),
]
Orders = Annotated[int, typer.Option("--orders", min=100, help="How many, on each.")]
Clients = Annotated[int, typer.Option("--clients", min=1, help="Customers at once.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="In which all take turns; the median is shown.")]
COLUMNS = ("database", "publishing", "orders/s", "p50, ms", "p99, ms", "API", "database", "customers", "limit")


def register(bench: typer.Typer) -> None:
    """Add `orders` to `millrace bench`."""
    bench.command("orders", epilog="Example: millrace bench orders --on sqlite --on mariadb")(orders)


def orders(
    on: Kinds = None, orders: Orders = 5_000, clients: Clients = 64, rounds: Rounds = 3, json: Json = False
) -> None:
    """Measure orders/s of the order API on each database, and what limits it. Servers are started and gone again."""
    console = Console(stderr=True)
    if unknown := set(on or ()) - set(DATABASES):
        raise MillraceError(f"there is no database {sorted(unknown)[0]!r} here: give --on {', '.join(DATABASES)}")
    found: dict[tuple[str, bool], list[Found]] = {}
    for turn in range(rounds):
        for publish in (False, True):
            for kind in on or DATABASES:
                try:
                    one = measure(kind, Load(orders, clients, publish))
                except NoServer as missing:
                    if on:
                        raise
                    console.print(f"{kind} is left out: {missing}", soft_wrap=True)
                    continue
                found.setdefault((kind, publish), []).append(one)
                console.print(f"round {turn + 1}, {kind}{', publishing' * publish}: {one.orders_per_s:,.0f} orders/s")
    medians = [sorted(some, key=lambda one: one.orders_per_s)[len(some) // 2] for some in found.values()]
    if json:
        typer.echo(orjson.dumps([asdict(one) for one in medians]))
        return
    print_table(COLUMNS, [row(one) for one in medians])
    typer.echo("(API, database and customers: cores taken)")


def row(one: Found) -> tuple[object, ...]:
    """One database's figures, as they are shown."""
    ms = (f"{one.p50_ms:,.1f}", f"{one.p99_ms:,.1f}")
    cores = (f"{one.api_cores:.2f}", f"{one.database_cores:.2f}", f"{one.customers_cores:.2f}")
    return (one.database, "yes" if one.publish else "no", round(one.orders_per_s), *ms, *cores, one.limit)
