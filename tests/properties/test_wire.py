"""Whatever an event holds comes back from its bytes, and any bytes decode or give a reason."""

from datetime import UTC, datetime, timedelta

from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from streams.codecs import Undecodable, decoder, encode
from streams.events import OrderEvent, OrderLine, PaymentNotification, UserActivity, event_time_ms
from streams.partitioners import key_hash, murmur2

names = st.text(st.characters(exclude_characters="\x1f", exclude_categories=["Cs"]), max_size=20).filter(
    lambda text: "\\u001f" not in text.lower()
)
ids = st.integers(-(2**63), 2**63 - 1) | names
minor = st.integers(0, 2**53 - 1)
maybe_names = st.none() | names
event_ids = st.none() | names.filter(bool)
epoch_ms = st.integers(0, 2**53 - 1)
datetimes = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.sampled_from([None, UTC]))
times = st.none() | epoch_ms | datetimes
lines = st.builds(OrderLine, ids, names, st.integers(1, 1_000_000), minor)
orders = st.builds(
    OrderEvent,
    ids,
    ids,
    minor,
    event_ids,
    st.sampled_from(["order.placed", "order.paid", "order.cancelled", "order.refunded"]),
    maybe_names,
    names,
    times,
    st.lists(lines, max_size=4).map(tuple),
)
activity = st.builds(UserActivity, st.just("cart.added"), ids, event_ids, ids, ids, maybe_names, maybe_names, times)
payments = st.builds(PaymentNotification, st.just("payment.failed"), ids, ids, minor, event_ids, maybe_names, times)

decoders = {kind: decoder(kind) for kind in (OrderEvent, UserActivity, PaymentNotification)}


@given(orders | activity | payments)
def test_events_survive_the_wire(event: OrderEvent | UserActivity | PaymentNotification) -> None:
    assert decoders[type(event)](encode(event)) == event


@given(st.binary(max_size=60) | orders.map(encode).map(lambda raw: raw[:-2]))
def test_any_bytes_decode_or_give_a_reason(raw: bytes) -> None:
    try:
        decoders[OrderEvent](raw)
        reason = "none needed"
    except Undecodable as error:
        reason = str(error)
    assert 0 < len(reason) <= 200


@given(datetimes)
def test_event_time_is_the_floor_of_the_instant(at: datetime) -> None:
    since = at.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    assert event_time_ms(OrderEvent(1, 2, 3, occurred_at=at), 0) == since // timedelta(milliseconds=1)


@given(st.binary(max_size=40), st.integers(1, 64))
def test_murmur2_agrees_with_another_client(key: bytes, partitions: int) -> None:
    assert murmur2(key) & 0xFFFFFFFF == aiokafka_murmur2(key)
    assert 0 <= key_hash(key, partitions) < partitions
