"""Are the recommendations right, and are they good: against a batch computation, `implicit`, and held-out purchases.

*Right*: with decay off, the pair counts of the streamed table are those of `BehaviourLedger`, which computes them from
all sessions and orders at once, and the first ten published neighbours of each product are those of `implicit`'s
item-item cosine on the matrix of the same sessions (orders), ties aside.

*Good*: of the planted pairs, how often is the partner among the first ten neighbours of a product; and the hit rate on
held-out purchases (`bench.held_out`), with the default decay.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from bench.held_out import by_implicit, by_popularity, by_us, hit_rate, kept, ms_per_answer, queries
from bench.item_cosine import ItemCosine, agree, imported
from bench.streamed import counted, driver_settings, neighbours_in, published, run_both
from bench.visits import Visited, sent
from streams.events import OrderEvent, ProductNeighbours
from streams.simulator.behaviour import BehaviourRules
from streams.simulator.behaviour_ledger import BehaviourLedger, Together
from streams.simulator.settings import ShopSettings
from topologies.settings import Settings

Say = Callable[[str], None]
NEAREST: Final = 10
HELD_OUT: Final = 0.2


@dataclass(frozen=True)
class Asked:
    """The shop, how many sessions it has a history of, and on how many held-out purchases is judged (0: none)."""

    products: int = 1_000
    sessions: int = 100_000
    users: int = 10_000
    purchases: int = 3_000
    seed: int = 7

    @property
    def shop(self) -> Visited:
        """The shop with its history, and the visits after it if there are held-out purchases."""
        made = ShopSettings(
            products=self.products, users=self.users, pairs=min(150, self.products // 6), seed=self.seed
        )
        return Visited(made, round(self.sessions / (1 - HELD_OUT)) if self.purchases else self.sessions)


def quality(asked: Asked, say: Say = lambda line: None) -> dict[str, Any]:
    """All figures. Raises MillraceError where `implicit` is not installed."""
    imported("implicit")
    shop = asked.shop
    history = shop.visits[: asked.sessions]
    records = list(sent(history, asked.seed))
    settings = driver_settings()
    ledger = booked(settings, records)
    say(f"{len(records):,} events of {asked.sessions:,} visits: both topologies")
    log = run_both(settings, records)
    say("publishing, decay off")
    found: dict[str, Any] = {"products": asked.products, "sessions": asked.sessions, "events": len(records)}
    with published(settings, log) as driver:
        neighbours = neighbours_in(driver)
        for kind, expected, rows in (
            ("seen", ledger.seen(), seen_rows(ledger)),
            ("bought", ledger.bought(), bought_rows(ledger, records)),
        ):
            say(f"comparing what was {kind} together")
            found[kind] = _compared(counted(driver, kind), expected, kind, neighbours, rows)
    say("publishing, with decay")
    with published(Settings(settings.cluster, settings.home, settings.state_dir), log) as driver:
        neighbours = neighbours_in(driver)
    found["planted"] = planted(shop.opened.pairs, neighbours)
    if asked.purchases:
        say("asking for held-out purchases")
        found["held_out"] = _held_out(asked, shop, neighbours)
    return found


def booked(settings: Settings, records: Sequence[Any]) -> BehaviourLedger:
    """The ledger of the records, by the rules of the settings."""
    rules = BehaviourRules(
        currency=settings.currency,
        gap_ms=1000 * settings.session_gap_s,
        timeout_ms=1000 * settings.cart_timeout_s,
        velocity_ms=1000 * settings.alert_window_s,
    )
    ledger = BehaviourLedger(settings.partitions, rules)
    for one in records:
        ledger.record(one.key, one.event, one.at)
    return ledger


def seen_rows(ledger: BehaviourLedger) -> list[set[str]]:
    """The matrix of sessions: what each that is over has viewed or carted."""
    rules = ledger.rules
    rows = [({*s.viewed, *s.carted}, s.events) for s in ledger.sessions() if not s.truncated]
    small = [row for row, events in rows if len(row) <= rules.basket_products and events <= rules.basket_events]
    return [ledger.in_baskets(row) for row in small]


def bought_rows(ledger: BehaviourLedger, records: Sequence[Any]) -> list[set[str]]:
    """The matrix of orders, each once."""
    orders: dict[Any, set[str]] = {}
    for one in records:
        if isinstance(one.event, OrderEvent) and one.event.event_type == "order.placed":
            orders[one.event.order_id] = ledger.in_baskets(str(line.product_id) for line in one.event.items)
    return list(orders.values())


def _compared(
    streamed: tuple[Together, int],
    expected: Together,
    kind: str,
    neighbours: Mapping[str, ProductNeighbours],
    rows: Sequence[set[str]],
) -> dict[str, Any]:
    (together, error), model = streamed, ItemCosine(rows, 50)
    differ = [product for product in model.products if not _same_nearest(model, product, kind, neighbours)]
    pairs = together.pairs.keys() | expected.pairs.keys()
    return {
        "baskets": len(rows),
        "pairs": len(expected.pairs),
        "pairs_wrong": sum(together.pairs[pair] != expected.pairs[pair] for pair in pairs),
        "popularity_wrong": sum((together.products - expected.products).values())
        + sum((expected.products - together.products).values()),
        "counts_low_by": error,
        "products_compared": len(model.products),
        "nearest_differ": len(differ),
    }


def _same_nearest(model: ItemCosine, product: str, kind: str, neighbours: Mapping[str, ProductNeighbours]) -> bool:
    if product not in neighbours:
        return False
    ours = getattr(neighbours[product], kind).neighbours
    return agree([(one.product_id, one.score) for one in ours], model.neighbours(product, 2 * NEAREST), NEAREST)


def planted(pairs: Sequence[tuple[int, int]], neighbours: Mapping[str, ProductNeighbours]) -> dict[str, Any]:
    """Recall at ten of the planted pairs, asked from both sides, by what is bought and by what is seen together."""
    sides = [(str(a), str(b)) for a, b in pairs] + [(str(b), str(a)) for a, b in pairs]
    found: dict[str, Any] = {"pairs": len(pairs)}
    for kind in ("bought", "seen"):
        hits = 0
        for product, partner in sides:
            known = neighbours.get(product)
            nearest = getattr(known, kind).neighbours[:NEAREST] if known is not None else ()
            hits += any(one.product_id == partner for one in nearest)
        found[f"recall_by_{kind}"] = round(hits / max(1, len(sides)), 4)
    return found


def _held_out(asked: Asked, shop: Visited, neighbours: Mapping[str, ProductNeighbours]) -> dict[str, Any]:
    history = shop.visits[: asked.sessions]
    tests = queries(shop.visits, asked.sessions, asked.purchases)
    ours = by_us(neighbours)
    known = [replace(query, known=kept(query.known)) for query in tests]
    return {
        "purchases": len(tests),
        "popularity": round(hit_rate(tests, by_popularity(history)), 4),
        "implicit": round(max(hit_rate(tests, by_implicit(history, k)) for k in (20, 50)), 4),
        "ours": round(hit_rate(tests, ours), 4),
        "ours_ms": round(ms_per_answer(known, ours), 3),
    }
