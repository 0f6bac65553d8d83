"""All that the recommendations count and publish, beside `BehaviourLedger` and a batch over everything at once."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import msgspec

from agents.neighbours import Popular, neighbours, weighed
from streams.codecs import product_key
from streams.events import ProductNeighbours
from streams.simulator.behaviour_ledger import BehaviourLedger, Together
from tables.reading import read_cells
from topologies.chaos.behaviour import compare_maps, every
from topologies.chaos.compare import read_topics
from topologies.demo.client import Client
from topologies.demo.verify import Comparison
from topologies.derived_topics import PRODUCT_RECOMMENDATIONS
from topologies.recommendation_views import neighbour_rows
from topologies.recommendations import recommendations_topology
from topologies.results import NEIGHBOURS
from topologies.sales import own_topic
from topologies.settings import Settings

TABLE = "baskets_by_product"
# Products whose neighbours the views are asked for.
ASKED = 50
# A machine with much else to do leaves a worker little time to publish in.
PUBLISHED_S = 90.0
AGAIN_S = 2.0

Days = dict[str, list[tuple[int, int, int, Any, Any]]]
Baskets = dict[str, tuple[int, int, Counter[str], Counter[str]]]


def compare_recommendations(
    settings: Settings, ledger: BehaviourLedger, client: Client | None
) -> dict[str, Comparison]:
    """Compare pair counts with the ledger's, and what is published with what they come to.

    What is published follows when a worker has time for it: it is looked at again until it is right, or time is up.
    """
    until = time.monotonic() + PUBLISHED_S
    while True:
        found = _compare(settings, ledger, client)
        late = [part for name, part in found.items() if name != "baskets" and part.mismatches]
        if found["baskets"].mismatches or not late or time.monotonic() > until:
            return found
        time.sleep(AGAIN_S)


def _compare(settings: Settings, ledger: BehaviourLedger, client: Client | None) -> dict[str, Comparison]:
    group = recommendations_topology(settings).group
    table = next(table for table in group.tables if table.name == TABLE)
    published = own_topic(PRODUCT_RECOMMENDATIONS, settings)
    records = asyncio.run(read_topics(settings.cluster, [group.changelog(table), published]))
    days: Days = {}
    for (start, product), one in read_cells(table, records[group.changelog(table).name]).items():
        row = one.results
        tallies = [(row[name]["counts"], row[name]["error"]) for name in ("seen_with", "bought_with")]
        days.setdefault(product, []).append((start, row["seen"], row["bought"], *tallies))
    last = {key: values[-1] for key, values in every(records[published.name]).items()}
    neighbours_of = settle(days, settings.half_life_days or None)
    found = {
        "baskets": compare_maps(expected_baskets(ledger.seen(), ledger.bought()), counted(days)),
        "published": _compare_published(neighbours_of, last),
    }
    return found if client is None else found | {"views": _compare_views(neighbours_of, client)}


def expected_baskets(seen: Together, bought: Together) -> Baskets:
    """By product: in how many baskets it was seen and bought, and beside what."""
    beside: tuple[defaultdict[str, Counter[str]], ...] = (defaultdict(Counter), defaultdict(Counter))
    for together, kind in zip((seen, bought), beside, strict=True):
        for (a, b), count in together.pairs.items():
            kind[a][b] += count
            kind[b][a] += count
    products = seen.products.keys() | bought.products.keys()
    return {p: (seen.products[p], bought.products[p], beside[0][p], beside[1][p]) for p in products}


def counted(days: Days) -> Baskets:
    """The same from the table, all days together; a count that may be low is none that is equal."""
    found: Baskets = {}
    for product, rows in days.items():
        seen_with, bought_with = Counter[str](), Counter[str]()
        for _, _, _, seen_tally, bought_tally in rows:
            seen_with.update(seen_tally[0])
            bought_with.update(bought_tally[0])
        found[product] = (sum(row[1] for row in rows), sum(row[2] for row in rows), seen_with, bought_with)
    return found


def settle(days: Days, half_life_days: float | None) -> dict[str, ProductNeighbours]:
    """Every product's neighbours, computed at once from all that was counted."""
    popular = {p: weighed(((start, n, m) for start, n, m, _, _ in rows), half_life_days) for p, rows in days.items()}
    nowhere = Popular(0.0, 0.0)
    return {
        product: neighbours(
            product, rows, lambda other: popular.get(other, nowhere), NEIGHBOURS, half_life_days=half_life_days
        )
        for product, rows in days.items()
    }


def _compare_published(expected: Mapping[str, ProductNeighbours], last: Mapping[bytes, bytes | None]) -> Comparison:
    decode = msgspec.json.Decoder(ProductNeighbours).decode
    found = {key: None if raw is None else decode(raw) for key, raw in last.items()}
    return compare_maps({product_key(product): one for product, one in expected.items()}, found)


def _compare_views(expected: Mapping[str, ProductNeighbours], client: Client) -> Comparison:
    part = Comparison()
    for product, one in sorted(expected.items(), key=lambda item: -item[1].seen.baskets)[:ASKED]:
        for by, kind in (("seen", one.seen), ("bought", one.bought)):
            rows = client.get(f"/api/recommendations/products/{product}", by=by, n=50).get("rows")
            told = compare_maps({product: neighbour_rows(kind)}, {product: rows})
            part.cells += 1
            part.mismatches += [f"/api/recommendations/products/{mismatch}" for mismatch in told.mismatches]
    return part
