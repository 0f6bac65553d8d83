"""The recommendations topology of the group `recommendations-group`: what goes with what, for whom, and what trends.

user-activity -> interest_by_product, interest_by_search, recent_by_user
order-events  -> bought_by_user, and its baskets to product-baskets
user-sessions -> its baskets to product-baskets        (closed sessions, from the behaviour topology)
product-baskets -> baskets_by_product                  (keyed by product: the second stage)
|  published key by key (tables.publishing)
v
product-recommendations, user-recommendations
"""

from functools import partial
from typing import Any

from agents import activity, baskets, interest
from agents.neighbours import DAY_MS
from streams.codecs import product_key, user_key
from streams.events import OrderEvent
from streams.intake import EventTime
from streams.topics import ORDER_EVENTS, USER_ACTIVITY
from tables.aggregates import Aggregate, Distinct, Last, Moments, Sum, Tally, TopK
from tables.publishing import Publication
from tables.table import DAY_S, Table
from topologies import recommendation_answers as answers
from topologies import recommendation_views as views
from topologies.behaviour import FLUSH_S, event_time
from topologies.derived_topics import (
    PRODUCT_BASKETS,
    PRODUCT_RECOMMENDATIONS,
    USER_RECOMMENDATIONS,
    USER_SESSIONS,
)
from topologies.results import product_results, user_results
from topologies.sales import own_topic
from topologies.settings import Settings
from topologies.topology import Topology

GROUP = "recommendations-group"
CENTURY_MS = 100 * 365 * DAY_MS
TREND_SLICE_S = 900
RECENT_KEPT = 30
BASKETS_KEPT_S = 30 * DAY_S
PURCHASES_KEPT_S = 180 * DAY_S
# Of a product's neighbours in a day: counts are exact for twice as many, and the most frequent are kept beyond. What
# all of them come to with the longest ids has to fit one record (agents.baskets.ID_BYTES).
NEIGHBOURS_KEPT = 500


def recommendations_topology(settings: Settings) -> Topology:
    """Wire folds, baskets, publications and views."""
    topology = Topology(settings.prefix + GROUP, flush_s=FLUSH_S)
    time = event_time(settings)
    shop, orders = own_topic(USER_ACTIVITY, settings), own_topic(ORDER_EVENTS, settings)
    sessions, to_baskets = own_topic(USER_SESSIONS, settings), own_topic(PRODUCT_BASKETS, settings)
    topology.source(shop, time=time).source(orders, time=time)
    # Sessions of a flush come in the order of their users, baskets from partitions that may be days apart in event
    # time: they are late when there is nothing left to count them in.
    patient = EventTime(time.slice_ms, grace_ms=(BASKETS_KEPT_S - 2 * DAY_S) * 1000, max_ahead_ms=CENTURY_MS)
    topology.source(sessions, time=patient).source(to_baskets, time=patient)
    _add_interest(topology, settings)
    recent = {"recent": TopK(RECENT_KEPT)}
    topology.add(shop, Table("recent_by_user", recent, activity.recent, 3 * DAY_S, slice_s=DAY_S, timed=True))
    bought = {"orders": Moments(activity.MAX_PURCHASES)}
    fold = activity.purchases(settings.currency)
    topology.add(orders, Table("bought_by_user", bought, fold, PURCHASES_KEPT_S, slice_s=30 * DAY_S, timed=True))
    topology.forward(orders, to_baskets, partial(_bought, partitions=settings.partitions), timed=True)
    topology.forward(sessions, to_baskets, partial(baskets.seen_baskets, partitions=settings.partitions))
    counts: dict[str, Aggregate[Any]] = {
        "seen": Sum(),
        "bought": Sum(),
        "seen_with": Tally(NEIGHBOURS_KEPT),
        "bought_with": Tally(NEIGHBOURS_KEPT),
    }
    topology.add(to_baskets, Table("baskets_by_product", counts, baskets.by_product, BASKETS_KEPT_S, slice_s=DAY_S))
    _add_publications(topology, settings)
    _add_views(topology, settings)
    return topology


def _bought(order: OrderEvent, at_ms: int, *, partitions: int) -> list[baskets.Sent]:
    return baskets.bought_baskets(order, partitions, at_ms)


def _add_interest(topology: Topology, settings: Settings) -> None:
    shop = own_topic(USER_ACTIVITY, settings)
    width = TREND_SLICE_S if TREND_SLICE_S % settings.slice_s == 0 else settings.slice_s
    products = {"events": Sum(), "users": Distinct(), "category": Last()}
    searches = {"events": Sum(), "users": Distinct()}
    for name, aggregates, fold in (
        ("interest_by_product", products, interest.products),
        ("interest_by_search", searches, interest.searches),
    ):
        topology.add(shop, Table(name, aggregates, fold, 2 * DAY_S, slice_s=width, timed=True))


def _add_publications(topology: Topology, settings: Settings) -> None:
    half_life = settings.half_life_days or None
    products = own_topic(PRODUCT_RECOMMENDATIONS, settings)
    topology.publish(
        Publication(
            products,
            ("baskets_by_product",),
            partial(product_results, topic=products.name, half_life_days=half_life),
            product_key,
            settles=True,
        )
    )
    topology.publish(
        Publication(
            own_topic(USER_RECOMMENDATIONS, settings),
            ("recent_by_user", "bought_by_user"),
            partial(user_results, topic=products.name),
            user_key,
            copies=(products,),
        )
    )


def _add_views(topology: Topology, settings: Settings) -> None:
    products = own_topic(PRODUCT_RECOMMENDATIONS, settings).name
    topology.copy(own_topic(PRODUCT_RECOMMENDATIONS, settings))
    topology.background(views.trending_in_background)
    topology.view("/api/trending", answers.TRENDING)(views.trending)
    topology.view("/api/recommendations/products/{id}", answers.OF_PRODUCT)(partial(views.of_product, topic=products))
    topology.view("/api/recommendations/users/{id}", answers.OF_USER)(partial(views.of_user, topic=products))
