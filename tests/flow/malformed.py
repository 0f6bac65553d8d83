"""Orders of which some are malformed in every way that we know, and what must become of each.

`made(...)` yields records in log order. A good one has its `event`, as a plain loop would count it; a bad one has none,
and a `reason` that its dead letter must contain. Some of the good ones are odd: at the edge of what is allowed.
"""

import random
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson

from streams.codecs import user_key
from streams.events import OrderEvent
from streams.partitioners import key_hash

PARTITIONS = 4
EVENTS_PER_S = 20
# What a broker takes at the most, less what surrounds a value.
LARGEST = 1_048_588 - 100
LONG = 4 << 20
REGIONS = ("seoul", "busan", "incheon", "대구")

Order = dict[str, Any]
Spoil = Callable[[Order, random.Random], bytes | None]


@dataclass(frozen=True)
class Made:
    """One record; `event` None means that it must become a dead letter whose reason matches `reason`."""

    partition: int
    key: bytes | None
    value: bytes | None
    at_ms: int
    kind: str
    event: OrderEvent | None = None
    reason: str = ""


def made(count: int, *, share: float = 0.01, seed: int = 1, start_ms: int = 0, huge: int = 20) -> Iterator[Made]:
    """So many records, of which `share` are malformed, every kind in turn; each `huge`-th of these is a huge one."""
    rng = random.Random(seed)
    bad = 0
    kinds = list(BAD.items())
    for number in range(count):
        at_ms = start_ms + number * 1000 // EVENTS_PER_S
        order = _order(number, at_ms, rng)
        key = user_key(order["userId"])
        partition = key_hash(key, PARTITIONS)
        if rng.random() < share:
            bad += 1
            odd_key = rng.choice((key, key, None, b"", b"\xff\xfe\x00", b"k" * 5_000))
            if bad % huge:
                name, (spoil, reason) = kinds[bad % len(kinds)]
            else:
                (name, (spoil, reason)), odd_key = HUGE[bad // huge % len(HUGE)], None
            yield Made(partition, odd_key, spoil(order, rng), at_ms, name, reason=reason)
        elif rng.random() < share:
            name, write = rng.choice(ODD)
            raw = write(order, rng)
            yield Made(partition, key, raw, at_ms, name, event=_as_counted(raw, order))
        else:
            raw = _json(order)
            yield Made(partition, key, raw, at_ms, "good", event=msgspec.convert(order, OrderEvent))


def matches(one: Made, reason: str) -> bool:
    """Whether a dead letter's reason is the one that its record must have."""
    return re.search(one.reason, reason) is not None


def _order(number: int, at_ms: int, rng: random.Random) -> Order:
    price = rng.randrange(1, 100_000)
    return {
        "eventId": f"event-{number}",
        "orderId": number,
        "userId": rng.randrange(5_000),
        "amount": price * 2,
        "region": rng.choice(REGIONS),
        "occurredAt": at_ms,
        "items": [{"productId": rng.randrange(300), "category": f"c{number % 7}", "quantity": 2, "price": price}],
    }


def _as_counted(raw: bytes, order: Order) -> OrderEvent:
    """What the odd record says, by Python's own JSON reader, which takes the last of duplicate keys too."""
    known = msgspec.json.decode(raw.decode(errors="replace").replace(":1e999", ":0").encode())
    return msgspec.convert(known, OrderEvent)


def _json(order: Order) -> bytes:
    return orjson.dumps(order)


def _with(**changed: Any) -> Spoil:
    return lambda order, rng: _json({**order, **changed})


def _without(name: str) -> Spoil:
    return lambda order, rng: _json({k: v for k, v in order.items() if k != name})


def _raw(name: str, text: str | bytes) -> Spoil:
    """The order with these very bytes as the value of a field."""
    wanted = text.encode() if isinstance(text, str) else text
    return lambda order, rng: _json({**order, name: "@@"}).replace(b'"@@"', wanted)


def _line(**changed: Any) -> Spoil:
    return lambda order, rng: _json({**order, "items": [{**order["items"][0], **changed}]})


def _noise(size: int, rng: random.Random) -> bytes:
    return rng.randbytes(size // 2 + 1).hex().encode()[:size]


def _noise_order(order: Order, rng: random.Random) -> bytes:
    """As large as the broker takes, and wrong only in its amount."""
    head = _json({**order, "amount": -1})[:-1] + b',"note":"'
    return head + _noise(LARGEST - len(head) - 2, rng) + b'"}'


BAD: dict[str, tuple[Spoil, str]] = {
    "words": (lambda o, r: b"hello", "not JSON"),
    "bytes": (lambda o, r: b"\xff" + r.randbytes(200), "not UTF-8"),
    "truncated": (lambda o, r: (raw := _json(o))[: r.randrange(1, len(raw))], "not JSON"),
    "two values": (lambda o, r: _json(o) + b"\n" + _json(o), "trailing"),
    "single quotes": (lambda o, r: _json(o).replace(b'"', b"'"), "not JSON"),
    "null": (lambda o, r: None, r"no value \(null\)"),
    "empty": (lambda o, r: b"", "empty value"),
    "blank": (lambda o, r: b" \n\t", "empty value"),
    "json null": (lambda o, r: b"null", "Expected `object`"),
    "a list": (lambda o, r: b"[]", "Expected `object`"),
    "a number": (lambda o, r: b"17", "Expected `object`"),
    "utf-16": (lambda o, r: _json(o).decode().encode("utf-16"), "not UTF-8"),
    "latin-1": (_raw("region", '"Málaga"'.encode("latin-1")), "not UTF-8"),
    "byte order mark": (lambda o, r: b"\xef\xbb\xbf" + _json(o), "not JSON"),
    "deep lists": (lambda o, r: b"[" * 20_000 + b"]" * 20_000, "Expected `object`|nested too deep"),
    "deep in an unknown field": (_raw("x", b"[" * 20_000 + b"]" * 20_000), "nested too deep"),
    "deep objects": (_raw("x", b'{"a":' * 20_000 + b"1" + b"}" * 20_000), "nested too deep"),
    "NaN": (_raw("amount", "NaN"), "not JSON"),
    "Infinity": (_raw("amount", "Infinity"), "not JSON"),
    "-Infinity": (_raw("amount", "-Infinity"), "not JSON"),
    "NaN in an unknown field": (_raw("x", "NaN"), "not JSON"),
    "1e999": (_raw("amount", "1e999"), "amount|range"),
    "negative money": (_with(amount=-1), "`int` >= 0.*amount"),
    "negative price": (_line(price=-5), "`int` >= 0.*price"),
    "half money": (_with(amount=10.5), "Expected `int`"),
    "whole money with a point": (_raw("amount", "10.0"), "Expected `int`"),
    "money in words": (_with(amount="100"), "Expected `int`"),
    "true money": (_with(amount=True), "Expected `int`"),
    "no money": (_with(amount=None), "Expected `int`"),
    "2**53": (_with(amount=2**53), "9007199254740991"),
    "2**63": (_raw("amount", str(2**63)), "amount"),
    "2**64": (_raw("amount", str(2**64)), "amount"),
    "5000 digits": (_raw("amount", "9" * 5_000), "amount|range"),
    "id above 64 bits": (_raw("orderId", str(2**63)), "orderId|range"),
    "half an id": (_with(userId=1.5), "userId"),
    "no user": (_with(userId=None), "userId"),
    "long user": (_with(userId="u" * 257), "length <= 256.*userId"),
    "zero pieces": (_line(quantity=0), "quantity"),
    "too many pieces": (_line(quantity=1_000_001), "quantity"),
    "lines that are none": (_with(items={"productId": 1}), "Expected `array`"),
    "a line that is none": (_with(items=[7]), "Expected `object`"),
    "a line of nothing": (_with(items=[{}]), "productId"),
    "unknown type": (_with(eventType="order.lost"), "eventType"),
    "type of another topic": (_with(eventType="product.viewed"), "eventType"),
    "type in figures": (_with(eventType=3), "eventType"),
    "without orderId": (_without("orderId"), "missing required field `orderId`"),
    "without userId": (_without("userId"), "missing required field `userId`"),
    "without amount": (_without("amount"), "missing required field `amount`"),
    "wrong case": (lambda o, r: _json(o).replace(b'"orderId"', b'"orderid"'), "missing required field `orderId`"),
    "eventId is a list": (_with(eventId=["a"]), "eventId"),
    "eventId is an object": (_with(eventId={"a": 1}), "eventId"),
    "eventId is empty": (_with(eventId=""), "eventId"),
    "long region": (_with(region="r" * 300), "length <= 256.*region"),
    "region with U+001F": (_raw("region", r'"seoul\u001fUSD"'), "U\\+001F"),
    "category with U+001F": (_line(category="books\x1fUSD"), "U\\+001F"),
    "a control character as it is": (_raw("region", b'"seoul\x1fUSD"'), "not JSON"),
    "half a surrogate pair": (_raw("region", r'"\ud83d"'), "not JSON"),
    "the wrong half": (_raw("region", r'"\ude00"'), "not JSON"),
    "surrogates in bytes": (_raw("region", b'"\xed\xa0\x80"'), "not UTF-8"),
    "overlong": (_raw("region", b'"\xc0\xaf"'), "not UTF-8"),
    "a bad escape": (_raw("region", r'"\x41"'), "not JSON"),
    "a key twice, the last wrong": (lambda o, r: _json(o)[:-1] + b',"amount":-7}', "`int` >= 0.*amount"),
    "time in words": (_with(occurredAt="yesterday"), "occurredAt"),
    "time is true": (_with(occurredAt=True), "occurredAt"),
    "time before 1970": (_with(occurredAt="1969-12-31T23:59:59Z"), "before 1970"),
    "year 1 ahead of UTC": (_with(occurredAt="0001-01-01T00:00:00+14:00"), "before 1970"),
    "negative time": (_with(occurredAt=-1), "occurredAt"),
    "year 9999 behind UTC": (_with(occurredAt="9999-12-31T23:59:59-14:00"), "ahead of its record"),
    "year 10000": (_with(occurredAt="10000-01-01T00:00:00Z"), "occurredAt"),
    "microseconds": (lambda o, r: _json({**o, "occurredAt": 1_767_225_600_000_000}), "ahead of its record"),
    "a time of 2**53": (_with(occurredAt=2**53), "occurredAt"),
    "an hour ahead": (lambda o, r: _json({**o, "occurredAt": o["occurredAt"] + 3_600_000}), "3600 s ahead"),
    "XML": (lambda o, r: b"<order><id>1</id></order>", "not JSON"),
    "a form": (lambda o, r: b"orderId=1&userId=2&amount=3", "not JSON"),
    "msgpack": (lambda o, r: msgspec.msgpack.encode(o), "not JSON"),
    "avro": (lambda o, r: b"\x00\x00\x00\x00\x07" + r.randbytes(60), "not JSON"),
    "zeros": (lambda o, r: bytes(100), "not JSON"),
}
HUGE: tuple[tuple[str, tuple[Spoil, str]], ...] = (
    ("an order as large as the broker takes", (_noise_order, "`int` >= 0.*amount")),
    ("bytes as large as the broker takes", (lambda o, r: b"\xff" + r.randbytes(LARGEST - 1), "not UTF-8")),
    ("large when unpacked", (lambda o, r: b'"' + b"z" * LONG + b'"', "Expected `object`")),
    ("deep when unpacked", (_raw("x", b"[" * LONG), "nested too deep")),
)


def _written_again(order: Order, rng: random.Random) -> bytes:
    return _json({"amount": order["amount"] + 1, **{k: v for k, v in order.items() if k != "amount"}})[:-1] + (
        b',"amount":%d}' % order["amount"]
    )


def _spaced(order: Order, rng: random.Random) -> bytes:
    return b"\r\n\t " + orjson.dumps(order, option=orjson.OPT_INDENT_2) + b" \n"


def _iso(order: Order, rng: random.Random) -> bytes:
    at = datetime.fromtimestamp(order["occurredAt"] / 1000, UTC)
    return _json({**order, "occurredAt": at.isoformat(timespec="milliseconds")})


ODD: tuple[tuple[str, Callable[[Order, random.Random], bytes]], ...] = tuple(
    (name, write)  # type: ignore[misc]  # none of these returns None
    for name, write in {
        "a key twice": _written_again,
        "largest money": _with(amount=2**53 - 1, items=[]),
        "no money at all": _with(amount=0, items=[]),
        "largest line": _line(quantity=1_000_000, price=2**53 - 1),
        "largest ids": _with(orderId=2**63 - 1),
        "id in words": _with(orderId="주문-1"),
        "white space": _spaced,
        "a pair of surrogates": _raw("region", r'"\ud83d\ude00"'),
        "a zero character": _raw("region", r'"\u0000"'),
        "longest region": _with(region=string.ascii_letters[:32] * 8),
        "unknown fields": _with(note={"deep": [[[[1]]]]}, orderid=7),
        "wild unknown number": _raw("x", "1e999"),
        "unknown bytes": _raw("x", b'"\xff\xfe"'),
        "200 kB of a note": _with(note="n" * 200_000),
        "no lines": _with(items=[]),
        "no lines but null currency": _with(items=[], currency=None),
        "ISO time": _iso,
        "another currency": _with(currency="USD"),
    }.items()
)
