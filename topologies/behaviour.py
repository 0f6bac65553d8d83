"""The behaviour topology of the group `user-behaviour-group`: what users do, and what they left undone.

user-activity -> activity_by_user, cart_changes_by_user, funnel_activity_by_category
order-events  -> orders_by_user, funnel_orders_by_category
|  when event time says so (tables.rules)
v
user-sessions, abandoned-carts, order-alerts
"""

from functools import partial
from typing import Any

from agents import activity, funnel
from agents.alerts import DUE_MS, Velocity, decide_velocity
from agents.carts import decide_abandoned
from agents.chains import LAST, LONGEST_GAPS, reach_ms
from agents.sessions import OrdersKept, decide_session
from streams.intake import EventTime
from streams.topics import ORDER_EVENTS, USER_ACTIVITY, Topic
from tables.aggregates import Aggregate, Distinct, Max, Min, Moments, Sum, Trail
from tables.rules import Decide, Rule
from tables.table import DAY_S, Table
from topologies import behaviour_answers as answers
from topologies import behaviour_views as views
from topologies.derived_topics import ABANDONED_CARTS, ORDER_ALERTS, USER_SESSIONS
from topologies.sales import own_topic
from topologies.settings import Settings
from topologies.topology import Topology

GROUP = "user-behaviour-group"
# Nearly every event is of another user: a flush five times a second, as of sales, costs half a core more beside 10,000
# events a second (measured), and nobody looks at sessions and carts so often.
FLUSH_S = 1.0
HOUR_S = 3600
KEPT_THINGS = 100
LISTED = 10_000
ORDERS = "orders_by_user"

Aggregates = dict[str, Aggregate[Any]]


def behaviour_topology(settings: Settings) -> Topology:
    """Wire the folds and decisions on behaviour to their tables, topics and views."""
    topology = Topology(settings.prefix + GROUP, flush_s=FLUSH_S)
    time = event_time(settings)
    activity_topic, orders_topic = own_topic(USER_ACTIVITY, settings), own_topic(ORDER_EVENTS, settings)
    topology.source(activity_topic, time=time).source(orders_topic, time=time)
    gap, timeout, window = settings.session_gap_s, settings.cart_timeout_s, settings.alert_window_s
    # A decision looks back over two blocks of the longest chain, or over two windows before an order's own.
    looked_back = max((2 * LONGEST_GAPS + 2) * max(gap, timeout) + window, 3 * window)
    kept = max(round(settings.retention_s), looked_back + DAY_S)
    seen: Aggregates = {"first": Min(), "last": Max()}
    by_user = {**seen, "events": Sum(), "trail": Trail(KEPT_THINGS)}
    changes = {**seen, "changes": Moments(KEPT_THINGS)}
    topology.add(activity_topic, Table("activity_by_user", by_user, activity.by_user, kept, slice_s=gap, timed=True))
    topology.add(
        activity_topic, Table("cart_changes_by_user", changes, activity.cart_changes, kept, slice_s=timeout, timed=True)
    )
    topology.add(
        orders_topic,
        Table(
            ORDERS,
            {"orders": Moments(orders_kept(settings))},
            activity.purchases(settings.currency),
            kept,
            slice_s=window,
            timed=True,
        ),
    )
    _add_funnel(topology, settings)
    _add_rules(topology, settings)
    _add_views(topology, settings)
    return topology


def orders_kept(settings: Settings) -> int:
    """How many orders of a user a slice keeps: well above those that raise an alert (agents.alerts)."""
    return max(KEPT_THINGS, 2 * settings.alert_orders)


def event_time(settings: Settings) -> EventTime:
    """How the shop's own topics are read."""
    return EventTime(
        slice_ms=round(settings.slice_s * 1000),
        grace_ms=round(settings.grace_s * 1000),
        max_ahead_ms=round(settings.max_ahead_s * 1000),
    )


def _add_funnel(topology: Topology, settings: Settings) -> None:
    steps: Aggregates = {}
    for events, users in funnel.STEPS:
        steps |= {events: Sum(), users: Distinct()}
    names = list(steps)
    hour = HOUR_S if HOUR_S % settings.slice_s == 0 else settings.slice_s
    retention = max(round(settings.retention_s), 2 * DAY_S)
    for topic, name, fold, columns in (
        (USER_ACTIVITY, "funnel_activity_by_category", funnel.activity, names[:6]),
        (ORDER_EVENTS, "funnel_orders_by_category", funnel.orders, names[6:]),
    ):
        own = {column: steps[column] for column in columns}
        topology.add(own_topic(topic, settings), Table(name, own, fold, retention, slice_s=hour))


def _add_rules(topology: Topology, settings: Settings) -> None:
    gap, timeout, window = (
        1000 * s for s in (settings.session_gap_s, settings.cart_timeout_s, settings.alert_window_s)
    )
    sessions, carts = own_topic(USER_SESSIONS, settings), own_topic(ABANDONED_CARTS, settings)
    orders = OrdersKept(ORDERS, window, orders_kept(settings))
    end_session = decide_session(gap, orders=orders)
    leave_cart = decide_abandoned(timeout, orders=orders)
    topology.rule(_at_chains_end("sessions", sessions, "activity_by_user", end_session, gap, window))
    topology.rule(_at_chains_end("abandoned-carts", carts, "cart_changes_by_user", leave_cart, timeout, window))
    limits = Velocity(window, settings.alert_orders, settings.alert_amount)
    topology.rule(
        Rule(
            "velocity",
            own_topic(ORDER_ALERTS, settings),
            ORDERS,
            decide_velocity(limits, early=True),
            due_ms=DUE_MS,
            early=True,
            back_ms=2 * window,
            dues=lambda _, states: [order[0] + DUE_MS for order in states[0][1]],
        )
    )


def _at_chains_end(name: str, topic: Topic, table: str, decide: Decide, gap_ms: int, orders_ms: int) -> Rule:
    """A decision that falls due a gap after the last event of a chain (agents.chains), looking at orders beside it."""
    return Rule(
        name,
        topic,
        table,
        decide,
        due_ms=gap_ms,
        looks_at=(ORDERS,),
        back_ms=reach_ms(gap_ms, LONGEST_GAPS, orders_ms),
        dues=lambda _, states: (states[LAST] + gap_ms,),
    )


def _add_views(topology: Topology, settings: Settings) -> None:
    carts, alerts = own_topic(ABANDONED_CARTS, settings), own_topic(ORDER_ALERTS, settings)
    topology.copy(carts, time_of=views.time_of_cart, keep=LISTED)
    topology.copy(alerts, time_of=views.time_of_alert, keep=LISTED)
    gap_ms = 1000 * settings.session_gap_s
    topology.view("/api/sessions/{userId}", answers.SESSIONS)(partial(views.sessions, gap_ms=gap_ms))
    topology.view("/api/funnel", answers.FUNNEL)(views.funnel)
    topology.view("/api/carts/abandoned", answers.CARTS)(partial(views.listed, topic=carts.name))
    topology.view("/api/alerts", answers.ALERTS)(partial(views.listed, topic=alerts.name))
