"""One customer's visit: looking around, a cart, an order, and what becomes of it.

A visit is a list of `Happening`s in the order of their time, without faults: sending late, twice or out of
order is `streams.simulator.emission`'s part. All times within a visit are multiples of a thinking time, which
shrinks where many events a second come from few users, so that a user is seldom in the shop twice at once.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from random import Random
from typing import NamedTuple, TypeVar

from streams.events import (
    ActivityType,
    Event,
    OrderEvent,
    OrderEventType,
    OrderLine,
    PaymentNotification,
    PaymentType,
    UserActivity,
)
from streams.simulator.settings import TOPICS, ShopSettings
from streams.simulator.shop import Product, Shop, User

T = TypeVar("T")

ORDERS, ACTIVITY, PAYMENTS = range(3)
"""A happening's topic, as its place in `settings.TOPICS`."""

LOOKS = (1, 2, 3, 4, 5, 6, 8, 10, 14)
LOOKS_WEIGHTS = (18, 30, 44, 56, 66, 76, 86, 95, 100)
QUANTITIES = (1, 1, 1, 1, 1, 1, 1, 2, 2, 3)
METHODS = ("card", "card", "card", "bank-transfer", "wallet")
MAX_LINES = 3
SEARCHES, CARTS, REMOVALS, CHECKOUTS, ORDERS_MADE = 0.12, 0.22, 0.06, 0.75, 0.85
FAVOURITE_LOOKS = 0.7
FAILED_PAYMENTS = 0.05
SHIPPING, FREE_SHIPPING_FROM = 3_000, 50_000
CENTS_FOR = 13  # minor units of the shop for one of the foreign currency
THINK_MS_MAX = 20_000


class Order(NamedTuple):
    """An order as it was made, or the part of it that is taken back."""

    number: int
    user: User
    amount: int
    lines: tuple[OrderLine, ...]
    method: str


class Happening(NamedTuple):
    """What happened in the shop, at `at_ms` of event time."""

    at_ms: int
    topic: int
    event: Event


def think_ms(settings: ShopSettings) -> float:
    """The mean time between two clicks: a fifth of the mean time between a user's events, at most 20 s."""
    return min(THINK_MS_MAX, 200.0 * settings.users / settings.events_per_s)


class Sessions:
    """Visits, one after the other, from one random source; each is drawn whole before the next."""

    def __init__(self, settings: ShopSettings, shop: Shop, rng: Random) -> None:
        self._settings = settings
        self._shop = shop
        self._rng = rng
        self._browsing = TOPICS[ACTIVITY] in settings.topics
        self._paying = TOPICS[PAYMENTS] in settings.topics
        self._think = think_ms(settings)
        self._anything = endless(rng, shop.products, shop.product_weights)
        self._shelf = {name: endless(rng, *shelf) for name, shelf in shop.shelves.items()}
        self._users = endless(rng, shop.users, shop.user_weights)
        self._looks = endless(rng, LOOKS, LOOKS_WEIGHTS)
        self._numbers = count(1)
        # ids tell one run from another: a shop that opens again must not seem to send duplicates
        self._prefix = f"{settings.seed:x}-{settings.start_ms:x}-"
        self._first_id = settings.start_ms // 1000 * 1_000_000
        self._out: list[Happening] = []

    def visit(self, at_ms: int) -> tuple[User, list[Happening]]:
        """A user and what happens from `at_ms` on, in the order of time."""
        self._out = []
        user = next(self._users)
        if self._browsing:
            self._browse(user, at_ms)
        else:
            self._order(user, at_ms, self._pick())
        return user, self._out

    def _pick(self) -> list[Product]:
        """A cart without the browsing, for a shop of which only the orders are asked for."""
        cart = [next(self._anything)]
        rng_random = self._rng.random
        while len(cart) < MAX_LINES and rng_random() < 0.45:
            cart.append(self._beside(cart[-1]) or next(self._anything))
        return cart

    def _beside(self, product: Product) -> Product | None:
        """The product's planted partner, as often as the pair is strong."""
        if product.partner is None or self._rng.random() >= self._settings.pair_strength:
            return None
        return self._shop.products[product.partner - 1]

    def _browse(self, user: User, at: int) -> None:
        random = self._rng.random
        think = self._think
        user_id = user.user_id
        session = next(self._numbers) + self._first_id
        shelf = self._shelf[user.favourite] if user.favourite else self._anything
        cart: list[Product] = []
        wanted: Product | None = None
        for _ in range(next(self._looks)):
            if wanted is not None:
                product, wanted, take = wanted, None, True
            else:
                product = next(shelf) if random() < FAVOURITE_LOOKS else next(self._anything)
                take = random() < CARTS
                if random() < SEARCHES:
                    self._acted("search.performed", user_id, session, None, product.category, at)
                    at += int(think * (0.3 + 1.4 * random()))
            self._acted("product.viewed", user_id, session, product, None, at)
            at += int(think * (0.3 + 1.4 * random()))
            if take and len(cart) < MAX_LINES and product not in cart:
                self._acted("cart.added", user_id, session, product, None, at)
                cart.append(product)
                wanted = self._beside(product)
                at += int(think * (0.3 + 1.4 * random()))
                if random() < REMOVALS:
                    self._acted("cart.removed", user_id, session, cart.pop(), None, at)
                    at += int(think * (0.3 + 1.4 * random()))
        if cart and random() < CHECKOUTS:
            self._acted("checkout.started", user_id, session, None, None, at)
            if random() < ORDERS_MADE:
                self._order(user, at + int(think * (0.3 + 1.4 * random())), cart)

    def _acted(
        self,
        kind: ActivityType,
        user_id: int,
        session: int,
        product: Product | None,
        query: str | None,
        at: int,
    ) -> None:
        event_id = f"{self._prefix}{next(self._numbers)}"
        product_id, category = (None, None) if product is None else (product.product_id, product.category)
        event = UserActivity(kind, user_id, event_id, session, product_id, category, query, at)
        self._out.append(Happening(at, ACTIVITY, event))

    def _order(self, user: User, at: int, cart: Sequence[Product]) -> None:
        random = self._rng.random
        order = self._check_out(user, cart)
        self._ordered("order.placed", order, at)
        at = self._later(at, 0.5, 2)
        if random() < FAILED_PAYMENTS:
            self._paid("payment.failed", order, at)
            at = self._later(at, 1, 5)
            if random() < 0.5:
                self._ordered("order.cancelled", order, at)
                return
        self._paid("payment.completed", order, at)
        at += 1 + int(random() * 200)
        self._ordered("order.paid", order, at)
        fate = random()
        if fate < self._settings.cancelled:
            self._taken_back("order.cancelled", order, self._later(at, 2, 20))
        elif fate < self._settings.cancelled + self._settings.refunded:
            self._taken_back("order.refunded", order, self._later(at, 3, 20))

    def _check_out(self, user: User, cart: Sequence[Product]) -> Order:
        random = self._rng.random
        number = next(self._numbers) + self._first_id
        worth = CENTS_FOR if user.currency != self._settings.currency else 1
        lines = tuple(
            [OrderLine(p.product_id, p.category, QUANTITIES[int(random() * 10)], p.price // worth) for p in cart]
        )
        amount = money_of(lines)
        if worth == 1 and amount < FREE_SHIPPING_FROM:
            amount += SHIPPING
        return Order(number, user, amount, lines, METHODS[int(random() * len(METHODS))])

    def _taken_back(self, kind: OrderEventType, order: Order, at: int) -> None:
        amount, lines = order.amount, order.lines
        if self._rng.random() < self._settings.partial:
            lines = (lines[0],) if len(lines) > 1 else (part_of(lines[0]),)
            amount = money_of(lines)
        if self._rng.random() < self._settings.without_lines:
            lines = ()
        back = order._replace(amount=amount, lines=lines)
        self._ordered(kind, back, at)
        self._paid("payment.refunded", back, at + 1)

    def _later(self, at: int, low: float, high: float) -> int:
        """A moment between `low` and `high` thinking times after `at`."""
        return at + 1 + int(self._think * (low + (high - low) * self._rng.random()))

    def _ordered(self, kind: OrderEventType, order: Order, at: int) -> None:
        number, user, amount, lines, _ = order
        event_id = f"{self._prefix}{next(self._numbers)}"
        event = OrderEvent(number, user.user_id, amount, event_id, kind, user.currency, user.region, at, lines)
        self._out.append(Happening(at, ORDERS, event))

    def _paid(self, kind: PaymentType, order: Order, at: int) -> None:
        if not self._paying:
            return
        number, user, amount, _, method = order
        event_id = f"{self._prefix}{next(self._numbers)}"
        event = PaymentNotification(kind, number, user.user_id, amount, event_id, method, at)
        self._out.append(Happening(at, PAYMENTS, event))


def _pieces(luck: float) -> int:
    return QUANTITIES[int(luck * len(QUANTITIES))]


def money_of(lines: Sequence[OrderLine]) -> int:
    """What the lines cost together."""
    return sum([line.price * line.quantity for line in lines])


def part_of(line: OrderLine) -> OrderLine:
    """One piece of a line, or half the price of its only piece."""
    if line.quantity > 1:
        return OrderLine(line.product_id, line.category, 1, line.price)
    return OrderLine(line.product_id, line.category, 1, line.price // 2)


def endless(rng: Random, population: Sequence[T], cumulative: Sequence[float]) -> Iterator[T]:
    """Draws with these cumulative weights for ever; in blocks, which takes a third of the time."""
    while True:
        yield from rng.choices(population, cum_weights=cumulative, k=512)
