"""What cannot be decoded says why, in a few words, and never breaks anything else."""

import pytest

from streams.codecs import Undecodable, decoder
from streams.events import OrderEvent

decode = decoder(OrderEvent)


def with_amount(amount: bytes) -> bytes:
    return b'{"orderId":1,"userId":2,"amount":' + amount + b"}"


def with_field(field: bytes) -> bytes:
    return b'{"orderId":1,"userId":2,"amount":3,' + field + b"}"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, "no value"),
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"orderId":', "not JSON: Input data was truncated"),
        (b"hello", "not JSON"),
        (b"\x00\x01\x02", "not JSON"),
        (with_amount(b"1") + b"}", "not JSON"),
        (with_amount(b"1").decode().encode("utf-16"), "not UTF-8"),
        (with_field('"region":"Gyeonggi-dé"'.encode("latin-1")), "not UTF-8"),
        (b"\xef\xbb\xbf" + with_amount(b"1"), "not JSON"),
        (b"[]", "Expected `object`"),
        (b"null", "Expected `object`"),
        (b'{"userId":2,"amount":3}', "`orderId`"),
        (with_amount(b"NaN"), "not JSON"),
        (with_amount(b"Infinity"), "not JSON"),
        (with_amount(b"-1"), r"amount"),
        (with_amount(b"1.5"), r"got `float` - at `\$.amount`"),
        (with_amount(b"1e999"), r"amount"),
        (with_amount(b"true"), r"got `bool` - at `\$.amount`"),
        (with_amount(b'"5"'), r"got `str` - at `\$.amount`"),
        (with_amount(b"null"), r"got `null` - at `\$.amount`"),
        (with_amount(b"9007199254740992"), r"amount"),
        (with_amount(b"9" * 100_000), r"amount"),
        (b'{"orderId":9223372036854775808,"userId":2,"amount":3}', r"orderId"),
        (b'{"orderId":[1],"userId":2,"amount":3}', r"orderId"),
        (with_field(b'"eventType":"order.lost"'), "'order.lost'"),
        (with_field(b'"occurredAt":"yesterday"'), "occurredAt"),
        (with_field(b'"occurredAt":-1'), "occurredAt"),
        (with_field(b'"items":[{}]'), "productId"),
        (with_field(b'"items":[{"productId":1,"quantity":0}]'), "quantity"),
        (with_field(b'"items":[{"productId":1,"price":-1}]'), "price"),
        (with_field(b'"items":{"productId":1}'), "items"),
        (with_field(b'"region":"\\ud800"'), "not JSON"),
        (with_field(b'"region":"east\\u001fUSD"'), r"U\+001F"),
        (with_field(b'"region":"east\\u001FUSD"'), r"U\+001F"),
        (with_field(b'"region":"east\x1fUSD"'), "not JSON"),
        (b"[" * 1_000_000, "Expected `object`"),
        (with_field(b'"x":' + b"[" * 100_000 + b"]" * 100_000), "nested too deep"),
        (b'{"x":' * 100_000, "nested too deep"),
        (with_field(b'"eventType":"' + b"x" * 100_000 + b'"'), "eventType|xxx"),
    ],
)
def test_a_bad_value_gives_a_short_reason(raw: bytes | None, reason: str) -> None:
    with pytest.raises(Undecodable, match=reason) as raised:
        decode(raw)
    text = str(raised.value)
    assert len(text) <= 200
    assert "\n" not in text


def test_the_largest_amount_is_exact_in_every_json_reader() -> None:
    assert decode(with_amount(b"9007199254740991")).amount == 2**53 - 1


def test_escapes_other_than_the_separator_are_fine() -> None:
    assert decode(with_field(b'"region":"caf\\u00e9 \\"x\\" \\n"')).region == 'café "x" \n'
