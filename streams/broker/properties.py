"""The settings of an embedded node: Kafka's defaults, cut to one machine that also runs everything else."""

from collections.abc import Mapping
from pathlib import Path

from streams.broker.state import Node, State


def server_properties(state: State, node: Node, data: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a node's `server.properties`; ``extra`` wins."""
    copies = min(3, len(state.nodes))
    in_sync = min(2, copies)
    return {
        **_addresses(state, node, data),
        **_replication(copies, in_sync),
        **_one_machine(len(state.nodes)),
        **(extra or {}),
    }


def render(properties: Mapping[str, str]) -> str:
    """Return the text of a properties file; a backslash in a value (a path on Windows) is doubled."""
    lines = [f"{name}={value}".replace("\\", "\\\\") for name, value in properties.items()]
    return "\n".join(lines) + "\n"


def _addresses(state: State, node: Node, data: Path) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.id),
        "controller.quorum.voters": state.voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{node.port},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
    }


def _replication(copies: int, in_sync: int) -> dict[str, str]:
    return {
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(in_sync),
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(in_sync),
    }


def _one_machine(nodes: int) -> dict[str, str]:
    return {
        # topics are declared; one made by a typo would have the wrong number of partitions
        "auto.create.topics.enable": "false",
        "num.partitions": "4",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.num.partitions": "4",
        # topics say their retention themselves; what does not say it is kept
        "log.retention.ms": "-1",
        "log.segment.bytes": str(128 << 20),
        "log.cleaner.enable": "true",
        # the default takes 128 MB of the heap; this holds 600,000 keys a pass
        "log.cleaner.dedupe.buffer.size": str(16 << 20),
        # a worker that starts need not wait for others, and one that died may be noticed sooner than in 6 s
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # A node that was killed may register again only when its old session is over (9 s by default).
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",
        "num.network.threads": "2",
        "num.io.threads": "4",
        # nodes of one machine go down together: the last one has no quorum left to hand its leaders over to,
        # and would wait for it for five minutes
        "controlled.shutdown.enable": "false" if nodes > 1 else "true",
    }
