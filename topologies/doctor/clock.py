"""The clock: this machine's against the brokers', and records that come from the future.

Kafka tells its time only by stamping records. So a topic is made whose records get the broker's time, one record is
sent, and the topic is deleted; what a round trip takes is the error of the comparison.
"""

import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import confluent_kafka
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic, OffsetSpec

from streams.admin.connection import ANSWER_S, QUIET, Admin, answer, answers
from streams.cluster import Cluster
from streams.errors import MillraceError
from topologies.doctor.finding import Finding, Fine, Said, Skipped
from topologies.doctor.topics import Topics

TOPIC: Final = "millrace-doctor-clock-"
# Sessions, lateness and `age_s` are told in whole seconds; a network that is this slow is a finding of its own.
SKEW_MS: Final = 2_000
FAR_MS: Final = 60_000
AHEAD_MS: Final = 120_000
MEND: Final = "sudo timedatectl set-ntp true    # on each machine, then: timedatectl status"


def brokers_clock(admin: Admin) -> Iterator[Said]:
    """How far the brokers' clock is from this machine's."""
    try:
        sent_ms, told_ms, heard_ms = _exchange(admin)
    except (MillraceError, KafkaException) as error:
        yield Skipped("clock", f"the brokers' clock cannot be seen: {error}")
        return
    skew = skew_ms(sent_ms, told_ms, heard_ms)
    error_ms = (heard_ms - sent_ms) / 2
    said = f"{abs(skew):,.0f} ms (± {error_ms:,.0f})"
    if abs(skew) <= SKEW_MS + error_ms:
        yield Fine("clock", f"the brokers' clock and this machine's differ by {said}")
        return
    who = "ahead of" if skew > 0 else "behind"
    what = f"the brokers' clock is {said} {who} this machine's: retention, ages and what is from the future are off"
    yield Finding("clock", "clock-skew", "error" if abs(skew) > FAR_MS else "warning", what, MEND)


def skew_ms(sent_ms: float, told_ms: float, heard_ms: float) -> float:
    """How far the clock that told its time is ahead, if both ways took equally long.

    >>> skew_ms(sent_ms=1_000, told_ms=61_010, heard_ms=1_020)
    60000.0
    """
    return told_ms - (sent_ms + heard_ms) / 2


def _exchange(admin: Admin) -> tuple[float, float, float]:
    """When a record was sent, the broker's time of it, and when that was heard of; epoch ms."""
    name = TOPIC + secrets.token_hex(4)
    new = NewTopic(name, 1, config={"message.timestamp.type": "LogAppendTime", "min.insync.replicas": "1"})
    answer(admin.client.create_topics([new], operation_timeout=ANSWER_S)[name], "its topic cannot be made")
    try:
        producer = _warm(admin.cluster, name)
        sent_ms = time.time() * 1000
        told_ms = _stamped(producer, name)
        return sent_ms, told_ms, time.time() * 1000
    finally:
        answer(admin.client.delete_topics([name], operation_timeout=ANSWER_S)[name], f"topic {name} cannot be deleted")


def _warm(cluster: Cluster, name: str) -> confluent_kafka.Producer:
    """A producer that has sent a record already: the first one waits for connections."""
    producer = confluent_kafka.Producer(cluster.librdkafka(**{**QUIET, "linger.ms": 0, "message.timeout.ms": 10_000}))
    _stamped(producer, name)
    return producer


def _stamped(producer: confluent_kafka.Producer, name: str) -> float:
    told: list[Any] = []
    producer.produce(name, b"what time is it?", on_delivery=lambda error, message: told.append(error or message))
    producer.flush(ANSWER_S)
    if not told or isinstance(told[0], confluent_kafka.KafkaError):
        raise MillraceError(f"a record could not be sent ({told[0].str() if told else 'no answer'})")
    kind, at_ms = told[0].timestamp()
    if kind != TIMESTAMP_LOG_APPEND_TIME:
        raise MillraceError("the broker does not stamp records")
    return float(at_ms)


def records_ahead(admin: Admin, sources: Iterable[str], found: Topics, now_ms: float) -> Iterator[Finding]:
    """Sources with records whose Kafka time is yet to come: a producer's clock, or this one, is wrong."""
    newest: OffsetSpec = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]  # published without types
    tps = [
        TopicPartition(name, one.partition)
        for name in sorted(sources)
        if name in found.present
        for one in found.present[name].partitions
        if one.leader is not None and one.leader >= 0
    ]
    if not tps:
        return
    asked = admin.client.list_offsets(dict.fromkeys(tps, newest), request_timeout=ANSWER_S)
    told = {(tp.topic, tp.partition): one.timestamp for tp, one in answers(asked, "newest records").items()}
    ahead = {tp: at - now_ms for tp, at in told.items() if at - now_ms > AHEAD_MS}
    if ahead:
        (topic, partition), most = max(ahead.items(), key=lambda pair: pair[1])
        what = (
            f"{topic}[{partition}] has a record from {most / 60_000:,.0f} minutes ahead of this machine's clock: its "
            "producer's is wrong, or this one; such events close windows for all others"
        )
        yield Finding("clock", "records-ahead", "warning", what, MEND)
