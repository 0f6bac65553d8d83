"""What the behaviour topology answers: a user's sessions, the funnel, abandoned carts, alerts."""

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import msgspec

from agents import funnel as funnels
from agents.chains import LONGEST_GAPS, reach_ms
from agents.sessions import sessions_of
from streams.events import AbandonedCart, OrderAlert
from streams.log import TP
from tables.windows import Window
from topologies import behaviour_answers as asked
from topologies.views import NotFound, Reader
from topologies.views.freshness import iso
from topologies.views.queries import newest_end

HOUR_MS: Final = 3_600_000
_cart = msgspec.json.Decoder(AbandonedCart).decode
_alert = msgspec.json.Decoder(OrderAlert).decode
_decode = msgspec.json.decode

Answer = dict[str, Any]
Given = Mapping[str, str]


def sessions(reader: Reader, given: Given, *, gap_ms: int) -> Answer:
    """`GET /api/sessions/{userId}?hours=24`: sessions of the newest hours, newest first, the open ones too.

    404 for a user without activity in that time.
    """
    user, hours = asked.USER.of(given), asked.SESSION_HOURS.of(given)
    fresh = reader.freshness("activity_by_user")
    end = newest_end(reader.model, "activity_by_user")
    start = max(0, end - hours * HOUR_MS)
    # what goes on into these hours may have begun before them
    reached = Window(max(0, start - reach_ms(gap_ms, LONGEST_GAPS, 0)), max(end, 1))
    cells = reader.model.cells("activity_by_user", user, reached)
    bought = Window(reached.start_ms, reached.end_ms + gap_ms)
    purchases = [p for _, states in reader.model.cells("orders_by_user", user, bought) for p in states[0][1]]
    known = [one for one in sessions_of(user, cells, purchases, gap_ms) if one.end >= start]
    if not known:
        raise NotFound(f"user {user!r} did nothing in the newest {hours} hours; ask for more with hours=, up to 72")
    decided = _decided_until(reader, user, cells[-1][0])
    found = []
    for session in reversed(known):
        row = msgspec.to_builtins(session)
        row |= {"start": iso(session.start), "end": iso(session.end), "open": session.end + gap_ms > decided}
        del row["occurredAt"], row["eventId"]
        found.append(row)
    return {"userId": user, "sessions": found, "freshness": fresh}


def _decided_until(reader: Reader, user: str, newest: int) -> int:
    """Up to where (ms) sessions are decided in the partition of a user's `newest` slice, by both topics (tables.rules).

    Not by whole slices of the table: a session is over as soon as the topics' own slices are closed a gap after it.
    """
    model = reader.model
    sources = [model.group.source_of(table) for table in ("activity_by_user", "orders_by_user")]
    known = [
        (source.time, model.progress.get(TP(source.topic.name, number)))
        for source in sources
        for number in model.partials("activity_by_user", newest, user)
    ]
    return min(0 if progress is None else time.closed_before(progress.watermark) for time, progress in known)


async def funnel(reader: Reader, given: Given) -> Answer:
    """`GET /api/funnel?hours=24&to=`: steps from view to paid order, in total and by category, users at each step.

    Of what is kept whole: `from` says since when, also where that is less than the hours asked for.
    """
    hours, to, wanted = asked.FUNNEL_HOURS.of(given), asked.FUNNEL_TO.of(given), asked.CATEGORY.of(given)
    tables = ("funnel_activity_by_category", "funnel_orders_by_category")
    fresh = reader.freshness()
    slice_ms = reader.model.slice_ms(tables[0])
    newest = max(newest_end(reader.model, table) for table in tables)
    end = newest if to is None else to - to % slice_ms + (slice_ms if to % slice_ms else 0)
    kept_from = max(reader.model.complete_from(table) for table in tables)
    asked_from = max(0, end - hours * HOUR_MS)
    start = max(asked_from - asked_from % slice_ms, kept_from)
    if end <= start:
        nothing: Answer = {"hours": hours, "from": None, "to": None, "total": funnels.funnel({}), "categories": {}}
        return {**nothing, "freshness": fresh}
    window = Window(start, end)
    merged: dict[str, dict[str, Any]] = {}
    for table in tables:
        for key, results in (await reader.merged(table, window)).items():
            merged.setdefault(key, {}).update(results)
    total = funnels.funnel(merged.pop(funnels.TOTAL, {}))
    if wanted is not None and wanted not in merged:
        raise NotFound(f"nothing is known of category {wanted!r} in these hours; there are {', '.join(sorted(merged))}")
    names = sorted(merged) if wanted is None else [wanted]
    times = {"hours": hours, "from": iso(window.start_ms), "to": iso(window.end_ms)}
    categories = {name: funnels.funnel(merged[name]) for name in names}
    return {**times, "total": total, "categories": categories, "freshness": fresh}


def listed(reader: Reader, given: Given, *, topic: str) -> Answer:
    """`GET /api/carts/abandoned` and `GET /api/alerts`: newest first; `before` is the `next` of the page before."""
    n, before, user = asked.N.of(given), _place(asked.BEFORE.of(given)), asked.OF_USER.of(given)
    fresh = reader.freshness()
    copy = reader.copies[topic]
    if user is not None:
        prefix = msgspec.json.encode([user])[:-1] + b","
        rows = [_decode(value) for _, value in islice(copy.starting(prefix, last_first=True), n)]
        return {"rows": [_told(row) for row in rows], "next": None, "freshness": fresh}
    found = copy.newest(n, before)
    last = f"{found[-1].at}:{found[-1].key.hex()}" if len(found) == n else None
    return {"rows": [_told(_decode(one.value)) for one in found], "next": last, "freshness": fresh}


def _place(text: str | None) -> tuple[int, bytes] | None:
    if text is None:
        return None
    at, _, key = text.partition(":")
    return int(at), bytes.fromhex(key)


def _told(row: Answer) -> Answer:
    """Times in words, beside what the record says."""
    times = ("since", "lastChange", "abandonedAt", "occurredAt")
    return {name: iso(value) if name in times else value for name, value in row.items() if name != "eventId"}


def time_of_cart(key: bytes, value: bytes) -> int:
    """When a cart was abandoned."""
    return _cart(value).abandoned_at


def time_of_alert(key: bytes, value: bytes) -> int:
    """When the order was placed that raised an alert."""
    return _alert(value).occurred_at
