"""A simulated shop for the behaviour and recommendations topologies: its records, its ledger, what tables say."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import islice
from random import Random
from typing import Any, NamedTuple

import msgspec
from views_shop import shop_settings

from streams.events import Event
from streams.memory_log import MemoryLog
from streams.simulator.behaviour import BehaviourRules
from streams.simulator.behaviour_ledger import BehaviourLedger, Together
from streams.simulator.emission import emitted
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS, USER_ACTIVITY
from topologies.behaviour import behaviour_topology
from topologies.driver import Driver, Worker
from topologies.recommendations import recommendations_topology
from topologies.topology import Topology

PARTITIONS = 2
SHORT: dict[str, Any] = {
    "partitions": PARTITIONS,
    "session_gap_s": 600,
    "cart_timeout_s": 1200,
    "alert_window_s": 600,
    "alert_orders": 1,
    "alert_amount": 400_000,
    "half_life_days": 0,
}
RULES = BehaviourRules(gap_ms=600_000, timeout_ms=1_200_000, velocity_ms=600_000, max_orders=1, max_amount=400_000)


class Sent(NamedTuple):
    """One source record as it is fed; the time is the record's, in ms."""

    topic: str
    key: bytes
    value: bytes
    event: Event
    at: int


@cache
def simulated(count: int = 3_000, seed: int = 5) -> Sequence[Sent]:
    """Some two hours of a small shop, some of it out of order, late or sent twice."""
    made = ShopSettings(
        seed=seed, topics=(ORDER_EVENTS.name, USER_ACTIVITY.name), events_per_s=0.4, users=60, products=40, pairs=8,
        out_of_order=0.2, late_sessions=0.05, duplicates=0.05,
    )  # fmt: skip
    stream, clock = [], 0
    for topic, key, value, event in islice(emitted(made), count):
        assert isinstance(event.occurred_at, int)
        clock = max(clock, event.occurred_at)
        stream.append(Sent(topic, key, value, event, clock))
    return stream


def booked(stream: Iterable[Sent]) -> BehaviourLedger:
    """What should come of it."""
    ledger = BehaviourLedger(PARTITIONS, RULES)
    for sent in stream:
        ledger.record(sent.key, sent.event, sent.at)
    return ledger


def behaviour(**others: Any) -> Topology:
    return behaviour_topology(shop_settings(**SHORT | others))


def recommendations(**others: Any) -> Topology:
    return recommendations_topology(shop_settings(**SHORT | others))


def feed(driver: Driver, stream: Iterable[Sent]) -> None:
    for sent in stream:
        driver.feed(sent.topic, sent.value, sent.key, timestamp_ms=sent.at)


def done(topology: Topology, stream: Sequence[Sent], log: MemoryLog | None = None) -> Driver:
    """A driver that has run over the stream, or over a log that holds it, without trouble."""
    driver = Driver(topology, log=log)
    feed(driver, stream)
    driver.flush()
    return driver


def troubled(driver: Driver, stream: Sequence[Sent], seed: int, workers: int = 1, pieces: int = 40) -> None:
    """Feed a stream piece by piece to workers that flush, tear their flushes, die, lose their state, and move."""
    chance = Random(seed)
    team = [driver.worker, *[driver.add_worker(f"w{n}") for n in range(1, workers)]]
    generation = driver.worker.engine.generation
    size = len(stream) // pieces + 1
    for start in range(0, max(len(stream), 1), size):
        if (workers > 1 and chance.random() < 0.3) or start == 0:
            generation += 1
            share(team, chance, generation)
        feed(driver, stream[start : start + size])
        worker = chance.choice(team)
        worker.deliver(chance.choice([7, 50, 500]))
        fate = chance.random()
        if fate < 0.4:
            worker.flush()
        elif fate < 0.6:
            driver.log.fail_append_after(chance.randrange(60))
            worker.flush()
        elif fate < 0.8:
            owned = sorted(worker.engine.partitions)
            worker.crash(wipe=chance.random() < 0.5)
            generation += 1
            for one in team:
                one.assign(owned if one is worker else sorted(one.engine.partitions), generation)
    finish(driver, team)
    for worker in team[1:]:
        worker.crash()
    driver.worker.assign(range(driver.partitions), generation + 1)


def share(team: Sequence[Worker], chance: Random, generation: int) -> None:
    """Deal the partitions out anew, as a rebalance does."""
    numbers = list(range(PARTITIONS))
    chance.shuffle(numbers)
    for place, worker in enumerate(team):
        worker.assign(numbers[place :: len(team)], generation)


def finish(driver: Driver, team: Sequence[Worker]) -> None:
    """Until nothing moves any more."""
    while any([worker.deliver() or worker.unflushed for worker in team]):
        for worker in team:
            worker.flush()


def told(driver: Driver, topic: str, kind: type) -> list[Any]:
    """The last value of each key, by user and time; every key has said one thing only, however often."""
    records = driver.records(topic)
    assert len({(r.key, r.value) for r in records}) == len({r.key for r in records})
    last = {r.key: r.value for r in records}
    return in_order(msgspec.json.decode(value, type=kind) for value in last.values() if value is not None)


def in_order(events: Iterable[Any]) -> list[Any]:
    return sorted(events, key=lambda event: event.event_id)


def funnel_events(driver: Driver) -> dict[tuple[int, str | None], dict[str, tuple[int, int]]]:
    """By hour and category, None for all together: for each step its events and its users."""
    columns = {
        "funnel_activity_by_category": (("viewed", "viewers"), ("carted", "carters"), ("checkouts", "checkers")),
        "funnel_orders_by_category": (("ordered", "buyers"), ("paid", "payers")),
    }
    found: dict[tuple[int, str | None], dict[str, tuple[int, int]]] = {}
    for table, steps in columns.items():
        for (at, key), row in driver.rows(table).items():
            cell = found.setdefault((at, None if key == "\x1ftotal" else key), {})
            cell |= {events: (row[events], round(row[users])) for events, users in steps if row[events]}
    return found


def funnel_of(ledger: BehaviourLedger) -> dict[tuple[int, str | None], dict[str, tuple[int, int]]]:
    return {
        place: {step: (count, len(cell.users[step])) for step, count in cell.events.items()}
        for place, cell in ledger.funnel().items()
    }


def counted(driver: Driver, kind: str) -> Together:
    """Popularity and pairs as `baskets_by_product` has them; both products of a pair say the same."""
    together, both = Together(), Counter[tuple[str, str]]()
    for (_, product), row in driver.rows("baskets_by_product").items():
        assert row[f"{kind}_with"]["error"] == 0
        together.products[product] += row[kind]
        for other, count in row[f"{kind}_with"]["counts"].items():
            both[product, other] += count
    for (a, b), count in both.items():
        assert both[b, a] == count
        if a < b:
            together.pairs[a, b] = count
    together.products += Counter()  # without those at 0
    return together
