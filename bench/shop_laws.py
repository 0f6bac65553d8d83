"""The laws of a shop at rest: each is a function from its books to what contradicts it, in words.

None of them asks a part of the shop how it thinks that it did.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from bench.shop_books import Books
from streams.codecs import decoder
from streams.events import OrderEvent
from streams.simulator.ledger import Ledger
from topologies.demo.verify import compare
from topologies.payments.local_gateway import Held

HELD: Final = ("placed", "paid")
# No order is late for a ledger that waits for ever: then the dashboard has to have all of them.
FOR_EVER_MS: Final = 10**12


def nothing_is_made_or_lost(books: Books) -> Iterator[str]:
    """Stock and points that are gone are held by orders that are placed or paid; nothing is below zero."""
    held = {number for number, order in books.orders.items() if order["status"] in HELD}
    pieces, used = Counter[int](), Counter[int]()
    for line in books.lines:
        if line["order_id"] in held:
            pieces[line["product_id"]] += line["quantity"]
    for number in held:
        used[books.orders[number]["user_id"]] += books.orders[number]["points_used"]
    stock, points = books.at_first
    for what, first, now, out in (("product", stock, books.stock, pieces), ("user", points, books.points, used)):
        for one, amount in first.items():
            if now[one] != amount - out[one] or now[one] < 0:
                yield f"{what} {one} has {now[one]}, not {amount} - {out[one]}"


def customers_have_what_they_were_told(books: Books) -> Iterator[str]:
    """Every order that was answered is there as answered, every key once, and no order that nobody asked for."""
    yield from books.tally.wrong
    by_key = Counter(order["idempotency_key"] for order in books.orders.values())
    yield from (f"key {key} has {count} orders" for key, count in by_key.items() if count != 1)
    for key, answer in books.tally.accepted.items():
        order = books.orders.get(answer["orderId"])
        if order is None or order["idempotency_key"] != key or order["amount"] != answer["amount"]:
            yield f"{key} was answered with {answer['orderId']}, and the database has {order}"
    if len(books.orders) != len(books.tally.accepted):
        yield f"{len(books.orders)} orders, {len(books.tally.accepted)} answered"


def every_order_is_at_rest(books: Books) -> Iterator[str]:
    """Who is paid has paid once, and of all others the gateway holds nothing."""
    for number, order in books.orders.items():
        status, payment = order["status"], books.payments.get(number, {}).get("status")
        held = books.gateway.get(f"order-{number}", Held("", 0, 0))
        if status == "paid":
            right = payment == "completed" and held.amount == order["amount"] and held.movements == 1
        else:
            right = status != "placed" and payment in ("failed", "refunded", "void")
            right = right and held.amount == 0 and held.movements in (0, 2)
        if not right:
            yield f"order {number} is {status}, its payment {payment}, the gateway holds {held}"
    yield from (f"{key} is of no order" for key in books.gateway if int(key.partition("-")[2]) not in books.orders)


def every_step_has_its_events(books: Books) -> Iterator[str]:
    """The outbox has exactly the events that follow from where orders and payments are."""
    steps = {"paid": ["paid"], "cancelled": ["cancelled"], "refunded": ["paid", "refunded"]}
    told = {"completed": ["completed"], "failed": ["failed"], "refunded": ["completed", "refunded"], "void": []}
    found = defaultdict[int, list[str]](list)
    for row in books.outbox:
        found[row["order_id"]].append(row["event_id"])
    for number, order in books.orders.items():
        payment = books.payments.get(number, {}).get("status", "none")
        wanted = [f"order-{number}-{step}" for step in ["placed", *steps.get(order["status"], ["?"])]]
        wanted += [f"payment-{number}-{step}" for step in told.get(payment, ["?"])]
        if sorted(found[number]) != sorted(wanted):
            yield f"order {number} has events {sorted(found[number])}, not {sorted(wanted)}"


def topics_have_the_outbox(books: Books) -> Iterator[str]:
    """Every row is in its topic, byte for byte, where it is noted, and nothing else is."""
    rows = {row["event_id"]: row for row in books.outbox}
    at = {(one.topic, one.partition, one.offset): one for one in books.published}
    for row in rows.values():
        one = at.get((row["topic"], row["sent_partition"], row["sent_offset"]))
        if one is None or (one.key, one.value) != (bytes(row["record_key"]), bytes(row["value"])):
            yield f"{row['event_id']} is not at {row['topic']}:{row['sent_partition']}:{row['sent_offset']}"
    for one in books.published:
        row = rows.get(one.event_id, {})
        if one.value != bytes(row.get("value", b"")):
            yield f"{one.topic}:{one.partition}:{one.offset} is not of the outbox: {one.event_id}"


def nobody_is_overtaken(books: Books) -> Iterator[str]:
    """The first time that a user's events are in a topic, they are in the order in which they were committed."""
    first: dict[str, dict[bytes, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for one in books.published:
        first[one.topic][one.key].setdefault(one.event_id)
    wanted: dict[str, dict[bytes, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in books.outbox:
        wanted[row["topic"]][bytes(row["record_key"])].append(row["event_id"])
    for topic, users in wanted.items():
        for key, events in users.items():
            if list(first[topic][key]) != events:
                yield f"{topic}, {key!r}: {list(first[topic][key])} instead of {events}"


LAWS: Final[tuple[Callable[[Books], Iterator[str]], ...]] = (
    nothing_is_made_or_lost,
    customers_have_what_they_were_told,
    every_order_is_at_rest,
    every_step_has_its_events,
    topics_have_the_outbox,
    nobody_is_overtaken,
)


def ledger_of(books: Books, order_events: str, partitions: int) -> Ledger:
    """What the dashboard must say: every order event that was committed, once."""
    ledger, decode = Ledger(partitions, grace_ms=FOR_EVER_MS), decoder(OrderEvent)
    for row in books.outbox:
        if row["topic"] == order_events:
            ledger.record(bytes(row["record_key"]), decode(bytes(row["value"])))
    return ledger


def dashboard_has_all(ledger: Ledger, rows: Callable[[str, int], list[dict[str, Any]]]) -> tuple[int, list[str]]:
    """How many values were compared with the views' rows, and what is different."""
    found = compare(ledger, rows)
    return found.values, found.mismatches


def notices_have_all(books: Books, log: Path) -> Iterator[str]:
    """Every event was told to its customer, and nobody was told of anything else."""
    told = set[str]()
    for line in log.read_bytes().splitlines():
        try:
            told.add(orjson.loads(line)["id"])
        except orjson.JSONDecodeError:  # a line that a killed process left, and that came again
            continue
    events = {row["event_id"] for row in books.outbox}
    yield from (f"nobody was told of {one}" for one in sorted(events - told))
    yield from (f"{one} was told, and is no event" for one in sorted(told - events))


def repeats(books: Books) -> int:
    """Records that are in a topic again."""
    return len(books.published) - len({(one.topic, one.event_id) for one in books.published})
