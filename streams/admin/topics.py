"""Topics as an operator sees them: partitions, copies, settings, where each partition begins and ends."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from streams.admin.connection import ANSWER_S, MOVING, Admin, answer, answers, reason
from streams.errors import MillraceError
from streams.log import TP
from streams.topics import Topic, ensure_topics

GONE_S: Final = 30.0
HEARD_S: Final = 1.0
EARLIEST: Final[OffsetSpec] = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # untyped in the library
NEWEST: Final[OffsetSpec] = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]  # untyped in the library
LATEST: Final[OffsetSpec] = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # untyped in the library
POLL_S: Final = 0.05
URL_SAFE: Final = str.maketrans("+/", "-_", "=")


@dataclass(frozen=True)
class PartitionState:
    """Who keeps one partition; `leader` is None while nobody leads it."""

    partition: int
    leader: int | None
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True)
class TopicState:
    """One topic. `config` are the settings that were made for it, not those that it has by default."""

    name: str
    internal: bool
    partitions: tuple[PartitionState, ...]
    topic_id: str | None = None
    config: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def replication(self) -> int:
        """How often its records are kept; of the partition that is kept least."""
        return min((len(one.replicas) for one in self.partitions), default=0)

    @property
    def under_replicated(self) -> int:
        """How many partitions have fewer copies in sync than copies."""
        return sum(len(one.in_sync) < len(one.replicas) for one in self.partitions)


@dataclass(frozen=True)
class Stretch:
    """What a partition holds: offsets `[first, end)`. `at` is the one asked for; None where no record is so late."""

    tp: TP
    first: int
    end: int
    at: int | None = None

    @property
    def offsets(self) -> int:
        """How many offsets there are; compacted and transactional topics have fewer records than that."""
        return self.end - self.first


def topic_names(admin: Admin, *, internal: bool = False) -> list[str]:
    """All topics, by name; Kafka's own (`__consumer_offsets`) only if asked for. Raises BrokerUnreachable."""
    found = admin.metadata().topics
    return sorted(name for name in found if internal or not name.startswith("__"))


def partitions_of(admin: Admin, names: Collection[str]) -> dict[str, list[int]]:
    """The partitions of these topics. Raises MillraceError for one that is not there.

    A broker hears of a topic that another has just made a moment later, so one that is missing is looked for a while.
    """
    deadline = time.monotonic() + HEARD_S
    while True:
        found = admin.metadata().topics
        missing = [name for name in names if name not in found or found[name].error is not None]
        if not missing:
            return {name: sorted(found[name].partitions) for name in names}
        if time.monotonic() > deadline:
            raise no_topic(missing[0], found)
        time.sleep(POLL_S)


def no_topic(name: str, known: Iterable[str]) -> MillraceError:
    """What to say of a topic that is not there; names that look alike are named."""
    from difflib import get_close_matches

    alike = get_close_matches(name, [one for one in known if not one.startswith("__")], 1, 0.7)
    hint = f"did you mean {alike[0]!r}?" if alike else "`millrace topics list` shows those that are there"
    return MillraceError(
        f"there is no topic {name!r}; {hint}; `millrace topics create {name}` makes it; see `millrace doctor`"
    )


def describe_topics(admin: Admin, names: Sequence[str], *, configs: bool = True) -> list[TopicState]:
    """These topics, in that order. Raises MillraceError for one that is not there."""
    partitions_of(admin, names)
    if not names:
        return []
    described = answers(admin.client.describe_topics(TopicCollection(list(names))), "topics cannot be described")
    settings = _settings(admin, names) if configs else {}
    return [_state(described[name], settings.get(name, {})) for name in names]


def _state(found: Any, config: Mapping[str, str]) -> TopicState:
    """Of a TopicDescription, which is not typed as it is: leader and id may be None."""
    partitions = tuple(
        PartitionState(
            one.id,
            one.leader.id if one.leader is not None else None,
            tuple(node.id for node in one.replicas),
            tuple(sorted(node.id for node in one.isr)),
        )
        for one in found.partitions
    )
    # librdkafka writes ids in base64's other alphabet than Kafka's own tools and logs do
    topic_id = None if found.topic_id is None else str(found.topic_id).translate(URL_SAFE)
    return TopicState(found.name, bool(found.is_internal), partitions, topic_id, config)


def _settings(admin: Admin, names: Sequence[str]) -> dict[str, dict[str, str]]:
    asked = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    found: dict[str, dict[str, str]] = {}
    for resource, entries in answers(admin.client.describe_configs(asked), "settings cannot be read").items():
        own: list[ConfigEntry] = [
            one for one in entries.values() if one.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value
        ]
        found[resource.name] = {one.name: str(one.value) for one in sorted(own, key=lambda one: one.name)}
    return found


def create_topic(
    admin: Admin,
    name: str,
    *,
    partitions: int | None = None,
    replication: int | None = None,
    config: Mapping[str, str] | None = None,
    if_missing: bool = False,
) -> bool:
    """Make a topic and return once every partition has a leader; whether it was made here.

    What is None is as the cluster has it by default. With `if_missing` one that exists is left as it is, unless it
    has another number of partitions. Raises PartitionMismatch, MillraceError.
    """
    try:
        declared = Topic(name, partitions=1 if partitions is None else partitions)
    except ValueError as error:
        raise MillraceError(str(error)) from None
    exists = name in admin.metadata().topics
    if exists and not if_missing:
        raise MillraceError(f"topic {name!r} exists already: `millrace topics describe {name}` shows it")
    if not exists:
        new = NewTopic(name, partitions or -1, replication or -1, config=dict(config or {}))
        answer(admin.client.create_topics([new], operation_timeout=ANSWER_S)[name], f"topic {name!r} cannot be created")
    if exists and partitions is None:
        return False
    if partitions is None:
        declared = declared.with_partitions(_made(admin, name))
    ensure_topics(admin.cluster, [declared])
    return not exists


def _made(admin: Admin, name: str) -> int:
    deadline = time.monotonic() + GONE_S
    while not (found := admin.metadata().topics.get(name)) or not found.partitions:
        if time.monotonic() > deadline:
            raise MillraceError(f"topic {name!r} is not ready after {GONE_S:g} s; see `millrace doctor`")
        time.sleep(POLL_S)
    return len(found.partitions)


def delete_topics(admin: Admin, names: Sequence[str]) -> None:
    """Delete topics, and return when the cluster does not show them any more.

    Raises MillraceError for one that is not there, before any is deleted, and for one that may not be deleted.
    """
    partitions_of(admin, names)
    for name, future in admin.client.delete_topics(list(names), operation_timeout=ANSWER_S).items():
        try:
            future.result(ANSWER_S)
        except KafkaException as failure:
            # another hand was quicker
            if failure.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise MillraceError(f"topic {name!r} cannot be deleted: {reason(failure)}") from failure
    deadline = time.monotonic() + GONE_S
    while left := set(names) & admin.metadata().topics.keys():
        if time.monotonic() > deadline:
            raise MillraceError(f"topic {min(left)!r} is still there after {GONE_S:g} s; see `millrace doctor`")
        time.sleep(POLL_S)


def stretches(admin: Admin, tps: Iterable[TP], at: OffsetSpec | None = None) -> dict[TP, Stretch]:
    """Where each partition begins and ends, and the offset of `at`. Raises MillraceError."""
    wanted = sorted(set(tps))
    first = offsets_at(admin, wanted, EARLIEST)
    end = offsets_at(admin, wanted, LATEST)
    found = offsets_at(admin, wanted, at) if at is not None else {}
    return {tp: Stretch(tp, _there(first[tp]), _there(end[tp]), found.get(tp)) for tp in wanted}


def offsets_at(admin: Admin, tps: Sequence[TP], at: OffsetSpec) -> dict[TP, int | None]:
    """The offset of `at` in each partition; None where there is no such record. Raises MillraceError."""
    found: dict[TP, int | None] = {}
    left, deadline = [TopicPartition(*tp) for tp in tps], time.monotonic() + ANSWER_S
    while left:
        asked = admin.client.list_offsets(dict.fromkeys(left, at), request_timeout=ANSWER_S)
        left = []
        for tp, future in asked.items():
            try:
                offset = answer(future, "offsets cannot be read").offset
            except MillraceError as error:
                if not _moves(error) or time.monotonic() > deadline:
                    raise
                left.append(tp)
                continue
            found[TP(tp.topic, tp.partition)] = None if offset < 0 else offset
        if left:
            time.sleep(POLL_S)
    return found


def _moves(error: MillraceError) -> bool:
    """Whether a partition only has another leader than was known, as one has that was made a moment ago."""
    failure = error.__cause__
    return isinstance(failure, KafkaException) and failure.args[0].code() in MOVING


def _there(offset: int | None) -> int:
    return 0 if offset is None else offset
