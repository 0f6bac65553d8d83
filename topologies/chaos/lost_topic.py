"""A changelog is deleted: everybody must refuse by its name, and nobody may create it again.

The one fault that a run does not survive, so it is its last: what the workers say is to build the tables anew. It is
also refused where all local state is still complete (tables.lost says why).
"""

import random

from confluent_kafka.admin import AdminClient

from streams.errors import MillraceError
from streams.topics import missing_topics
from topologies.chaos.fleet import Fleet
from topologies.loading import load_topology

# A flush under way has waited for the topic for some seconds before it looks whether it is still there.
NOTICED_WITHIN_S = 90.0
REFUSES_WITHIN_S = 60.0


def delete_changelog(fleet: Fleet, rng: random.Random) -> None:
    """Delete a changelog under running workers, or while they are away; then start them again, at last from nothing."""
    group = load_topology(fleet.topology, fleet.settings).group
    topic = group.changelog(rng.choice(group.tables)).name
    if rng.random() < 0.5:
        _delete(fleet, topic)
        _all_refuse(fleet, topic, NOTICED_WITHIN_S)
    else:
        for slot in list(fleet.workers):
            fleet.kill(slot)
        _delete(fleet, topic)
    for wiped in (False, True):
        if wiped:
            fleet.wipe()
        for slot in (0, 1):
            fleet.start(slot)
        _all_refuse(fleet, topic, REFUSES_WITHIN_S)
    if not missing_topics(fleet.settings.cluster, [topic]):
        raise MillraceError(f"{topic} was deleted, and somebody has created it again")


def _delete(fleet: Fleet, topic: str) -> None:
    admin = AdminClient(fleet.settings.cluster.librdkafka(log_level=0))
    for deleted in admin.delete_topics([topic], operation_timeout=20).values():
        deleted.result()


def _all_refuse(fleet: Fleet, topic: str, limit_s: float) -> None:
    for slot in list(fleet.workers):
        if not fleet.died(slot, limit_s):
            raise MillraceError(f"worker-{slot} goes on without {topic}")
        line = fleet.last_line(slot)
        if f"error: topic {topic} " not in line or "millrace replay" not in line:
            raise MillraceError(f"worker-{slot} ended without a clear line when {topic} was gone: {line!r}")
