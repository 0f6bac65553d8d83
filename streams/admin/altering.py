"""Topics changed while they are in use: more partitions, other settings."""

from collections.abc import Mapping

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, ResourceType

from streams.admin.connection import Admin, answer
from streams.admin.topics import partitions_of
from streams.errors import MillraceError
from streams.topics import Topic, ensure_topics


def set_config(admin: Admin, name: str, config: Mapping[str, str]) -> None:
    """Set some of a topic's settings, and leave the others as they are. Raises MillraceError."""
    partitions_of(admin, [name])
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()]
    asked = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
    answer(admin.client.incremental_alter_configs([asked])[asked], f"topic {name!r} cannot be altered")


def add_partitions(admin: Admin, name: str, partitions: int) -> None:
    """Give a topic more partitions, and return once each has a leader; keys may be in others from then on.

    Raises MillraceError for fewer than it has, which Kafka cannot do.
    """
    has = len(partitions_of(admin, [name])[name])
    if partitions < has:
        raise MillraceError(
            f"topic {name!r} has {has} partitions, and Kafka cannot take any away: delete it and create it anew"
        )
    if partitions > has:
        asked = admin.client.create_partitions([NewPartitions(name, partitions)])
        answer(asked[name], f"topic {name!r} cannot have more partitions")
    ensure_topics(admin.cluster, [Topic(name, partitions=partitions)])
