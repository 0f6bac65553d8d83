"""What the recommendations topology answers: a product's neighbours, recommendations for a user, what is trending."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from agents.baskets import ID_BYTES, is_counted
from agents.personal import Touched, favourite, recommend
from agents.trending import Trend, Trends
from streams.events import Neighbourhood
from tables.store import Store
from tables.windows import Window
from topologies import recommendation_answers as asked
from topologies.results import neighbours_from, related_from, touched
from topologies.views import NotFound, Problem, Reader
from topologies.views.freshness import iso
from topologies.views.queries import newest_end

DAY_MS: Final = 86_400_000
LOOK_EVERY_S: Final = 2.0
LISTED_IN_CATEGORY: Final = 50
# Slices of the trends that are older than this have no weight left.
TREND_MS: Final = 2 * DAY_MS
KINDS: Final = {"products": "interest_by_product", "searches": "interest_by_search"}

Answer = dict[str, Any]
Given = Mapping[str, str]


@dataclass
class Followed:
    """The trends of one table: closed slices once and for all, the open ones anew each time.

    Of `store`, which a read model opens anew when it begins anew: what was followed before is another shop's then.
    """

    table: str
    trends: Trends = field(default_factory=Trends)
    done_before: int = 0
    categories: dict[str, str] = field(default_factory=dict)
    store: Store | None = None

    async def look(self, reader: Reader) -> tuple[int, Trends]:
        """The trends as of the end of the newest slice."""
        model = reader.model
        if model.store is not self.store:
            self._begin_anew(model.store)
        width, end = model.slice_ms(self.table), newest_end(model, self.table)
        start = max(self.done_before, end - TREND_MS)
        closed = model.closed_before(self.table)
        now = self.trends
        for at in range(start - start % width, end, width):
            results = await reader.merged(self.table, Window(at, at + width))
            for key, row in results.items():
                if row.get("category"):
                    self.categories[key] = str(row["category"])
            users = {key: float(row["users"]) for key, row in results.items()}
            await reader.give_way()
            if at + width <= closed:
                self.trends.add(at + width, users)
                self.done_before = at + width
            else:
                if now is self.trends:
                    now = Trends(self.trends.pace, dict(self.trends.levels), self.trends.total)
                    await reader.give_way()
                now.add(at + width, users)
            await reader.give_way()
        if self.trends.forget(end):
            self.categories = {key: name for key, name in self.categories.items() if key in now.levels}
        return end, now

    def _begin_anew(self, store: Store) -> None:
        self.trends, self.done_before, self.categories = Trends(self.trends.pace), 0, {}
        self.store = store


async def trending_in_background(reader: Reader) -> None:
    """Keep the rankings up to date: in general, of searches, and of each category."""
    followed = {kind: Followed(table) for kind, table in KINDS.items()}
    while True:
        fresh = reader.freshness()
        for kind, one in followed.items():
            end, trends = await one.look(reader)
            await reader.give_way()
            rows = trends.top(end, asked.LISTED)
            await reader.give_way()
            ranked: dict[str, Any] = {"at": end, "all": rows, "keys": [trend.key for trend in rows]}
            if kind == "products":
                by_category = await _by_category(reader, trends, one.categories, end)
                ranked |= {"categories": by_category, "category_of": one.categories}
                ranked["keys_by_category"] = {name: [t.key for t in found] for name, found in by_category.items()}
            reader.post(kind, ranked, fresh)
        await asyncio.sleep(LOOK_EVERY_S)


async def _by_category(
    reader: Reader, trends: Trends, categories: Mapping[str, str], end: int
) -> dict[str, list[Trend]]:
    members: dict[str, list[str]] = {}
    for key, name in categories.items():
        members.setdefault(name, []).append(key)
    found = {}
    for name, keys in members.items():
        found[name] = trends.top(end, LISTED_IN_CATEGORY, keys)
        await reader.give_way()
    return found


def trending(reader: Reader, given: Given) -> Answer:
    """`GET /api/trending?kind=products|searches&category=&n=`: what draws more users than it usually does."""
    kind, category, n = asked.KIND.of(given), asked.CATEGORY.of(given), asked.TRENDS.of(given)
    posted = reader.posted(kind, within_s=60)
    ranked = posted.value
    if category is None:
        rows = ranked["all"]
    elif category in ranked.get("categories", {}):
        rows = ranked["categories"][category]
    else:
        known = ", ".join(sorted(ranked.get("categories", {}))) or "none"
        raise NotFound(f"nothing is known of category {category!r}; there are {known}")
    told = [
        {"key": t.key, "users": round(t.users, 2), "expected": round(t.expected, 2), "lift": round(t.lift, 2)}
        for t in rows[:n]
    ]
    return {"kind": kind, "category": category, "at": iso(ranked["at"]), "rows": told, "freshness": posted.freshness}


def of_product(reader: Reader, given: Given, *, topic: str) -> Answer:
    """`GET /api/recommendations/products/{id}?by=seen|bought&n=`: what is seen or bought with a product.

    A row's `share` is that of the product's baskets that hold the other one too, newer baskets counting more; a share
    may be low by `sharesLowBy`.
    404 for a product that was in no basket yet, and for one whose id is too long to be counted.
    """
    product, by, n = asked.PRODUCT.of(given), asked.BY.of(given), asked.N.of(given)
    fresh = reader.freshness()
    found = neighbours_from(reader.copies[topic])(product)
    if found is None and not is_counted(product):
        raise NotFound(
            f"products with ids of more than {ID_BYTES} bytes in UTF-8 are not counted in sessions and orders"
        )
    if found is None:
        raise NotFound(f"product {product!r} was in no session that is over and in no order yet")
    kind = found.seen if by == "seen" else found.bought
    return {
        "productId": product,
        "by": by,
        "baskets": kind.baskets,
        "sharesLowBy": round(kind.error / (kind.weight or 1.0), 4),
        "rows": neighbour_rows(kind)[:n],
        "freshness": fresh,
    }


def neighbour_rows(kind: Neighbourhood) -> list[Answer]:
    """Neighbours as the view tells them: weights are as of each product's newest day, and say nothing by themselves."""
    return [
        {"productId": one.product_id, "score": round(one.score, 4), "share": round(one.together / kind.weight, 4)}
        for one in kind.neighbours
    ]


def of_user(reader: Reader, given: Given, *, topic: str) -> Answer:
    """`GET /api/recommendations/users/{id}?n=`: what goes with what the user looked at and bought, with reasons.

    A user that nothing is known of gets what is trending, and `known` says so.
    """
    n, user = asked.N.of(given), asked.USER.of(given)
    fresh = reader.freshness()
    known = _touched(reader, user)
    trends, categories, category_of = _trending(reader)
    category = favourite(known, category_of.get)
    now = max((at for _, _, at in known), default=0)
    bought = {product for product, action, _ in known if action == "bought"}
    found = recommend(
        known,
        bought,
        related_from(reader.copies[topic]),
        trends,
        n,
        now_ms=now,
        category=category,
        trending_in_category=categories.get(category or "", ()),
    )
    rows = [msgspec.to_builtins(one) for one in found]
    return {"userId": user, "known": bool(known), "favourite": category, "rows": rows, "freshness": fresh}


def _touched(reader: Reader, user: str) -> list[Touched]:
    model = reader.model
    everything = Window(0, 2**52)
    recent = [pair for _, states in model.cells("recent_by_user", user, everything) for pair in states[0]]
    orders = [order for _, states in model.cells("bought_by_user", user, everything) for order in states[0][1]]
    return touched(recent, orders)


def _trending(reader: Reader) -> tuple[list[str], dict[str, list[str]], Mapping[str, str]]:
    try:
        ranked = reader.posted("products").value
    except Problem:
        return [], {}, {}
    return ranked["keys"], ranked["keys_by_category"], ranked["category_of"]
