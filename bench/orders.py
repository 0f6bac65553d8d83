"""Orders to measure with: the JSON that a shop would send, from a seed, and the sums that they must come to.

About 300 bytes each: 1 to 3 lines, products of 1,000 by Zipf's law in 12 categories, 10,000 users, event time rising
by 2,000 events a second, every event with an id of its own. Each goes to its key's partition, so an order's offset
in a fresh topic is known beforehand, and so are the sums of any prefix.
"""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

import orjson

from streams.codecs import user_key
from streams.partitioners import key_hash

PRODUCTS: Final = 1_000
CATEGORIES: Final = 12
USERS: Final = 10_000
EVENTS_PER_S: Final = 2_000
REGIONS: Final = ("seoul", "busan", "incheon", "daegu", "daejeon", "gwangju", "ulsan", "jeju")
MINUTE_MS: Final = 60_000

Cells = dict[tuple[int, str], list[int]]
"""By (minute start in ms, key): revenue, orders, units."""


class Line(NamedTuple):
    """One line of an order."""

    product: int
    category: str
    quantity: int
    price: int


class Order(NamedTuple):
    """One order and where it lies in the topic."""

    partition: int
    offset: int
    number: int
    event_id: str
    user: int
    region: str
    at_ms: int
    lines: tuple[Line, ...]

    @property
    def amount(self) -> int:
        """What the customer pays, in minor units."""
        return sum(line.quantity * line.price for line in self.lines)

    def value(self) -> bytes:
        """The record's value."""
        items = [{"productId": p, "category": c, "quantity": q, "price": price} for p, c, q, price in self.lines]
        return orjson.dumps(
            {
                "eventId": self.event_id,
                "eventType": "order.placed",
                "orderId": self.number,
                "userId": self.user,
                "amount": self.amount,
                "currency": "KRW",
                "region": self.region,
                "occurredAt": self.at_ms,
                "items": items,
            }
        )


@dataclass(frozen=True)
class Orders:
    """`count` orders from `start_ms` on. Iterating again gives the same ones."""

    count: int
    start_ms: int
    partitions: int = 4
    seed: int = 7

    def __post_init__(self) -> None:
        """Raise ValueError for a number of orders or partitions that is none."""
        if self.count < 1 or self.partitions < 1:
            raise ValueError(f"orders need a count and partitions above 0: {self}")

    def __iter__(self) -> Iterator[Order]:
        chance = random.Random(self.seed)
        weights = list(accumulate(1 / (rank + 1) for rank in range(PRODUCTS)))
        homes = [key_hash(user_key(user), self.partitions) for user in range(USERS)]
        ends = [0] * self.partitions
        for number in range(self.count):
            user = chance.randrange(USERS)
            partition = homes[user]
            products = chance.choices(range(PRODUCTS), cum_weights=weights, k=chance.randint(1, 3))
            lines = tuple(
                Line(p, f"category-{p % CATEGORIES}", chance.randint(1, 3), 1_000 * (1 + p % 50)) for p in products
            )
            at_ms = self.start_ms + number * 1000 // EVENTS_PER_S
            event_id = f"{chance.getrandbits(128):032x}"
            region = REGIONS[user % len(REGIONS)]
            yield Order(partition, ends[partition], number, event_id, user, region, at_ms, lines)
            ends[partition] += 1


@dataclass(frozen=True)
class Truth:
    """The right cells of each way to group the sales."""

    total: Cells
    category: Cells
    region: Cells
    product: Cells


def truth(orders: Iterable[Order]) -> Truth:
    """Add up the sales of orders the plain way."""
    sums = Truth({}, {}, {}, {})
    for order in orders:
        minute = order.at_ms - order.at_ms % MINUTE_MS
        units = sum(line.quantity for line in order.lines)
        _add(sums.total, minute, "total", order.amount, 1, units)
        _add(sums.region, minute, order.region, order.amount, 1, units)
        for line in order.lines:
            _add(sums.category, minute, line.category, line.quantity * line.price, 0, line.quantity)
            _add(sums.product, minute, str(line.product), line.quantity * line.price, 0, line.quantity)
        for category in {line.category for line in order.lines}:
            sums.category[minute, category][1] += 1
        for product in {line.product for line in order.lines}:
            sums.product[minute, str(product)][1] += 1
    return sums


def before(orders: Iterable[Order], positions: Mapping[int, int]) -> Iterator[Order]:
    """The orders below each partition's position, which is where a contender stopped."""
    left = {partition: position for partition, position in positions.items() if position > 0}
    for order in orders:
        if not left:
            return
        end = left.get(order.partition)
        if end is not None:
            yield order
            if order.offset + 1 >= end:
                del left[order.partition]


def _add(cells: Cells, minute: int, key: str, revenue: int, orders: int, units: int) -> None:
    cell = cells.setdefault((minute, key), [0, 0, 0])
    cell[0] += revenue
    cell[1] += orders
    cell[2] += units
