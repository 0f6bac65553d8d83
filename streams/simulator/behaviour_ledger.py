"""The exact answers about behaviour: sessions, abandoned carts, alerts, the funnel, and what went together.

Like `streams.simulator.ledger`, it is fed with what was sent, partition by partition in the order of the log, and tells
duplicates and late events by the same rules, which are applied to orders and to activity apart. Payments are passed
over. What is due is told by `until`: the time before which all slices are closed, in both topics of a partition where
two of them meet.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from streams.events import (
    UNKNOWN,
    AbandonedCart,
    Event,
    OrderAlert,
    OrderEvent,
    UserActivity,
    UserSession,
    event_time_ms,
)
from streams.partitioners import key_hash
from streams.simulator.behaviour import (
    BehaviourRules,
    Purchase,
    Step,
    alerts_of,
    carts_of,
    sessions_of,
)
from streams.simulator.ledger import SourcePartition

ACTIONS = {
    "product.viewed": "viewed",
    "cart.added": "carted",
    "cart.removed": "removed",
    "search.performed": "searched",
    "checkout.started": "checkout",
}
FUNNEL = {"viewed": "viewed", "carted": "carted", "checkout": "checkouts"}


@dataclass(slots=True)
class Doings:
    """All that counted of one user."""

    partition: int
    steps: list[Step] = field(default_factory=list)
    changes: list[Step] = field(default_factory=list)
    purchases: set[Purchase] = field(default_factory=set)


@dataclass(slots=True)
class FunnelCell:
    """For each step, how many events it had and which users came to it."""

    events: Counter[str] = field(default_factory=Counter)
    users: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


@dataclass(slots=True)
class Together:
    """Of baskets of one kind: how many each product was in, and each pair `(a, b)` of products, `a < b`."""

    products: Counter[str] = field(default_factory=Counter)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, products: Iterable[str]) -> None:
        """One basket."""
        basket = sorted(set(products))
        self.products.update(basket)
        self.pairs.update((a, b) for place, a in enumerate(basket) for b in basket[place + 1 :])


class BehaviourLedger:
    """The book of `user-activity` and `order-events` with `partitions` partitions each, keyed by user."""

    takes: ClassVar = frozenset({OrderEvent, UserActivity})

    def __init__(
        self,
        partitions: int = 4,
        rules: BehaviourRules | None = None,
        *,
        slice_ms: int = 60_000,
        grace_ms: int = 60_000,
        orders_dedupe_ms: int = 300_000,
        activity_dedupe_ms: int = 0,
        funnel_slice_ms: int = 3_600_000,
    ) -> None:
        self.rules = rules or BehaviourRules()
        self.slice_ms, self.grace_ms, self.funnel_slice_ms = slice_ms, grace_ms, funnel_slice_ms
        self.dedupe_ms = {OrderEvent: orders_dedupe_ms, UserActivity: activity_dedupe_ms}
        self.sources: dict[type, list[SourcePartition]] = {
            topic: [SourcePartition() for _ in range(partitions)] for topic in self.dedupe_ms
        }
        self.users: dict[str, Doings] = {}
        self._funnel: defaultdict[tuple[int, str | None], FunnelCell] = defaultdict(FunnelCell)
        self._bought = Together()

    def record(self, key: bytes, event: Event, record_timestamp_ms: int = 0) -> None:
        """Take in an event as sent, after all that were sent before to its topic's partition."""
        sources = self.sources.get(type(event))
        if sources is None:
            return
        partition = key_hash(key, len(sources))
        at = event_time_ms(event, record_timestamp_ms)
        if not self._counts(sources[partition], self.dedupe_ms[type(event)], event, at):
            return
        doings = self.users.setdefault(str(event.user_id), Doings(partition))
        if isinstance(event, OrderEvent):
            self._ordered(doings, event, at)
        elif isinstance(event, UserActivity):
            self._acted(doings, event, at)

    def until(self, partition: int, *topics: type) -> int:
        """Slices before this are closed in the topics of these event types, by default in both."""
        watermarks = [self.sources[topic][partition].watermark for topic in topics or self.sources]
        edge = min(watermarks) - self.grace_ms
        return max(0, edge - edge % self.slice_ms)

    def sessions(self, *, all_over: bool = False) -> list[UserSession]:
        """The sessions that are due, by user and time; with `all_over` those still running too, as if they ended."""
        gap = self.rules.gap_ms
        return [
            session
            for user, doings in sorted(self.users.items())
            for session in sessions_of(user, doings.steps, doings.purchases, self.rules)
            if all_over or session.end + gap <= self.until(doings.partition)
        ]

    def carts(self, *, all_over: bool = False) -> list[AbandonedCart]:
        """The abandoned carts that are due, by user and time."""
        return [
            cart
            for user, doings in sorted(self.users.items())
            for cart in carts_of(user, doings.changes, doings.purchases, self.rules)
            if all_over or cart.abandoned_at <= self.until(doings.partition)
        ]

    def alerts(self, *, all_over: bool = False) -> list[OrderAlert]:
        """The final alerts that are due, by user and time; orders alone decide on them."""
        return [
            alert
            for user, doings in sorted(self.users.items())
            for alert in alerts_of(user, doings.purchases, self.rules)
            if all_over or alert.occurred_at < self.until(doings.partition, OrderEvent)
        ]

    def funnel(self) -> dict[tuple[int, str | None], FunnelCell]:
        """By slice start and category, None for all together: steps viewed, carted, checkouts, ordered, paid."""
        return self._funnel

    def bought(self) -> Together:
        """What was bought together in one order."""
        return self._bought

    def seen(self, *, all_over: bool = False) -> Together:
        """What was viewed or carted in one session, of the sessions that are due."""
        together = Together()
        for session in self.sessions(all_over=all_over):
            products = {*session.viewed, *session.carted}
            small = len(products) <= self.rules.basket_products and session.events <= self.rules.basket_events
            if small and not session.truncated:
                together.add(self.in_baskets(products))
        return together

    def in_baskets(self, products: Iterable[str]) -> set[str]:
        """Those whose ids are short enough to be counted."""
        return {product for product in products if len(product.encode()) <= self.rules.basket_id_bytes}

    def _counts(self, source: SourcePartition, dedupe_ms: int, event: Any, at: int) -> bool:
        if dedupe_ms and event.event_id is not None:
            before = source.seen.get(event.event_id)
            source.seen[event.event_id] = at if before is None else max(before, at)
            if before is not None and before >= source.watermark - dedupe_ms:
                source.duplicates += 1
                return False
            if len(source.seen) > source.forget_at:
                source.forget(dedupe_ms)
        if at - at % self.slice_ms + self.slice_ms + self.grace_ms <= source.watermark:
            source.late += 1
            return False
        source.watermark = max(source.watermark, at)
        source.counted += 1
        return True

    def _acted(self, doings: Doings, event: UserActivity, at: int) -> None:
        action = ACTIONS[event.event_type]
        product = None if event.product_id is None else str(event.product_id)
        if action == "checkout":
            doings.steps.append((at, action, ""))
        elif action == "searched":
            words = " ".join((event.query or "")[:400].casefold().split())[:100].strip()
            doings.steps.append((at, action, words) if words else (at, "", ""))
        else:
            doings.steps.append((at, "", "") if product is None else (at, action, product))
        if product is not None and action in ("carted", "removed"):
            doings.changes.append((at, "+" if action == "carted" else "-", product))
        if action in FUNNEL:
            unnamed = () if action == "checkout" else (UNKNOWN,)
            self._step(FUNNEL[action], event, at, unnamed if event.category is None else (event.category,))

    def _ordered(self, doings: Doings, order: OrderEvent, at: int) -> None:
        if order.event_type not in ("order.placed", "order.paid"):
            return
        categories = {line.category for line in order.items} or {UNKNOWN}
        self._step("ordered" if order.event_type == "order.placed" else "paid", order, at, categories)
        if order.event_type == "order.paid":
            return
        products = list(dict.fromkeys(str(line.product_id) for line in order.items))
        amount = order.amount if order.currency in (None, self.rules.currency) else 0
        doings.purchases.add((at, str(order.order_id), amount, *products[:100]))
        if len(products) <= self.rules.basket_products:
            self._bought.add(self.in_baskets(products))

    def _step(self, step: str, event: UserActivity | OrderEvent, at: int, categories: Iterable[str]) -> None:
        for category in (None, *categories):
            cell = self._funnel[at - at % self.funnel_slice_ms, category]
            cell.events[step] += 1
            cell.users[step].add(str(event.user_id))
