"""How fast an empty worker comes back from a changelog, and plain Faust from one like it; both checked."""

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from secrets import token_hex
from statistics import median
from typing import Any, Final

from bench import changelog
from bench.changelog import Shape
from bench.contenders.restored import topology_for
from bench.contenders.restored_plain_faust import TABLE as PLAIN_TABLE
from bench.filling import clear
from bench.measure import Outcome, Task
from bench.rounds import Contender, run_contender
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.kafka_log import KafkaLog
from streams.log import TP
from streams.topics import Topic, ensure_topics

PARTITIONS: Final = 4
OURS: Final = Contender("millrace", "restored")
PLAIN: Final = Contender("plain_faust", "restored_plain_faust")


@dataclass
class Run:
    """One run: topics of its own on a cluster, filled once for each of the two."""

    cluster: Cluster
    ours: Shape
    plain: Shape
    name: str

    def task(self, contender: Contender, state: str) -> Task:
        """What a contender is to restore, into an empty directory."""
        records = (self.ours if contender is OURS else self.plain).records
        group = f"{self.name}-{contender.name}"
        topic = f"{group}-source"
        return Task(self.cluster.bootstrap, topic, PARTITIONS, 0, records, group, state)

    async def fill(self) -> None:
        """Create the topics and write both changelogs."""
        topology = topology_for(self.task(OURS, "."))
        source = Topic(self.task(PLAIN, ".").topic, partitions=PARTITIONS)
        table = Topic(self._plain_changelog, partitions=PARTITIONS, retention_s=None, cleanup="compact")
        await asyncio.to_thread(ensure_topics, self.cluster, [*topology.topics(), source, table])
        log = KafkaLog(self.cluster)
        await log.start()
        try:
            await changelog.fill(topology.group, log, self.ours)
            await self._fill_plain(log)
        finally:
            await log.stop()

    @property
    def _plain_changelog(self) -> str:
        return f"{self.task(PLAIN, '.').group}-{PLAIN_TABLE}-changelog"

    async def _fill_plain(self, log: KafkaLog) -> None:
        # up to now: plain Faust drops windows by the wall clock
        start = time.time() // 60 * 60 - 60.0 * self.plain.minutes
        for number in range(PARTITIONS):
            entries = changelog.plain_entries(self.plain, start)
            while some := list(islice(entries, changelog.FLUSH)):
                await log.append({TP(self._plain_changelog, number): some})

    def measure(self, contender: Contender) -> Outcome:
        """Restore once, from nothing. Raises MillraceError for anything but what must come out."""
        with tempfile.TemporaryDirectory(prefix="millrace-bench-", ignore_cleanup_errors=True) as state:
            outcome = run_contender(contender, self.task(contender, state), Path(state) / "log")
        if (outcome.events, outcome.digest) != self._right(contender):
            raise MillraceError(
                f"{contender.name} restored {outcome.events} records to {outcome.digest}, "
                f"not {self._right(contender)}: the figure means nothing"
            )
        return outcome

    def _right(self, contender: Contender) -> tuple[int, str]:
        if contender is PLAIN:
            return self.plain.records, changelog.plain_expected(self.plain)
        table = changelog.table_of(topology_for(self.task(OURS, ".")).group)
        return self.ours.records, changelog.expected(table, self.ours)


def measure(
    cluster: Cluster, records: int, plain_records: int, rounds: int, done: Callable[[str, Outcome], None]
) -> dict[str, Any]:
    """Fill, then let the two take turns, `rounds` times; `done` hears of each."""
    run = Run(
        cluster, Shape.of(records, PARTITIONS), Shape.of(plain_records, PARTITIONS), f"bench-restore-{token_hex(4)}"
    )
    results: list[dict[str, Outcome]] = []
    try:
        asyncio.run(run.fill())
        for _ in range(rounds):
            results.append({})
            for contender in (OURS, PLAIN):
                outcome = results[-1][contender.name] = run.measure(contender)
                done(contender.name, outcome)
    finally:
        clear(cluster, run.name)
    return summary(results)


def summary(rounds: list[dict[str, Outcome]]) -> dict[str, Any]:
    """Medians of the rounds; the ratio is the median of the rounds' own ratios."""
    ratios = [found[OURS.name].eps / found[PLAIN.name].eps for found in rounds]
    return {
        "records_per_s": round(median(found[OURS.name].eps for found in rounds)),
        "plain_faust_records_per_s": round(median(found[PLAIN.name].eps for found in rounds)),
        "ratio_to_plain_faust": round(median(ratios), 1),
        "exact": True,  # each was compared; another result raises
        "contenders": {name: _details([found[name] for found in rounds]) for name in (OURS.name, PLAIN.name)},
    }


def _details(outcomes: list[Outcome]) -> dict[str, Any]:
    return {
        "records": outcomes[0].events,
        "seconds": round(median(outcome.seconds for outcome in outcomes), 3),
        "rounds_records_per_s": [round(outcome.eps) for outcome in outcomes],
        "records_per_cpu_s": round(median(outcome.events / outcome.cpu_s for outcome in outcomes)),
    }
