"""The lines that live: what was sent and sold, how fast the views follow, and where to look."""

import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from topologies.demo.run import Demo

REFRESH_S = 0.5
# Asking costs the view server the time of one answer.
PAGES = (
    ("sales", "/api/sales?by=category&window=1m"),
    ("top", "/api/sales/top?by=product&metric=revenue&window=15m&n=10"),
    ("tables", "/api/tables"),
    ("metrics", "/metrics"),
)


@dataclass
class Status:
    """Draws the demo's state on a terminal; elsewhere the URLs are printed once and nothing moves."""

    demo: Demo
    console: Console
    _before: tuple[float, int] = field(default_factory=lambda: (time.monotonic(), 0))
    _rate: float = 0.0

    def lines(self) -> Group:
        """What is known now."""
        sent = self.demo.sent
        self._measure(sent.events)
        told = [
            ("sent", f"{sent.events:,} events, {self._rate:,.0f}/s"),
            ("views", self._freshness()),
            ("sold", self._sold()),
            ("workers", self._workers()),
            *self._pages(),
        ]
        return Group(*(line(name, text) for name, text in told))

    def _pages(self) -> list[tuple[str, str]]:
        return [(name, self.demo.client.url + path) for name, path in PAGES]

    def _workers(self) -> str:
        running = zip(self.demo.workers, self.demo.ports, strict=False)
        return ", ".join(f"w{n}: pid {c.process.pid}, port {port}" for n, (c, port) in enumerate(running))

    def _measure(self, events: int) -> None:
        then, before = self._before
        now = time.monotonic()
        if now - then >= 1:
            self._rate = (events - before) / (now - then)
            self._before = (now, events)

    def _freshness(self) -> str:
        fresh = self._ask("/healthz").get("freshness")
        if fresh is None:
            return "not answering"
        lag, age = fresh["lagTotal"], fresh["age_s"]
        if lag is None or age is None:
            return "starting"
        return f"{lag:,} records behind, complete as of {age:.1f} s ago"

    def _sold(self) -> str:
        answer = self._ask("/api/sales/top", by="category", window="15m", n="3")
        rows = answer.get("rows")
        if not rows:
            return "nothing yet"
        return (
            "most in 15 minutes: "
            + ", ".join(f"{row['key']} {row['net']:,}" for row in rows)
            + f" {answer['currency']}"
        )

    def _ask(self, path: str, **parameters: str) -> dict[str, Any]:
        try:
            return self.demo.client.get(path, **parameters)
        except OSError:
            return {}

    def follow(self) -> None:
        """Draw until the simulator has sent everything, or for ever. Raises what ends a child."""
        if not self.console.is_terminal:
            for name, url in self._pages():
                self.console.print(line(name, url), soft_wrap=True)
        with Live(self.lines(), console=self.console, refresh_per_second=2, transient=True) as live:
            while self.demo.simulating:
                for name in self.demo.revive():
                    self.console.print(f"{name} was killed: started again")
                time.sleep(REFRESH_S)
                live.update(self.lines())


def line(name: str, text: str) -> Text:
    """One line; what is too long for the terminal goes on in the next, so that a URL is whole."""
    return Text(f"{name:<9}{text}", overflow="fold")
