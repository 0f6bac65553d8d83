"""Putting the orders into a topic of their own, and taking everything away again that a run has made."""

from collections.abc import Iterable

from bench.orders import Order
from streams.cluster import Cluster
from streams.codecs import user_key
from streams.events import OrderEvent
from streams.producers import Producer
from streams.topics import Topic, ensure_topics


def fill(cluster: Cluster, topic: str, partitions: int, orders: Iterable[Order]) -> int:
    """Produce every order (LZ4, timestamps are event times) and return how many; they are acknowledged then."""
    ensure_topics(cluster, [Topic(topic, OrderEvent, partitions=partitions)])
    with Producer(cluster) as producer:
        for order in orders:
            producer.produce(
                topic, user_key(order.user), order.value(), partition=order.partition, timestamp_ms=order.at_ms
            )
        return producer.produced


def clear(cluster: Cluster, prefix: str) -> None:
    """Delete every topic and every group whose name begins so."""
    from confluent_kafka.admin import AdminClient

    admin = AdminClient(cluster.librdkafka(log_level=0))
    topics = [name for name in admin.list_topics(timeout=10).topics if name.startswith(prefix)]
    groups = [found.group_id for found in admin.list_consumer_groups().result().valid]
    groups = [name for name in groups if name.startswith(prefix)]
    waiting = [*admin.delete_topics(topics).values()] if topics else []
    waiting += [*admin.delete_consumer_groups(groups).values()] if groups else []
    for future in waiting:
        future.exception(timeout=30)  # what cannot be deleted now (a member is leaving) is no reason to fail
