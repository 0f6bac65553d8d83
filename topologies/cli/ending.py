"""Ctrl-C and SIGTERM end a command that has started processes in order: none of them is left behind."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console


@contextmanager
def ended_by_signals(code: int) -> Iterator[None]:
    """Ctrl-C and SIGTERM end what runs here in order, with this code: one more is not needed, and does no harm."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped.")
        raise typer.Exit(code) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
