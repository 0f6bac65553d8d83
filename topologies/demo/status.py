"""The lines that live: what was sent and sold, how fast the views follow, and where to look."""

import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from topologies.demo.run import Demo

REFRESH_S = 0.5
PAST = ", of the last hours first"
ASKED = {
    "user": ("/api/carts/abandoned?n=1", "userId"),
    "product": ("/api/sales/top?by=product&window=15m&n=1", "key"),
}
# Asking costs the view server the time of one answer.
PAGES = (
    ("page", "/"),
    ("sales", "/api/sales?by=category&window=1m"),
    ("top", "/api/sales/top?by=product&metric=revenue&window=15m&n=10"),
    ("tables", "/api/tables"),
    ("metrics", "/metrics"),
)
# With ids of those that something is known of, as soon as it is.
BEHAVIOUR_PAGES = (
    ("trends", "/api/trending?kind=products&n=10"),
    ("searches", "/api/trending?kind=searches&n=10"),
    ("funnel", "/api/funnel?hours=1"),
    ("carts", "/api/carts/abandoned?n=10"),
    ("alerts", "/api/alerts?n=10"),
    ("beside", "/api/recommendations/products/{product}?by=bought&n=10"),
    ("for you", "/api/recommendations/users/{user}?n=10"),
    ("visits", "/api/sessions/{user}"),
)
LOOK_EVERY_S = 2.0


@dataclass
class Status:
    """Draws the demo's state on a terminal; elsewhere the URLs are printed once and nothing moves."""

    demo: Demo
    console: Console
    _before: tuple[float, int] = field(default_factory=lambda: (time.monotonic(), 0))
    _rate: float = 0.0
    _known: dict[str, str] = field(default_factory=dict)
    _looked_at: float = 0.0
    _printed: set[str] = field(default_factory=set)

    def lines(self) -> Group:
        """What is known now."""
        sent = self.demo.sent
        self._measure(sent.events)
        told = [
            ("sent", f"{sent.events:,} events, {self._rate:,.0f}/s" + (PAST if self.demo.history else "")),
            ("views", self._freshness()),
            ("sold", self._sold()),
            ("workers", self._workers()),
            *self._pages(),
        ]
        return Group(*(line(name, text) for name, text in told))

    def _pages(self) -> list[tuple[str, str]]:
        pages = list(PAGES)
        if any(seat.topology == "behaviour" for seat in self.demo.seats):
            self._get_to_know()
            pages += [(name, path) for name, path in BEHAVIOUR_PAGES if self._filled(path)]
        return [(name, self.demo.client.url + self._filled(path)) for name, path in pages]

    def _filled(self, path: str) -> str:
        """The path with ids in it, empty while they are not known."""
        for name, value in self._known.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        return "" if "{" in path else path

    def _get_to_know(self) -> None:
        """Whoever left the newest cart, and what sells best, are good to look at."""
        if len(self._known) == len(ASKED) or time.monotonic() < self._looked_at + LOOK_EVERY_S:
            return
        self._looked_at = time.monotonic()
        for name, (path, field_name) in ASKED.items():
            rows = self._ask(path).get("rows")
            if rows:
                self._known[name] = str(rows[0][field_name])

    def _workers(self) -> str:
        return "; ".join(str(seat) for seat in self.demo.seats)

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
            self._print_pages()
        with Live(self.lines(), console=self.console, refresh_per_second=2, transient=True) as live:
            while self.demo.simulating:
                for name in self.demo.revive():
                    self.console.print(f"{name} was killed: started again")
                time.sleep(REFRESH_S)
                live.update(self.lines())
                if not self.console.is_terminal:
                    self._print_pages()

    def _print_pages(self) -> None:
        for name, url in self._pages():
            if name not in self._printed:
                self.console.print(line(name, url), soft_wrap=True)
                self._printed.add(name)


def line(name: str, text: str) -> Text:
    """One line; what is too long for the terminal goes on in the next, so that a URL is whole."""
    return Text(f"{name:<9}{text}", overflow="fold")
