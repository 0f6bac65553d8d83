"""Behaviour and recommendations beside a bare loop, on the same records: each worker, and both together.

They are two topologies in groups of their own, and a worker runs one of them. *Both* is what one core would do that had
all of it to do: the events, over the time of the one worker and the time of the other for all of them, including the
sessions that the first hands to the second and the baskets that the second hands to itself. There is no warm-up: a
backlog's smaller topics are read to their ends in it, and orders, sessions and baskets would count for nothing.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from statistics import median
from typing import Any, Final, Literal

from bench.contenders.ours_shop import settings_for
from bench.filling import clear
from bench.measure import Outcome, Task
from bench.rounds import Contender, run_contender
from bench.shop import Doings
from bench.throughput import PARTITIONS, Result
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.simulator.behaviour_ledger import BehaviourLedger
from tables.reading import read_cells
from topologies.chaos.behaviour import compare_behaviour
from topologies.chaos.compare import read_topics
from topologies.recommendations import recommendations_topology
from topologies.settings import Settings

BARE, BEHAVIOUR, RECOMMENDATIONS, BOTH = "bare_loop", "behaviour", "recommendations", "both"
# In this order: the second worker reads the sessions that the first one has written.
CONTENDERS: Final = (
    Contender(BARE, "bare_shop"),
    Contender(BEHAVIOUR, "ours_shop", BEHAVIOUR),
    Contender(RECOMMENDATIONS, "ours_shop", RECOMMENDATIONS),
)
Profile = Literal["", "stages", "functions"]
Outcomes = dict[str, Outcome]


@dataclass
class Run:
    """Rounds on a cluster, each with topics of its own under one name that nothing else begins with."""

    cluster: Cluster
    events: int
    name: str = field(default_factory=lambda: f"bench-{token_hex(4)}")

    def __post_init__(self) -> None:
        """Raise MillraceError for what cannot be measured."""
        if self.events < 20_000:
            raise MillraceError("give --events of at least 20000: less is over before it has begun")

    @cached_property
    def doings(self) -> Doings:
        """The records."""
        return Doings(self.events)

    @cached_property
    def ledger(self) -> BehaviourLedger:
        """What they must come to."""
        return self.doings.ledger(Settings(self.cluster, Path(), Path(), partitions=PARTITIONS))

    def round(self, done: Callable[[Result], None], profile: Profile = "") -> list[Result]:
        """Every contender in turn on topics that are new; `done` hears of each result."""
        prefix = f"{self.name}-{token_hex(3)}-"
        results: list[Result] = []
        try:
            self.doings.fill(self.cluster, Settings(self.cluster, Path(), Path(), prefix=prefix, partitions=PARTITIONS))
            for contender in CONTENDERS:
                results.append(self._measure(contender, prefix, profile))
                done(results[-1])
        finally:
            clear(self.cluster, prefix)
        return results

    def _measure(self, contender: Contender, prefix: str, profile: Profile) -> Result:
        with tempfile.TemporaryDirectory(prefix="millrace-bench-", ignore_cleanup_errors=True) as directory:
            task = Task(
                self.cluster.bootstrap, prefix, PARTITIONS, 0, self.events, f"{prefix}{contender.name}", directory,
                contender.variant, profile if contender.variant else "",
            )  # fmt: skip
            outcome = run_contender(contender, task, Path(directory) / "log")
            return Result(contender.name, outcome, self._exact(contender, task, outcome))

    def _exact(self, contender: Contender, task: Task, outcome: Outcome) -> bool:
        if contender.name == BARE:
            found: Counter[str] = Counter()
            for one in outcome.sums:
                found[one.key] += one.revenue
            return found == self.doings.kinds
        settings = settings_for(task)
        if contender.name == BEHAVIOUR:
            return not any(part.mismatches for part in compare_behaviour(settings, self.ledger, None).values())
        return basket_counts(settings) == expected_counts(self.ledger)


def basket_counts(settings: Settings) -> dict[str, Counter[str]]:
    """In how many baskets each product was seen and bought, over all days, from the changelog."""
    group = recommendations_topology(settings).group
    table = next(table for table in group.tables if table.name == "baskets_by_product")
    topic = group.changelog(table)
    records = asyncio.run(read_topics(settings.cluster, [topic]))
    counts: dict[str, Counter[str]] = {"seen": Counter(), "bought": Counter()}
    for (_, product), one in read_cells(table, records[topic.name]).items():
        for kind, count in counts.items():
            count[product] += one.results[kind]
    return {kind: +count for kind, count in counts.items()}


def expected_counts(ledger: BehaviourLedger) -> dict[str, Counter[str]]:
    """The same from the ledger."""
    return {"seen": +ledger.seen().products, "bought": +ledger.bought().products}


def _eps(outcomes: Outcomes, name: str) -> float:
    if name == BOTH:
        return outcomes[BEHAVIOUR].events / (outcomes[BEHAVIOUR].seconds + outcomes[RECOMMENDATIONS].seconds)
    return outcomes[name].eps


def _cpu_us(outcomes: Outcomes, name: str) -> float:
    names = (BEHAVIOUR, RECOMMENDATIONS) if name == BOTH else (name,)
    return sum(outcomes[one].cpu_s / outcomes[one].events for one in names) * 1e6


def summary(rounds: list[list[Result]]) -> dict[str, Any]:
    """The figures: medians over the rounds; ratios are medians of the rounds' own ratios.

    `cpu_ratios` compare what a core does in a second of its time, which other processes do not change so much.
    """
    each: list[Outcomes] = [{result.contender: result.outcome for result in results} for results in rounds]
    ours = (BEHAVIOUR, RECOMMENDATIONS, BOTH)
    return {
        **{f"{name}_eps": round(median(_eps(o, name) for o in each)) for name in (BARE, *ours)},
        "exact": all(result.exact for results in rounds for result in results),
        "ratios": {name: round(median(_eps(o, name) / _eps(o, BARE) for o in each), 3) for name in ours},
        "cpu_ratios": {name: round(median(_cpu_us(o, BARE) / _cpu_us(o, name) for o in each), 3) for name in ours},
        "cpu_us_per_event": {name: round(median(_cpu_us(o, name) for o in each), 2) for name in (BARE, *ours)},
        "results_waiting": round(median(o[RECOMMENDATIONS].waiting for o in each)),
        "rounds_eps": {name: [round(_eps(o, name)) for o in each] for name in (BARE, *ours)},
    }
