"""What the shop sends, in the order it is sent: visits woven together, with the faults of a real network.

Every random draw belongs to one visit and is made when the visit begins, and events are sent in the order of
`(time sent, draw)`. So the bytes depend on the settings alone, not on how finely time is sliced.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, count
from math import cos, pi
from random import Random

from streams.codecs import encode
from streams.events import Event
from streams.simulator.sessions import ACTIVITY, ORDERS, Happening, Sessions, think_ms
from streams.simulator.settings import DAY_MS, TOPICS, ShopSettings
from streams.simulator.shop import Shop, User, open_shop

Emitted = tuple[str, bytes, bytes, Event]
"""`(topic name, key, value, event)`; `value` is the event's encoding."""

OUT_OF_ORDER_MS = 5_000
COPY_MS = 10_000
LATE_FROM_MS, LATE_TO_MS = 130_000, 600_000
BUSIEST_HOUR_MS = 20 * 3_600_000
WARM_UP_THINKS = 20
CALIBRATION_VISITS = 2_000


def emitted(settings: ShopSettings) -> Iterator[Emitted]:
    """Everything the shop sends, for ever, in the order it is sent."""
    return chain.from_iterable(events for _, events in slices(settings, 100))


def slices(settings: ShopSettings, slice_ms: int) -> Iterator[tuple[int, list[Emitted]]]:
    """`(end, what is sent before it)` for one slice of event time after the other; the end is in epoch ms.

    The first slice begins at `start_ms`. Slices may be empty.
    """
    shop = open_shop(settings)
    outbox = Outbox(settings, slice_ms)
    rng = Random(f"visits {settings.seed}")
    sessions = Sessions(settings, shop, rng)
    visits_per_ms = settings.events_per_s / 1000 / events_per_visit(settings, shop)
    busy = 1 / daily_curve(settings, settings.start_ms)
    # those who are in the shop as it opens came before; what they had ordered by then is left out
    came_before = WARM_UP_THINKS * think_ms(settings) if TOPICS[ACTIVITY] in settings.topics else 0
    at: float = settings.start_ms - came_before
    for index in count():
        end = settings.start_ms + (index + 1) * slice_ms
        while at < end:
            outbox.take(rng, sessions, int(at))
            at += rng.expovariate(visits_per_ms * busy * daily_curve(settings, at))
        yield end, outbox.due(index)


def daily_curve(settings: ShopSettings, at_ms: float) -> float:
    """How busy the shop is at this time of the day (UTC), relative to the day's mean."""
    return 1 + settings.daily_swing * cos(2 * pi * (at_ms - BUSIEST_HOUR_MS) / DAY_MS) * 0.999


def events_per_visit(settings: ShopSettings, shop: Shop) -> float:
    """The mean number of events of the chosen topics in a visit, by trying some thousand of them."""
    rng = Random(f"calibration {settings.seed}")
    sessions = Sessions(settings, shop, rng)
    chosen = [TOPICS.index(topic) for topic in settings.topics]
    sent = 0
    for _ in range(CALIBRATION_VISITS):
        sent += sum(happening.topic in chosen for happening in sessions.visit(settings.start_ms)[1])
    return max(sent, 1) / CALIBRATION_VISITS


class Outbox:
    """Happenings that wait to be sent, by the slice of time that they are sent in."""

    def __init__(self, settings: ShopSettings, slice_ms: int) -> None:
        self._settings = settings
        self._slice_ms = slice_ms
        self._topic = [name if name in settings.topics else None for name in TOPICS]
        self._waiting: defaultdict[int, list[tuple[int, int, str, bytes, Event]]] = defaultdict(list)
        self._numbers = count()

    def take(self, rng: Random, sessions: Sessions, at_ms: int) -> None:
        """Draw a visit at `at_ms` and put what happens in it into line, with its faults."""
        if rng.random() < self._settings.late_sessions:
            behind = rng.randint(LATE_FROM_MS, LATE_TO_MS)
            user, happenings = sessions.visit(at_ms - behind)
            for at, topic, event in self._since_opening(happenings, at_ms, behind):
                self._put(at + behind, topic, user, event)
            return
        user, happenings = sessions.visit(at_ms)
        delayed = self._settings.out_of_order
        copied = delayed + self._settings.duplicates
        random = rng.random
        for at, topic, event in self._since_opening(happenings, at_ms, 0):
            luck = random()
            if luck >= copied:
                self._put(at, topic, user, event)
            elif luck < delayed:
                self._put(at + int(random() * OUT_OF_ORDER_MS), topic, user, event)
            else:
                self._put(at, topic, user, event)
                self._put(at + 1 + int(random() * COPY_MS), topic, user, event)

    def _since_opening(self, happenings: list[Happening], at_ms: int, behind: int) -> list[Happening]:
        """Without what was before the shop opened, and without the rest of an order placed before."""
        start = self._settings.start_ms
        if at_ms >= start:
            return happenings
        orders = [h.at_ms for h in happenings if h.topic == ORDERS]
        ordered_before = bool(orders) and orders[0] + behind < start
        return [h for h in happenings if h.at_ms + behind >= start and (h.topic == ACTIVITY or not ordered_before)]

    def _put(self, sent_ms: int, topic: int, user: User, event: Event) -> None:
        name = self._topic[topic]
        if name is not None:
            index = (sent_ms - self._settings.start_ms) // self._slice_ms
            self._waiting[index].append((sent_ms, next(self._numbers), name, user.key, event))

    def due(self, index: int) -> list[Emitted]:
        """What is sent in this slice, in order; it is handed out once."""
        waiting = self._waiting.pop(index, [])
        waiting.sort()
        return [(name, key, encode(event), event) for _, _, name, key, event in waiting]
