"""`millrace digest` on real Kafka: two groups over one log, in other batches, come to the same hashes."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from clicks import CLICKS, topology
from own import forget_topics

from streams.cluster import Cluster
from streams.kafka_log import KafkaLog
from streams.log import TP, Entry
from streams.topics import ensure_topics
from tables.engine import Engine
from topologies.cli import main

NAME = f"clicks-{uuid4().hex[:8]}"
T0 = 1_767_225_600_000


def millrace(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


async def click(cluster: Cluster, count: int, at_s: int) -> None:
    """Clicks of three pages in every partition, a second apart."""
    log = KafkaLog(cluster)
    await log.start()
    for number in range(CLICKS.partitions):
        values = [{"page": f"/{i % 3}", "userId": i % 7, "occurredAt": T0 + (at_s + i) * 1_000} for i in range(count)]
        await log.append({TP(CLICKS.name, number): [Entry(None, json.dumps(value).encode()) for value in values]})
    await log.stop()


async def apply(cluster: Cluster, group: str, directory: Path, batch: int) -> None:
    """A worker's life without its consumer group: everything that is there, in batches of so many records."""
    log = KafkaLog(cluster)
    await log.start()
    engine = Engine(replace(topology, name=group).group, directory, log)
    positions = await engine.restore(range(CLICKS.partitions))
    ends = await log.end_offsets(positions)
    async for tp, records in log.read({tp: (at, ends[tp]) for tp, at in positions.items()}):
        for i in range(0, len(records), batch):
            engine.apply(tp, records[i : i + batch], records[i].offset, 0)
            await engine.flush()
    await engine.release()
    await log.stop()


def test_two_groups_over_one_log_have_the_same_digests(
    kafka: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forget_topics(kafka, "click")
    groups = {f"{NAME}-a": 7, f"{NAME}-b": 1_000}
    for group in groups:
        ensure_topics(kafka, replace(topology, name=group).topics())
    asyncio.run(click(kafka, 60, 0))
    found = {}
    for group, batch in groups.items():
        asyncio.run(apply(kafka, group, tmp_path / group, batch))
        found[group] = asked(kafka, capsys, group)
    first, second = found.values()
    assert first == second
    assert first["windows"] == 5  # the newest event is 59 s in, slices of 10 s, 5 s of grace
    assert first["cells"] == 15
    assert first["closed"] is True
    asyncio.run(click(kafka, 30, 60))
    asyncio.run(apply(kafka, f"{NAME}-a", tmp_path / f"{NAME}-a", 100))
    assert asked(kafka, capsys, f"{NAME}-a")["digest"] != first["digest"]
    span = ("--from", str(T0), "--until", str(T0 + 40_000))
    assert asked(kafka, capsys, f"{NAME}-a", *span) == asked(kafka, capsys, f"{NAME}-b", *span)
    said = said_by(kafka, capsys, f"{NAME}-b")
    assert said.startswith(str(first["digest"]))
    assert "clicks_by_page: 5 windows, closed" in said


def asked(kafka: Cluster, capsys: pytest.CaptureFixture[str], group: str, *more: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(said_by(kafka, capsys, group, "--json", *more))["tables"]["clicks_by_page"]
    return found


def said_by(kafka: Cluster, capsys: pytest.CaptureFixture[str], group: str, *more: str) -> str:
    where = ("--topology", "clicks:topology", "--bootstrap", kafka.bootstrap, "--group", group)
    assert millrace("digest", *where, *more) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--group", "nobody"), "group nobody has no tables here"),
        (("--table", "takings"), "has no table 'takings'; there are clicks_by_page"),
        (("--until", "noon"), "--until must be epoch milliseconds or ISO-8601"),
        (("--bootstrap", "127.0.0.1:1"), "127.0.0.1:1"),
    ],
)
def test_what_cannot_be_hashed_is_one_line(
    kafka: Cluster, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], words: str
) -> None:
    assert millrace("digest", "--topology", "clicks:topology", "--bootstrap", kafka.bootstrap, *more) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert words in said
