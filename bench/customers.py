"""Customers of the order API, many at once, who ask again until they know: what each was told is written down.

Each order has an `Idempotency-Key`, so a customer whose connection broke asks again with the same one, and must get
the same order. Some repeat what was answered, some cancel, some give back what they have paid.
"""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import orjson

from streams.errors import MillraceError

ASK_S: Final = 10.0
AGAIN_S: Final = 0.2
GIVE_UP_S: Final = 120.0
# What a customer who is told so can only repeat later.
LATER: Final = frozenset(
    {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)


@dataclass(frozen=True)
class Habits:
    """How customers behave: shares of 1. `refunds` are of orders that a customer placed some time before.

    They end when so many `orders` are accepted, or `limit_s` after they began.
    """

    orders: int
    customers: int = 64
    limit_s: float = math.inf
    repeats: float = 0.03
    cancels: float = 0.04
    refunds: float = 0.04
    most_lines: int = 3
    most_pieces: int = 2
    seed: int = 1


@dataclass
class Tally:
    """What customers were told: orders by key, and how often what was answered; `wrong` is what must not be."""

    accepted: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    asked_again: int = 0
    took_ms: list[float] = field(default_factory=list)
    published: int = 0  # answers that said where the event lies
    wrong: list[str] = field(default_factory=list)


@dataclass
class Crowd:
    """All customers of a shop: `users` buy `products`, some of which more often than others."""

    url: str
    habits: Habits
    users: Sequence[int]
    products: Sequence[int]
    tally: Tally = field(default_factory=Tally)
    _left: int = 0
    _began: float = math.inf

    async def shop(self) -> None:
        """Order until as many are accepted as wanted. Raises MillraceError when nobody answers for two minutes."""
        self._left, self._began = self.habits.orders, time.monotonic()
        connector = aiohttp.TCPConnector(limit=self.habits.customers)
        timeout = aiohttp.ClientTimeout(total=ASK_S)
        async with aiohttp.ClientSession(self.url, connector=connector, timeout=timeout) as session:
            them = [asyncio.create_task(self._customer(session, number)) for number in range(self.habits.customers)]
            try:
                await asyncio.gather(*them)
            finally:
                for one in them:
                    one.cancel()
                await asyncio.gather(*them, return_exceptions=True)

    @property
    def progress(self) -> float:
        """How much of it is over, as a share of 1: of the orders, or of the time if that is more."""
        spent_s = max(0.0, time.monotonic() - self._began)
        return max(len(self.tally.accepted) / self.habits.orders, spent_s / self.habits.limit_s)

    async def _customer(self, session: aiohttp.ClientSession, number: int) -> None:
        chance = random.Random(f"{self.habits.seed}/{number}")
        weights = [1 / (rank + 3) for rank in range(len(self.products))]
        placed: list[dict[str, Any]] = []
        for request in range(1_000_000):
            if self._left <= 0 or time.monotonic() > self._began + self.habits.limit_s:
                return
            self._left -= 1
            user = chance.choice(self.users)
            products = dict.fromkeys(
                chance.choices(self.products, weights, k=chance.randint(1, self.habits.most_lines))
            )
            items = [{"productId": one, "quantity": chance.randint(1, self.habits.most_pieces)} for one in products]
            order = await self._order(session, f"c{number}-{request}", user, items, chance)
            if order is None:
                self._left += 1
                continue
            placed.append(order)
            if chance.random() < self.habits.cancels:
                await self._step(session, "cancel", order)
            if len(placed) > 5 and chance.random() < self.habits.refunds:
                await self._step(session, "refund", placed[-6])

    async def _order(
        self,
        session: aiohttp.ClientSession,
        key: str,
        user: int,
        items: Sequence[Mapping[str, int]],
        chance: random.Random,
    ) -> dict[str, Any] | None:
        """The order, or None where it is refused."""
        headers, body = {"X-USER-ID": str(user), "Idempotency-Key": key}, {"items": items}
        began = time.perf_counter()
        status, answer, tries = await self._ask(session, "/api/orders", headers, body)
        if status not in (HTTPStatus.OK, HTTPStatus.CREATED):
            self.tally.refused[answer.get("type", str(status)).rpartition(":")[2]] += 1
            return None
        if tries == 1:
            self.tally.took_ms.append(1000 * (time.perf_counter() - began))
        self.tally.published += answer["after"] is not None
        self.tally.accepted[key] = answer
        if chance.random() < self.habits.repeats:
            _, again, _ = await self._ask(session, "/api/orders", headers, body)
            if again.get("orderId") != answer["orderId"]:
                self.tally.wrong.append(f"{key} was order {answer['orderId']}, and then {again}")
        return answer

    async def _step(self, session: aiohttp.ClientSession, step: str, order: Mapping[str, Any]) -> None:
        headers = {"X-USER-ID": str(order["userId"])}
        status, answer, _ = await self._ask(session, f"/api/orders/{order['orderId']}/{step}", headers, None)
        if status not in (HTTPStatus.OK, HTTPStatus.CONFLICT):
            self.tally.wrong.append(f"{step} of {order['orderId']}: {status} {answer}")
        self.tally.steps[f"{step} {'done' if status == HTTPStatus.OK else 'refused'}"] += 1

    async def _ask(
        self, session: aiohttp.ClientSession, path: str, headers: Mapping[str, str], body: Any
    ) -> tuple[int, dict[str, Any], int]:
        """Status, answer, and how often it was asked: until somebody answers for good."""
        raw = None if body is None else orjson.dumps(body)
        deadline, tries, said = time.monotonic() + GIVE_UP_S, 0, ""
        while time.monotonic() < deadline:
            tries += 1
            try:
                sent = {**headers, "Content-Type": "application/json"} if raw is not None else headers
                async with session.post(path, data=raw, headers=sent) as response:
                    answer, status = await response.read(), response.status
                    if status not in LATER:
                        return status, orjson.loads(answer), tries
                    said = f"{status} {answer[:200]!r}"
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                said = repr(error)
            self.tally.asked_again += 1
            await asyncio.sleep(AGAIN_S * random.uniform(0.5, 1.5))
        raise MillraceError(f"{path} was not answered for {GIVE_UP_S:g} s: {said}")
