"""`millrace bench`: the measurements of the package `bench`, which imports this one and so is found by name."""

from importlib import import_module
from typing import Final

import typer

MEASUREMENTS: Final = (
    "bench.commands.freshness",
    "bench.commands.live",
    "bench.commands.memory",
    "bench.commands.orders",
    "bench.commands.order_to_dashboard",
    "bench.commands.perf",
    "bench.commands.ready",
    "bench.commands.rebalance",
    "bench.commands.recommendations",
    "bench.commands.replay",
    "bench.commands.restore",
    "bench.commands.shop",
    "bench.commands.sizing",
    "bench.commands.throughput",
    "bench.commands.versions",
    "bench.commands.views",
)


def register(app: typer.Typer) -> None:
    """Add `bench` to `millrace`."""
    bench = typer.Typer(help="Measure this machine.", no_args_is_help=True)
    bench.callback()(_bench)
    for module in MEASUREMENTS:
        import_module(module).register(bench)
    app.add_typer(bench, name="bench")


def _bench() -> None:
    """Keep `millrace bench` a group of commands also while it has only one."""
