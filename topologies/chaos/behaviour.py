"""All that behaviour keeps and decides, beside `BehaviourLedger`: sessions, carts, alerts, the funnel, cell by cell."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from agents.chains import LONGEST_GAPS
from agents.funnel import STEPS, TOTAL
from agents.sales import customer_id
from streams.events import AbandonedCart, OrderAlert, OrderEvent, UserSession
from streams.log import Record
from streams.simulator.behaviour import BehaviourRules
from streams.simulator.behaviour_ledger import BehaviourLedger, FunnelCell
from tables.aggregates import Distinct
from tables.reading import read_cells
from topologies.behaviour import KEPT_THINGS, behaviour_topology, orders_kept
from topologies.chaos.compare import read_topics
from topologies.demo.client import Client
from topologies.demo.verify import Comparison
from topologies.derived_topics import ABANDONED_CARTS, ORDER_ALERTS, USER_SESSIONS
from topologies.sales import own_topic
from topologies.settings import Settings
from topologies.views.freshness import iso

T = TypeVar("T")
FUNNEL_STEPS = ("viewed", "carted", "checkouts", "ordered", "paid")
PAGE = 500
# Of those with the most sessions: one request each.
USERS_ASKED = 50


def rules_of(settings: Settings) -> BehaviourRules:
    """What the ledger has to know of the settings and of the tables' bounds."""
    return BehaviourRules(
        currency=settings.currency,
        gap_ms=1000 * settings.session_gap_s,
        session_block=LONGEST_GAPS,
        trail_cap=KEPT_THINGS,
        timeout_ms=1000 * settings.cart_timeout_s,
        cart_block=LONGEST_GAPS,
        changes_cap=KEPT_THINGS,
        velocity_ms=1000 * settings.alert_window_s,
        max_orders=settings.alert_orders,
        max_amount=settings.alert_amount,
        orders_cap=orders_kept(settings),
    )


def behaviour_ledger(settings: Settings) -> BehaviourLedger:
    """An empty book with the rules of these settings."""
    return BehaviourLedger(
        settings.partitions,
        rules_of(settings),
        slice_ms=1000 * settings.slice_s,
        grace_ms=round(1000 * settings.grace_s),
    )


def compare_behaviour(settings: Settings, ledger: BehaviourLedger, client: Client | None) -> dict[str, Comparison]:
    """Compare all that is there with the ledger, in the topics and, with a client, in the views."""
    group = behaviour_topology(settings).group
    tables = {table.name: table for table in group.tables}
    derived = [own_topic(topic, settings) for topic in (USER_SESSIONS, ABANDONED_CARTS, ORDER_ALERTS)]
    wanted = [*derived, *(group.changelog(table) for table in tables.values())]
    records = asyncio.run(read_topics(settings.cluster, wanted))
    cells = {name: read_cells(table, records[group.changelog(table).name]) for name, table in tables.items()}
    results = {name: {place: one.results for place, one in found.items()} for name, found in cells.items()}
    sessions, carts, alerts = (every(records[topic.name]) for topic in derived)
    found = {
        "sessions": compare_each(of_id(ledger.sessions()), by_id(sessions, UserSession)),
        "carts": compare_each(of_id(ledger.carts()), by_id(carts, AbandonedCart)),
        "alerts": _compare_alerts(ledger, alerts),
        "activity": compare_maps(_activity(ledger), _chosen(results["activity_by_user"], ("events", "first", "last"))),
        "funnel": _compare_funnel(ledger, results),
    }
    return found if client is None else found | {"views": compare_views(ledger, client)}


def every(partitions: Mapping[int, list[Record]]) -> dict[bytes, list[bytes | None]]:
    """All values of each key, in the order of the log."""
    values: dict[bytes, list[bytes | None]] = {}
    for record in (record for records in partitions.values() for record in records):
        values.setdefault(record.key or b"", []).append(record.value)
    return values


def by_id(values: Mapping[bytes, Iterable[bytes | None]], kind: Callable[..., T]) -> dict[str, list[T]]:
    """The different records of each event id: one, if what was said again was said in the same bytes."""
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind)
    found: dict[str, list[T]] = {}
    for raws in values.values():
        for raw in dict.fromkeys(raws):
            one = None if raw is None else decoder.decode(raw)
            found.setdefault("tombstone" if one is None else one.event_id, []).append(one)  # type: ignore[arg-type]  # None is told
    return found


def of_id(events: Iterable[Any]) -> dict[str, Any]:
    """Events by their ids."""
    return {event.event_id: event for event in events}


def compare_each(expected: Mapping[str, T], found: Mapping[str, list[T]]) -> Comparison:
    """Each that is expected is there, once or in the same words again, and nothing else is."""
    return compare_maps({key: [one] for key, one in expected.items()}, {k: [*v] for k, v in found.items()})


def compare_maps(expected: Mapping[Any, Any], found: Mapping[Any, Any]) -> Comparison:
    """Equal values under equal keys."""
    part = Comparison(len(expected), len(expected))
    for key in sorted(expected.keys() | found.keys(), key=str):
        if expected.get(key) != found.get(key):
            part.mismatches.append(f"{key}: is {found.get(key)}, must be {expected.get(key)}")
    return part


def _compare_alerts(ledger: BehaviourLedger, values: Mapping[bytes, list[bytes | None]]) -> Comparison:
    """The final ones; of what is not final, only what event time has not come to yet may be left."""
    decoder = msgspec.json.Decoder(OrderAlert)
    told = {key: [decoder.decode(raw) for raw in raws if raw is not None] for key, raws in values.items()}
    finals: dict[str, list[OrderAlert]] = {}
    for alerts in told.values():
        for alert in {alert.event_id: alert for alert in alerts if alert.final}.values():
            finals.setdefault(alert.event_id, []).extend(dict.fromkeys(a for a in alerts if a.final))
    part = compare_each(of_id(ledger.alerts()), finals)
    for key, alerts in told.items():
        if not alerts or values[key][-1] is None or decoder.decode(values[key][-1] or b"").final:
            continue
        user = alerts[0].user_id
        if alerts[0].occurred_at < ledger.until(ledger.users[user].partition, OrderEvent):
            part.mismatches.append(f"{key!r}: left as it was said early, after {alerts[0].occurred_at} was closed")
    return part


def _activity(ledger: BehaviourLedger) -> dict[tuple[int, str], tuple[int, int, int]]:
    gap = ledger.rules.gap_ms
    times: dict[tuple[int, str], list[int]] = {}
    for user, doings in ledger.users.items():
        for at, _, _ in doings.steps:
            times.setdefault((at - at % gap, user), []).append(at)
    return {place: (len(ats), min(ats), max(ats)) for place, ats in times.items()}


def _chosen(cells: Mapping[Any, Mapping[str, Any]], names: Iterable[str]) -> dict[Any, tuple[Any, ...]]:
    return {place: tuple(results[name] for name in names) for place, results in cells.items()}


def _compare_funnel(ledger: BehaviourLedger, results: Mapping[str, Mapping[Any, Mapping[str, Any]]]) -> Comparison:
    found: dict[Any, dict[str, Any]] = {}
    for table in ("funnel_activity_by_category", "funnel_orders_by_category"):
        for place, row in results[table].items():
            found.setdefault(place, {}).update(row)
    names = [name for pair in STEPS for name in pair]
    told = {place: {name: row.get(name, 0) for name in names} for place, row in found.items()}
    expected = {(start, category or TOTAL): _steps(cell) for (start, category), cell in ledger.funnel().items()}
    return compare_maps(expected, told)


def _steps(cell: FunnelCell) -> dict[str, Any]:
    row: dict[str, Any] = {}
    distinct = Distinct()
    for step, (events, users) in zip(FUNNEL_STEPS, STEPS, strict=True):
        state = distinct.initial()
        for user in cell.users[step]:
            state = distinct.add(state, customer_id(user))
        row |= {events: cell.events[step], users: distinct.result(state)}
    return row


def compare_views(ledger: BehaviourLedger, client: Client) -> Comparison:
    """What the views list, page by page, and the sessions of some users that are over."""
    carts = {(row["userId"], row["since"]) for row in pages(client, "/api/carts/abandoned")}
    alerts = {(row["userId"], row["orderId"]) for row in pages(client, "/api/alerts") if row["final"]}
    listed = compare_maps(dict.fromkeys((c.user_id, iso(c.since)) for c in ledger.carts()), dict.fromkeys(carts))
    raised = compare_maps(dict.fromkeys((a.user_id, a.order_id) for a in ledger.alerts()), dict.fromkeys(alerts))
    part = Comparison(listed.cells + raised.cells, 0, listed.mismatches + raised.mismatches)
    expected: dict[str, dict[str, Any]] = {}
    for one in ledger.sessions():
        expected.setdefault(one.user_id, {})[iso(one.start)] = (one.events, [*one.viewed], [*one.orders])
    for user in sorted(expected, key=lambda user: -len(expected[user]))[:USERS_ASKED]:
        rows = client.get(f"/api/sessions/{user}", hours=72).get("sessions", [])
        found = {row["start"]: (row["events"], row["viewed"], row["orders"]) for row in rows}
        over = compare_maps(expected[user], {start: found.get(start) for start in expected[user]})
        part.cells += over.cells
        part.mismatches += [f"/api/sessions/{user} {mismatch}" for mismatch in over.mismatches]
    return part


def pages(client: Client, path: str) -> list[dict[str, Any]]:
    """All rows of a list, newest first."""
    rows: list[dict[str, Any]] = []
    before: dict[str, str] = {}
    while True:
        answer = client.get(path, n=PAGE, **before)
        rows += answer["rows"]
        if answer["next"] is None:
            return rows
        before = {"before": answer["next"]}
