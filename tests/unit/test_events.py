"""The wire shapes of the events, and the one place that reads their time."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from streams.codecs import Undecodable, decoder, encode, user_key
from streams.events import OrderEvent, OrderLine, PaymentNotification, UserActivity, event_time_ms

decode_order = decoder(OrderEvent)


def order(**fields: object) -> bytes:
    return json.dumps({"orderId": 1, "userId": 123, "amount": 50000} | fields).encode()


def test_the_short_console_form_is_a_whole_order() -> None:
    event = decode_order(b'{"orderId":1,"userId":123,"amount":50000}')
    assert event == OrderEvent(order_id=1, user_id=123, amount=50000)
    assert event.event_type == "order.placed"
    assert (event.currency, event.region, event.items, event.event_id) == (None, "unknown", (), None)


def test_the_long_form_is_camel_case() -> None:
    event = OrderEvent(
        1,
        "u-9",
        300,
        "e1",
        "order.cancelled",
        "EUR",
        "seoul",
        1_700_000_000_123,
        (OrderLine(7, "books", 2, 150),),
    )
    assert encode(event) == (
        b'{"orderId":1,"userId":"u-9","amount":300,"eventId":"e1","eventType":"order.cancelled","currency":"EUR",'
        b'"region":"seoul","occurredAt":1700000000123,'
        b'"items":[{"productId":7,"category":"books","quantity":2,"price":150}]}'
    )
    assert decode_order(encode(event)) == event


def test_activity_and_payments_have_their_own_required_fields() -> None:
    view = decoder(UserActivity)(b'{"eventType":"product.viewed","userId":1,"productId":"p1","sessionId":"s"}')
    assert view == UserActivity("product.viewed", 1, session_id="s", product_id="p1")
    paid = decoder(PaymentNotification)(b'{"eventType":"payment.completed","orderId":1,"userId":2,"amount":3}')
    assert paid == PaymentNotification("payment.completed", 1, 2, 3)
    with pytest.raises(Undecodable, match="eventType"):
        decoder(UserActivity)(b'{"userId":1}')


def test_unknown_fields_are_ignored() -> None:
    assert decode_order(order(loyalty={"points": [1, 2.5, None]})) == OrderEvent(1, 123, 50000)


def test_lines_have_defaults() -> None:
    assert decode_order(order(items=[{"productId": "p"}])).items == (OrderLine("p", "unknown", 1, 0),)


@pytest.mark.parametrize(
    ("occurred_at", "ms"),
    [
        (1_700_000_000_123, 1_700_000_000_123),
        (0, 0),
        ("2023-11-14T22:13:20.123Z", 1_700_000_000_123),
        ("2023-11-14T22:13:20.123999Z", 1_700_000_000_123),
        ("2023-11-15T07:13:20.123+09:00", 1_700_000_000_123),
        ("2023-11-14T22:13:20.123", 1_700_000_000_123),
        ("2023-11-14 22:13:20Z", 1_700_000_000_000),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
    ],
)
def test_times_are_epoch_ms_or_iso(occurred_at: object, ms: int) -> None:
    assert event_time_ms(decode_order(order(occurredAt=occurred_at)), 42) == ms


def test_an_event_without_a_time_has_its_records() -> None:
    assert event_time_ms(decode_order(order()), 42) == 42
    assert event_time_ms(decode_order(order(occurredAt=None)), 42) == 42


def test_a_time_before_1970_is_undecodable() -> None:
    with pytest.raises(Undecodable, match="before 1970"):
        event_time_ms(decode_order(order(occurredAt="1969-12-31T23:59:59.999Z")), 42)
    almost = datetime(1970, 1, 1, 8, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=9)))
    with pytest.raises(Undecodable, match="before 1970"):
        event_time_ms(OrderEvent(1, 2, 3, occurred_at=almost), 42)
    assert event_time_ms(OrderEvent(1, 2, 3, occurred_at=datetime(1970, 1, 1, tzinfo=UTC)), 42) == 0


def test_user_keys_are_text() -> None:
    assert user_key(123) == user_key("123") == b"user-123"
    assert user_key("é") == b"user-\xc3\xa9"
