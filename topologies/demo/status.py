"""The line that lives: how many events were sent, how fast the views follow, and where to look."""

import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table

from topologies.demo.run import Demo

REFRESH_S = 0.5


@dataclass
class Status:
    """Draws the demo's state on a terminal, and prints a plain line every ten seconds elsewhere."""

    demo: Demo
    console: Console
    _before: tuple[float, int] = field(default_factory=lambda: (time.monotonic(), 0))
    _rate: float = 0.0

    def lines(self) -> Table:
        """What is known now."""
        sent = self.demo.sent
        self._measure(sent.events)
        table = Table.grid(padding=(0, 2))
        table.add_row("sent", f"{sent.events:,} events", f"{self._rate:,.0f}/s")
        table.add_row("views", *self._freshness())
        url = self.demo.client.url
        table.add_row("sales", f"{url}/api/sales?by=category&window=1m", "")
        table.add_row("top", f"{url}/api/sales/top?by=product&metric=revenue&window=15m&n=10", "")
        table.add_row("tables", f"{url}/api/tables", "metrics " + f"{url}/metrics")
        return table

    def _measure(self, events: int) -> None:
        then, before = self._before
        now = time.monotonic()
        if now - then >= 1:
            self._rate = (events - before) / (now - then)
            self._before = (now, events)

    def _freshness(self) -> tuple[str, str]:
        try:
            fresh = self.demo.client.get("/healthz")["freshness"]
        except OSError:
            return "not answering", ""
        lag, age = fresh["lagTotal"], fresh["age_s"]
        return f"lag {lag:,} records" if lag is not None else "starting", f"{age:.1f} s old" if age is not None else ""

    def follow(self) -> None:
        """Draw until the simulator has sent everything, or for ever. Raises what ends a child."""
        with Live(self.lines(), console=self.console, refresh_per_second=2, transient=True) as live:
            while self.demo.simulating:
                self.demo.children.check()
                time.sleep(REFRESH_S)
                live.update(self.lines())
