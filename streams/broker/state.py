"""What is remembered of an embedded broker between commands: its addresses and its processes."""

import base64
import random
import socket
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

# Below the ports that Linux (32768-) and macOS (49152-) hand out for outgoing connections. A client that
# keeps trying a killed node's port would else connect to itself in the end, and keep the node from its port.
PORTS: Final = range(20_000, 30_000)


@dataclass(frozen=True)
class Node:
    """One node: its id from 1, its two ports on 127.0.0.1, and its process, if it was started.

    ``started`` is the process's creation time in seconds since the epoch, which tells it from a later
    process with the same pid.
    """

    id: int
    port: int
    controller_port: int
    pid: int | None = None
    started: float = 0.0

    @property
    def address(self) -> str:
        """Where clients reach this node."""
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True)
class State:
    """One embedded cluster. ``cluster_id`` is Kafka's: a UUID in URL-safe base64."""

    cluster_id: str
    nodes: tuple[Node, ...]

    @property
    def bootstrap(self) -> str:
        """The nodes' addresses as a client wants them."""
        return ",".join(node.address for node in self.nodes)

    @property
    def voters(self) -> str:
        """The controllers as `controller.quorum.voters` wants them."""
        return ",".join(f"{node.id}@127.0.0.1:{node.controller_port}" for node in self.nodes)

    def with_node(self, changed: Node) -> "State":
        """Return the state with one node replaced by its id."""
        return replace(self, nodes=tuple(changed if node.id == changed.id else node for node in self.nodes))

    def with_free_ports(self) -> "State":
        """Return the state with every port that somebody else took meanwhile exchanged for a free one."""
        taken = {port for node in self.nodes for port in (node.port, node.controller_port)}
        blocked = {port for port in taken if not _is_free(port)}
        fresh = dict(zip(sorted(blocked), free_ports(len(blocked), taken), strict=True))
        return replace(
            self,
            nodes=tuple(
                replace(
                    node,
                    port=fresh.get(node.port, node.port),
                    controller_port=fresh.get(node.controller_port, node.controller_port),
                )
                for node in self.nodes
            ),
        )


def new_state(nodes: int) -> State:
    """Return a cluster that does not exist yet: a new id, free ports, no processes."""
    ports = free_ports(2 * nodes)
    return State(_new_cluster_id(), tuple(Node(i + 1, ports[2 * i], ports[2 * i + 1]) for i in range(nodes)))


def load(path: Path) -> State | None:
    """Return what was saved, None if nothing was."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return None


def save(path: Path, state: State) -> None:
    """Replace what was saved, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=2))
    fresh.replace(path)


def free_ports(count: int, besides: Iterable[int] = ()) -> list[int]:
    """Return ports on 127.0.0.1 that nobody listens on now, none of those in ``besides``."""
    chosen: list[int] = []
    # drawn at random, so that two brokers that start at once hardly choose alike
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if len(chosen) == count:
            break
        if port not in besides and _is_free(port):
            chosen.append(port)
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT does not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _new_cluster_id() -> str:
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):  # Kafka's tools would take it for an option
            return text
