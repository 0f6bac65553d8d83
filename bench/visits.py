"""A simulated shop's visits over some days, and the events that they come to in the order of their sending.

The visits are `streams.simulator`'s, evenly spread over the days; of the events some are sent up to 5 s late, so that
they come out of order, and some orders twice.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Final, NamedTuple

from streams.codecs import encode, user_key
from streams.events import Event, OrderEvent, UserActivity
from streams.simulator.sessions import ACTIVITY, ORDERS, Sessions
from streams.simulator.settings import DAY_MS, TOPICS, ShopSettings
from streams.simulator.shop import Shop, open_shop

OUT_OF_ORDER: Final = 0.05
OUT_OF_ORDER_MS: Final = 5_000
TWICE: Final = 0.005


class Visit(NamedTuple):
    """One user's visit: the events of the two topics that matter here, by time."""

    user: str
    events: list[UserActivity | OrderEvent]


class Sent(NamedTuple):
    """One source record; `at` is its own timestamp in ms."""

    topic: str
    key: bytes
    value: bytes
    event: Event
    at: int


@dataclass(frozen=True)
class Visited:
    """A shop that was visited `count` times in `days` days."""

    shop: ShopSettings
    count: int
    days: int = 20

    @cached_property
    def opened(self) -> Shop:
        """The shop with its planted pairs."""
        return open_shop(self.shop)

    @cached_property
    def visits(self) -> list[Visit]:
        """All visits in the order of their beginnings."""
        sessions = Sessions(self.shop, self.opened, Random(f"visits {self.shop.seed}"))
        apart = self.days * DAY_MS / self.count
        found = []
        for number in range(self.count):
            user, happenings = sessions.visit(self.shop.start_ms + int(number * apart))
            events = [h.event for h in happenings if h.topic in (ACTIVITY, ORDERS)]
            found.append(Visit(str(user.user_id), [e for e in events if isinstance(e, (UserActivity, OrderEvent))]))
        return found


def time_of(event: Event) -> int:
    """The event time in ms."""
    assert isinstance(event.occurred_at, int)  # the simulator's events all have one
    return event.occurred_at


def sent(visits: Iterable[Visit], seed: int) -> Iterator[Sent]:
    """The records of the visits, in the order of their sending."""
    chance = Random(seed)
    line: list[tuple[int, int, Event]] = []
    for visit in visits:
        for event in visit.events:
            delay = int(chance.random() * OUT_OF_ORDER_MS) if chance.random() < OUT_OF_ORDER else 0
            line.append((time_of(event) + delay, len(line), event))
            if isinstance(event, OrderEvent) and chance.random() < TWICE:
                line.append((time_of(event) + delay + 1 + int(chance.random() * OUT_OF_ORDER_MS), len(line), event))
    for at, _, one in sorted(line, key=_order):
        topic = TOPICS[ORDERS if isinstance(one, OrderEvent) else ACTIVITY]
        yield Sent(topic, user_key(one.user_id), encode(one), one, at)


def _order(waiting: tuple[int, int, Event]) -> tuple[int, int]:
    return waiting[:2]
