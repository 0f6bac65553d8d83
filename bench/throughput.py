"""Throughput: ours beside bare loops and plain Faust, on the same records, in one run."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from statistics import median
from typing import Any, Final, Literal

from bench.check import changelog_cells, sums_are_right, wrong_cells
from bench.contenders.ours import topology_for
from bench.filling import clear, fill
from bench.measure import Outcome, Task
from bench.orders import EVENTS_PER_S, Orders, Truth, truth
from bench.rounds import CONTENDERS, Contender, run_contender
from streams.cluster import Cluster
from streams.errors import MillraceError

PARTITIONS: Final = 4
WARMUP: Final = 50_000
BARE: Final = ("bare_librdkafka", "bare_aiokafka")


@dataclass(frozen=True)
class Result:
    """What one contender did in one round."""

    contender: str
    outcome: Outcome
    exact: bool


@dataclass
class Run:
    """One run: a topic of its own on a cluster, under a name that nothing else begins with."""

    cluster: Cluster
    events: int
    name: str = field(default_factory=lambda: f"bench-{token_hex(4)}")

    def __post_init__(self) -> None:
        """Raise MillraceError for what cannot be measured."""
        if self.events < 20_000:
            raise MillraceError("give --events of at least 20000: less is over before it has begun")
        if self.cluster.protocol != "PLAINTEXT":
            raise MillraceError("plain Faust is measured over PLAINTEXT: name a --bootstrap without SASL or TLS")

    @cached_property
    def orders(self) -> Orders:
        """The records: warm-up and measured, ending now."""
        count = WARMUP + self.events
        return Orders(count, time.time_ns() // 1_000_000 - count * 1000 // EVENTS_PER_S, PARTITIONS)

    @cached_property
    def truth(self) -> Truth:
        """The sums of all records."""
        return truth(self.orders)

    @property
    def topic(self) -> str:
        """The source topic."""
        return f"{self.name}-orders"

    def fill(self) -> None:
        """Produce the records."""
        fill(self.cluster, self.topic, PARTITIONS, self.orders)

    def clear(self) -> None:
        """Delete everything that the run has made on the cluster."""
        clear(self.cluster, self.name)

    def measure(self, contender: Contender, profile: Literal["", "stages", "functions"] = "") -> Result:
        """Run a contender once, with a group and a directory of its own, and check its sums."""
        warmup = contender.warmup if contender.warmup is not None else WARMUP
        events = min(contender.events or self.events, self.events)
        group = f"{self.name}-{contender.name}-{token_hex(4)}"
        with tempfile.TemporaryDirectory(prefix="millrace-bench-", ignore_cleanup_errors=True) as directory:
            task = Task(
                self.cluster.bootstrap, self.topic, PARTITIONS, warmup, events, group, directory,
                contender.variant, profile,
            )  # fmt: skip
            outcome = run_contender(contender, task, Path(directory) / "log")
            result = Result(contender.name, outcome, self._exact(contender, task, outcome))
        clear(self.cluster, group)
        return result

    def _exact(self, contender: Contender, task: Task, outcome: Outcome) -> bool:
        if contender.module != "ours":
            return sums_are_right(outcome, self.orders)
        return not wrong_cells(changelog_cells(self.cluster, topology_for(task)), self.truth)


def compare(run: Run, rounds: int, done: Callable[[int, Result], None]) -> list[list[Result]]:
    """All contenders in turn, round after round; `done` hears of each result."""
    results: list[list[Result]] = []
    for number in range(rounds):
        results.append([])
        for contender in CONTENDERS:
            results[-1].append(run.measure(contender))
            done(number, results[-1][-1])
    return results


def summary(rounds: list[list[Result]]) -> dict[str, Any]:
    """The figures: medians over the rounds; ratios are medians of the rounds' own ratios."""
    eps = [{result.contender: result.outcome.eps for result in results} for results in rounds]
    middle = {name: median(one[name] for one in eps) for name in eps[0]}
    bare = max(BARE, key=middle.__getitem__)

    def ratio(above: str, below: str) -> float:
        return round(median(one[above] / one[below] for one in eps), 3)

    return {
        "bare_loop_eps": round(middle[bare]),
        "plain_faust_eps": round(middle["plain_faust"]),
        "one_table_eps": round(middle["one_table"]),
        "all_tables_eps": round(middle["all_tables"]),
        "exact": all(result.exact for results in rounds for result in results),
        "bare_loop": bare,
        "ratios": {
            "one_table_of_bare_loop": ratio("one_table", bare),
            "all_tables_of_bare_loop": ratio("all_tables", bare),
            "one_table_of_plain_faust": ratio("one_table", "plain_faust"),
            "all_tables_of_plain_faust": ratio("all_tables", "plain_faust"),
        },
        "contenders": {name: _details(name, rounds) for name in middle},
    }


def _details(name: str, rounds: list[list[Result]]) -> dict[str, Any]:
    results = [result for results in rounds for result in results if result.contender == name]
    outcomes = [result.outcome for result in results]
    return {
        "eps": round(median(outcome.eps for outcome in outcomes)),
        "rounds_eps": [round(outcome.eps) for outcome in outcomes],
        "cpu_us_per_event": round(median(o.cpu_s / o.events for o in outcomes) * 1e6, 2),
        "cores": round(median(outcome.cpu_s / outcome.seconds for outcome in outcomes), 2),
        "events": outcomes[0].events,
        "exact": all(result.exact for result in results),
    }
