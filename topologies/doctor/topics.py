"""The topics of a topology: all there, partitioned alike, kept as they must be, led and writable."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka.admin import ConfigResource, ResourceType

from streams.admin.connection import Admin, answers
from streams.admin.topics import PartitionState, TopicState, describe_topics, stretches
from streams.log import TP
from streams.topics import Topic, topic_ids
from topologies.doctor.finding import Finding, Fine, Said
from topologies.doctor.patient import Patient
from topologies.kept_topics import kept_topics

MIN_IN_SYNC: Final = "min.insync.replicas"


@dataclass(frozen=True)
class Topics:
    """The topics that some topologies declare and the cluster has; ``written`` are those with records.

    ``ids`` are in the form in which tables keep them, where the cluster has ids.
    """

    present: Mapping[str, TopicState]
    min_in_sync: Mapping[str, int]
    written: frozenset[str]
    ids: Mapping[str, str]


def ask(admin: Admin, patients: Iterable[Patient]) -> Topics:
    """Describe what is there of the topologies' topics. Raises MillraceError."""
    declared = {topic.name for one in patients for topic in one.topology.topics()}
    wanted = sorted(declared & admin.metadata().topics.keys())
    present = {one.name: one for one in describe_topics(admin, wanted)}
    led = [TP(name, one.partition) for name, state in present.items() for one in state.partitions if _led(one)]
    written = frozenset(tp.topic for tp, held in stretches(admin, led).items() if held.end)
    return Topics(present, _min_in_sync(admin, wanted), written, topic_ids(admin.cluster, wanted))


def _led(partition: PartitionState) -> bool:
    return partition.leader is not None and partition.leader >= 0


def _min_in_sync(admin: Admin, names: Iterable[str]) -> dict[str, int]:
    asked = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    if not asked:
        return {}
    found = answers(admin.client.describe_configs(asked), "settings cannot be read")
    return {one.name: int(entries[MIN_IN_SYNC].value) for one, entries in found.items() if MIN_IN_SYNC in entries}


def look(patient: Patient, found: Topics, nodes: int) -> Iterator[Said]:
    """What is wrong with the topics of a topology that has run here."""
    declared = {topic.name: topic for topic in patient.topology.topics()}
    said: list[Said] = [
        *_missing(patient, declared, found),
        *_partitions(patient, declared, found),
        *_cleanup(declared, found),
        *_copies(declared, found, nodes),
    ]
    there = len(declared.keys() & found.present.keys())
    yield from said or [Fine("topics", f"{patient.name}: {there} topics are there, partitioned alike and writable")]


def _missing(patient: Patient, declared: Mapping[str, Topic], found: Topics) -> Iterator[Finding]:
    kept = set(kept_topics(patient.topology.group))
    for name in sorted(declared.keys() - found.present.keys()):
        if name in kept:
            what = f"{name} is missing, which holds what {patient.name} has counted: its workers refuse to start"
            mend = patient.replay
            yield Finding("topics", "state-topic-missing", "error", what, mend)
            continue
        use = "nothing can be sent to it" if name in patient.topology.sources else "what belongs there is refused"
        what = f"{name} is missing: {use}"
        settings = "".join(f" --config {key}={value}" for key, value in declared[name].kafka_config().items())
        mend = f"millrace topics create {name} --partitions {declared[name].partitions}{settings}"
        yield Finding("topics", "topic-missing", "error", what, mend)


def _partitions(patient: Patient, declared: Mapping[str, Topic], found: Topics) -> Iterator[Finding]:
    sources = {name: len(found.present[name].partitions) for name in patient.topology.sources if name in found.present}
    kept = set(kept_topics(patient.topology.group))
    for name, state in sorted(found.present.items()):
        if name not in declared or len(state.partitions) == declared[name].partitions:
            continue
        has, wanted = len(state.partitions), declared[name].partitions
        what = f"{name} has {has} partition(s), {wanted} are declared"
        if set(sources.values()) == {has}:
            mend = f"export MILLRACE_PARTITIONS={has}"
        elif name in kept:
            mend = patient.replay
        elif name in sources and has > wanted:
            mend = f"millrace topics delete {name}    # its records are lost; or export MILLRACE_PARTITIONS={has}"
        elif has < wanted:
            mend = f"millrace topics alter {name} --partitions {wanted}"
        else:
            mend = f"millrace topics delete {name}    # a worker makes it anew, its records are lost"
        yield Finding("topics", "partitions-differ", "error", what, mend)


def _cleanup(declared: Mapping[str, Topic], found: Topics) -> Iterator[Finding]:
    """Topics that hold a newest value for each key must be compacted: else they lose old ones, or never end."""
    for name, state in sorted(found.present.items()):
        wanted = declared[name].kafka_config()["cleanup.policy"] if name in declared else "delete"
        policy = state.config.get("cleanup.policy", "delete")
        if wanted == "delete" or set(policy.split(",")) == set(wanted.split(",")):
            continue
        what = f"{name} has cleanup.policy={policy}, so it forgets what tables are restored from; {wanted} is declared"
        mend = f"millrace topics alter {name} --config cleanup.policy={wanted}"
        yield Finding("topics", "cleanup-policy", "error", what, mend)


def _copies(declared: Mapping[str, Topic], found: Topics, nodes: int) -> Iterator[Finding]:
    once: list[str] = []
    for name, state in sorted(found.present.items()):
        if name not in declared:
            continue
        least = found.min_in_sync.get(name, 1)
        mend = "millrace broker up    # or start the node that keeps them, if the cluster is not the embedded one"
        if lost := [one.partition for one in state.partitions if not _led(one)]:
            what = f"{name}: nobody leads partition(s) {_listed(lost)}, which can be neither read nor written"
            yield Finding("topics", "no-leader", "error", what, mend)
        elif state.replication < least:
            what = f"{name} is kept {state.replication} time(s), but {MIN_IN_SYNC} is {least}: every write is refused"
            mend = f"millrace topics alter {name} --config {MIN_IN_SYNC}={max(1, state.replication - 1)}"
            yield Finding("topics", "min-in-sync", "error", what, mend)
        elif weak := [one.partition for one in state.partitions if len(one.in_sync) < least]:
            what = f"{name}: partition(s) {_listed(weak)} have fewer copies in sync than {least}: writes are refused"
            yield Finding("topics", "min-in-sync", "error", what, mend)
        elif state.under_replicated:
            what = f"{name}: copies of {state.under_replicated} partition(s) are behind, or on a node that is away"
            yield Finding("topics", "under-replicated", "warning", what, mend)
        elif state.replication == 1 and nodes > 1:
            once.append(name)
    if once:
        what = f"{len(once)} topic(s) are kept once on {nodes} nodes, one of them lost is lost: {', '.join(once[:3])}"
        what += ", ..." if len(once) > 3 else ""
        mend = "kafka-reassign-partitions.sh --execute --reassignment-json-file more-copies.json    # Kafka's own tool"
        yield Finding("topics", "single-copy", "warning", what, mend)


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
