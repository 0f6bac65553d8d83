"""`millrace bench order-to-dashboard`."""

from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from bench.commands.shop import Keep, On, database, directory
from bench.order_to_dashboard import Questions, measure
from topologies.cli.options import Json

Seconds = Annotated[float, typer.Option("--seconds", help="How long to order, five times a second.", min=1)]
Customers = Annotated[int, typer.Option("--customers", help="How many order beside that, without a break.", min=0)]
Flush = Annotated[float, typer.Option("--flush", help="Seconds between two flushes of the worker.")]


def register(bench: typer.Typer) -> None:
    """Add `order-to-dashboard` to `millrace bench`."""
    bench.command("order-to-dashboard", epilog="Example: millrace bench order-to-dashboard --on sqlite")(
        order_to_dashboard
    )


def order_to_dashboard(
    on: On = "mariadb",
    seconds: Seconds = 30.0,
    customers: Customers = 0,
    flush: Flush = 0.1,
    keep: Keep = False,
    json: Json = False,
) -> None:
    """Measure the time from POST /api/orders until a dashboard that is open has the order."""
    console = Console(stderr=True)
    console.print(f"Ordering for {seconds:g} s beside {customers} customers; half a minute more in all")
    with directory(keep) as home, database(on, home) as url:
        told = measure(url, home, Questions(seconds, customers, flush))
    typer.echo(orjson.dumps(told) if json else "\n".join(lines(told)))


def lines(told: dict[str, Any]) -> list[str]:
    """The figures in words."""
    return [
        f"{told['orders']} orders on {told['database']} beside {told['beside_per_s']} a second, flush each "
        f"{1000 * told['flush_s']:.0f} ms",
        f"from POST to its answer: p50 {told['answered_p50_ms']} ms, p99 {told['answered_p99_ms']} ms",
        f"from POST to the open dashboard: p50 {told['shown_p50_ms']} ms, p90 {told['shown_p90_ms']} ms, "
        f"p99 {told['shown_p99_ms']} ms, max {told['shown_max_ms']} ms",
    ]
