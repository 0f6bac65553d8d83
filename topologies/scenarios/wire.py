"""What goes between a scenario and its consumers: records in Kafka, and lines over the consumers' pipes."""

from typing import Any

import msgspec


class Payload(msgspec.Struct, frozen=True, array_like=True):
    """A record's value: in which act and by whom it was sent, its number among those of its key, and when.

    Times are on the system's monotonic clock, in seconds, which all processes of a machine share.
    """

    act: str
    producer: int
    number: int
    sent_at: float


class Read(msgspec.Struct, frozen=True, array_like=True):
    """One record as a consumer got it."""

    partition: int
    offset: int
    key: str
    payload: Payload
    read_at: float


class Joining(msgspec.Struct, frozen=True):
    """What a consumer is told on the first line of its stdin: librdkafka's settings, group included, and the topic."""

    config: dict[str, Any]
    topic: str


encode = msgspec.json.Encoder().encode
decode_payload = msgspec.json.Decoder(Payload).decode
decode_joining = msgspec.json.Decoder(Joining).decode
decode_reads = msgspec.json.Decoder(list[Read]).decode
