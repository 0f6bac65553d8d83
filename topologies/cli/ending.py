"""Ctrl-C and SIGTERM end a command in order: no process is left behind, nothing is left half done."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event as Flag
from types import FrameType
from typing import Final

import typer
from rich.console import Console

# The exit code of what Ctrl-C has ended before its end.
INTERRUPTED: Final = 130


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
    except (KeyboardInterrupt, SystemError) as error:
        # Python says the latter of what is raised within a function of C that does not look for it: librdkafka's client
        if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        Console(stderr=True).print("Stopped.")
        raise typer.Exit(code) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopped_by_signal() -> Iterator[Flag]:
    """A flag that the first Ctrl-C or SIGTERM sets; the second one ends the process as usual."""
    stop = Flag()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        for number, before in handlers.items():
            signal.signal(number, before)

    handlers = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, before in handlers.items():
            signal.signal(number, before)
