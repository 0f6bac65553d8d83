"""A replay in place beside the live catch-up that it repeats: how fast, and whether every cell is the same.

A simulated shop's orders, late, out of order and twice as ever, lie in a topic. A worker catches up with them: that is
the live result, and its rate. Then `millrace replay` drops the tables and builds them anew, at a rate measured by the
same clock: from the first commit that is seen to the last one. And once more, with `kill -9` of the command and all its
workers in the middle; the same command goes on.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any, Final

import orjson

from streams.admin.connection import Admin
from streams.errors import MillraceError
from streams.kafka_log import KafkaLog
from streams.log import TP, Record
from streams.producers import Producer
from streams.simulator.emission import slices
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS, ensure_topics
from tables.reading import read_cells
from topologies.demo.processes import MILLRACE
from topologies.names import workers_here
from topologies.replay.concerned import partitions
from topologies.replay.origin import EARLIEST, parse_origin
from topologies.replay.planning import make_plan
from topologies.replay.rebuilding import Committed, rebuild
from topologies.replay.resetting import commit
from topologies.sales import own_topic, sales_topology
from topologies.settings import Settings

NAMED: Final = "analytics"
EVENTS_PER_S: Final = 1_000.0
SLICE_MS: Final = 1_000
KILL_FROM: Final = 0.3
GIVE_UP_S: Final = 600.0

Cells = dict[tuple[str, int, str], Mapping[str, Any]]


@dataclass(frozen=True)
class Run:
    """One run on a cluster of these settings, with `events` orders. `told` hears what was found, line by line."""

    settings: Settings
    events: int
    told: Callable[[str], None]

    def measure(self) -> dict[str, Any]:
        """The figures. Raises MillraceError for what cannot be measured."""
        self.fill()
        live = self.catch_up()
        self.told(f"live: {live['events_per_s']:,} events/s")
        said = cells(self.settings)
        replayed = self.replay()
        equal = _differing(said, cells(self.settings))
        self.told(f"replay: {replayed['events_per_s']:,} events/s, {equal} of {len(said):,} cells differ")
        at = self.kill_in_the_middle()
        went_on = self.replay()
        equal_after = _differing(said, cells(self.settings))
        self.told(f"killed at {at:.0%}, and gone on: {equal_after} of {len(said):,} cells differ")
        return {
            "events": self.events,
            "cells": len(said),
            "live_events_per_s": live["events_per_s"],
            "replay_events_per_s": replayed["events_per_s"],
            "ratio": round(replayed["events_per_s"] / live["events_per_s"], 3),
            "differing": equal,
            "killed_at": round(at, 3),
            "resumed": went_on["resumed"],
            "differing_after_kill": equal_after,
            "seconds": {"live": live["seconds"], "replay": replayed["seconds"]},
        }

    def fill(self) -> None:
        """Produce the orders; record timestamps are the times at which the shop sends."""
        span_ms = round(self.events / EVENTS_PER_S * 1000)
        shop = ShopSettings(
            start_ms=time.time_ns() // 1_000_000 - span_ms - 60_000,
            events_per_s=EVENTS_PER_S,
            topics=(ORDER_EVENTS.name,),
            daily_swing=0.0,
        )
        topic = own_topic(ORDER_EVENTS, self.settings)
        ensure_topics(self.settings.cluster, [topic])
        sent = chain.from_iterable(((end, one) for one in events) for end, events in slices(shop, SLICE_MS))
        with Producer(self.settings.cluster) as producer:
            for end, (_, key, value, _) in islice(sent, self.events):
                producer.produce(topic.name, key, value, timestamp_ms=end)

    def catch_up(self) -> dict[str, Any]:
        """A worker that has never run catches up with the topic; watched as a replay is."""
        admin, topology = Admin(self.settings.cluster), sales_topology(self.settings)
        plan = make_plan(admin, topology, parse_origin(EARLIEST), self.settings.state_dir)
        commit(admin, plan.group, {one.tp: one.start for one in plan.sources})
        return asdict(rebuild(admin, topology, plan, self.settings, NAMED, 1, lambda _: None))

    def replay(self) -> dict[str, Any]:
        """`millrace replay`, to its end."""
        ended = subprocess.run(self._command(), env=self._variables(), capture_output=True, text=True, check=False)
        if ended.returncode:
            raise MillraceError(f"the replay failed: {ended.stderr.strip().splitlines()[-1:]}")
        told: dict[str, Any] = orjson.loads(ended.stdout)
        return told

    def kill_in_the_middle(self) -> float:
        """Begin a replay, kill the command and its workers; returns how far it was, of 1."""
        group, orders = sales_topology(self.settings).name, own_topic(ORDER_EVENTS, self.settings)
        committed = Committed(self.settings.cluster, group)
        running = subprocess.Popen(self._command(), env=self._variables(), stderr=subprocess.DEVNULL)
        dropped, until = False, time.monotonic() + GIVE_UP_S
        while True:
            found = committed.ask(partitions([orders]))
            done = sum((found or {}).values())
            dropped |= found is not None and done < KILL_FROM * self.events
            if dropped and done >= KILL_FROM * self.events:
                break
            if running.poll() is not None or time.monotonic() > until:
                raise MillraceError("the replay was over before it could be killed: give more --events")
            time.sleep(0.05)
        running.kill()
        for pid in workers_here(self.settings.state_dir, group).values():
            os.kill(pid, signal.SIGKILL)
        running.wait()
        committed.close()
        return done / self.events

    def _command(self) -> list[str]:
        return [*MILLRACE, "replay", NAMED, "--from", EARLIEST, "--yes", "--json", "--workers", "1"]

    def _variables(self) -> dict[str, str]:
        return {**os.environ, **self.settings.variables()}


def cells(settings: Settings) -> Cells:
    """Every cell of every table of the sales, by (table, slice start, key), read from its changelog."""
    return asyncio.run(_cells(settings))


async def _cells(settings: Settings) -> Cells:
    topology = sales_topology(settings)
    found: Cells = {}
    log = KafkaLog(settings.cluster)
    await log.start()
    try:
        for table in (table for source in topology.sources.values() for table in source.tables):
            topic = topology.group.changelog(table)
            tps = [TP(topic.name, number) for number in range(topic.partitions)]
            starts, ends = await log.start_offsets(tps), await log.end_offsets(tps)
            records: dict[int, list[Record]] = {}
            async for tp, batch in log.read({tp: (starts[tp], ends[tp]) for tp in tps}):
                records.setdefault(tp.partition, []).extend(batch)
            found |= {(table.name, *cell): reading.results for cell, reading in read_cells(table, records).items()}
    finally:
        await log.stop()
    return found


def _differing(a: Cells, b: Cells) -> int:
    return sum(a.get(cell) != b.get(cell) for cell in a.keys() | b.keys())
