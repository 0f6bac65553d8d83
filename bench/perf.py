"""`millrace perf` beside Kafka's own performance tools: the same load, taking turns, each in a process of its own.

A producer's figures hang on its batches, whose size the two have by default as 1,000,000 bytes and 16 KiB: so each is
also measured with the other's. In each round every contender sends the load into a topic of its own, and then both
read one of them; whoever began in one round is last in the next. What a tool says of itself is taken as it is:
starting Python or Java is in nobody's figure, but code that is not compiled yet is, which is most of what 10,000
records show of a Java program.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import orjson

from streams.admin.connection import Admin
from streams.admin.topics import create_topic, delete_topics
from streams.broker.tools import run_tool
from streams.cluster import Cluster
from streams.errors import MillraceError

LIMIT_S: Final = 300.0
OURS: Final = "millrace"
OURS_LIKE_THEIRS: Final = "millrace, batches of 16 KiB"
THEIRS: Final = "Kafka's"
THEIRS_LIKE_OURS: Final = "Kafka's, batches of 1 MB"
_SENT: Final = re.compile(
    r"([0-9]+) records sent, ([0-9.]+) records/sec \(([0-9.]+) MB/sec\), ([0-9.]+) ms avg latency, "
    r"([0-9.]+) ms max latency, ([0-9]+) ms 50th, ([0-9]+) ms 95th, ([0-9]+) ms 99th, ([0-9]+) ms 99.9th"
)
Figures = Mapping[str, float]
Measure = Callable[[Cluster, str, int, int], Figures]


@dataclass(frozen=True)
class Row:
    """A contender's medians over all rounds."""

    what: str
    contender: str
    records: int
    figures: Figures


def warm_up(cluster: Cluster, done: Callable[[str], None]) -> None:
    """Let every contender run once, uncounted: a new broker makes its topic of offsets for the first consumer."""
    measure(cluster, 1_000, 1_000, 1, 1, lambda _: None)
    done("warmed up")


def measure(
    cluster: Cluster, records: int, size: int, partitions: int, rounds: int, done: Callable[[str], None]
) -> list[Row]:
    """All contenders' medians, and each round said as it is over. Raises MillraceError when a tool fails."""
    sent: dict[str, list[Figures]] = {name: [] for name in PRODUCERS}
    read: dict[str, list[Figures]] = {name: [] for name in CONSUMERS}
    for number in range(rounds):
        for name in _in_turn(PRODUCERS, number):
            topic = f"bench-perf-{records}-{number}-{list(PRODUCERS).index(name)}"
            create_topic(Admin(cluster), topic, partitions=partitions)
            sent[name].append(PRODUCERS[name](cluster, topic, records, size))
            done(f"{records:,}, round {number + 1}: {name} sent {sent[name][-1]['rate']:,.0f}/s")
            if name == OURS:
                for reader in _in_turn(CONSUMERS, number):
                    read[reader].append(CONSUMERS[reader](cluster, topic, records, size))
                    done(f"{records:,}, round {number + 1}: {reader} read {read[reader][-1]['rate']:,.0f}/s")
            delete_topics(Admin(cluster), [topic])
    produced = [Row("produce", name, records, _medians(found)) for name, found in sent.items()]
    return produced + [Row("consume", name, records, _medians(found)) for name, found in read.items()]


def their_produced(output: str) -> Figures:
    """The last line of ProducerPerformance. Raises MillraceError if there is none."""
    found = _SENT.findall(output)
    if not found:
        raise MillraceError(f"ProducerPerformance said no figures: {output.strip()[-200:]}")
    names = ("records", "rate", "megabytes", "average", "max", "p50", "p95", "p99", "p99.9")
    return {name: float(text) for name, text in zip(names, found[-1], strict=True)}


def their_consumed(output: str) -> Figures:
    """The last line of ConsumerPerformance: times, MB, MB/s, records, records/s, ms to join, ms to fetch, ..."""
    cells = output.strip().splitlines()[-1].split(", ")
    if len(cells) != 10:
        raise MillraceError(f"ConsumerPerformance said no figures: {output.strip()[-200:]}")
    return {
        "records": float(cells[4]),
        "rate": float(cells[5]),
        "megabytes": float(cells[3]),
        "join_s": float(cells[6]) / 1000,
        "fetch_rate": float(cells[9]),
    }


def _we_produce(*options: str) -> Measure:
    def produce(cluster: Cluster, topic: str, records: int, size: int) -> Figures:
        told = _millrace(cluster, "produce", topic, "--records", str(records), "--size", str(size), *options)
        return {"rate": told["recordsPerSecond"], "megabytes": told["megabytesPerSecond"], **told["latencyMs"]}

    return produce


def _they_produce(*options: str) -> Measure:
    def produce(cluster: Cluster, topic: str, records: int, size: int) -> Figures:
        load = ("--num-records", str(records), "--record-size", str(size), "--throughput", "-1", *options)
        where = ("--bootstrap-server", cluster.bootstrap, "--topic", topic)
        return their_produced(run_tool("ProducerPerformance", *where, *load, limit_s=LIMIT_S, quick=False))

    return produce


def _we_consume(cluster: Cluster, topic: str, records: int, _size: int) -> Figures:
    told = _millrace(cluster, "consume", topic, "--records", str(records))
    return {
        "rate": told["recordsPerSecond"],
        "megabytes": told["megabytesPerSecond"],
        "join_s": told["joinSeconds"],
        "fetch_rate": told["fetchRecordsPerSecond"],
    }


def _they_consume(cluster: Cluster, topic: str, records: int, _size: int) -> Figures:
    where = ("--bootstrap-server", cluster.bootstrap, "--topic", topic, "--num-records", str(records))
    return their_consumed(run_tool("ConsumerPerformance", *where, limit_s=LIMIT_S, quick=False))


PRODUCERS: Final[Mapping[str, Measure]] = {
    OURS: _we_produce(),
    OURS_LIKE_THEIRS: _we_produce("--batch-bytes", "16384"),
    THEIRS: _they_produce(),
    THEIRS_LIKE_OURS: _they_produce("--command-property", "batch.size=1000000"),
}
CONSUMERS: Final[Mapping[str, Measure]] = {OURS: _we_consume, THEIRS: _they_consume}


def _millrace(cluster: Cluster, *arguments: str) -> Any:
    command = [sys.executable, "-c", "from topologies.cli import main; main()", "perf", *arguments]
    whole = [*command, "--json", "--bootstrap", cluster.bootstrap]
    done = subprocess.run(whole, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise MillraceError(f"millrace perf ended with {done.returncode}: {done.stderr.strip()[:300]}")
    return orjson.loads(done.stdout)


def _in_turn(names: Iterable[str], number: int) -> Sequence[str]:
    ordered = list(names)
    return ordered[::-1] if number % 2 else ordered


def _medians(found: Sequence[Figures]) -> Figures:
    return {name: median(one[name] for one in found) for name in found[0] if name != "records"}
