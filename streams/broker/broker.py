"""One embedded cluster: up, down, found again; nodes killed and started one by one."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from streams.broker import jars, process, state
from streams.broker.properties import render, server_properties
from streams.broker.readiness import wait_until_ready
from streams.broker.state import Node, State
from streams.cluster import Cluster
from streams.errors import MillraceError

if TYPE_CHECKING:
    import psutil

HEAP_MB: Final = {1: 512, 3: 384}


@dataclass(frozen=True)
class NodeStatus:
    """One node as it is now; ``pid`` is None while it does not run."""

    node: int
    address: str
    pid: int | None
    resident_bytes: int


@dataclass(frozen=True)
class BrokerStatus:
    """An embedded broker as it is now; ``bootstrap`` is None unless one of its nodes runs."""

    kafka: str
    directory: Path
    bootstrap: str | None
    nodes: tuple[NodeStatus, ...]
    data_bytes: int


@dataclass(frozen=True)
class Broker:
    """The embedded broker of a home directory.

    ``nodes`` is 1 or 3; None is what is there already, else 1. ``properties`` are further settings of Kafka's
    `server.properties`, and win. Every method may be called from another process than the one that started
    it; those that change something wait for each other.
    """

    home: Path
    nodes: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict, hash=False)
    name: str = "broker"

    def __post_init__(self) -> None:
        """Raise MillraceError for a number of nodes that is not offered."""
        if self.nodes not in (None, *HEAP_MB):
            raise MillraceError(f"an embedded broker has 1 or 3 nodes, not {self.nodes}; use --nodes 1 or 3")

    @property
    def directory(self) -> Path:
        """Where the broker keeps everything."""
        return self.home.absolute() / self.name

    def log_path(self, node: int = 1) -> Path:
        """Where a node's log is."""
        return self._node_directory(node) / "kafka.log"

    def cluster(self) -> Cluster | None:
        """Return the cluster if at least one of its nodes runs."""
        found = state.load(self._state_path)
        return Cluster(found.bootstrap) if found and self._processes(found) else None

    def status(self) -> BrokerStatus:
        """Return what there is and what of it runs."""
        found = state.load(self._state_path)
        nodes = found.nodes if found else ()
        cluster = self.cluster()
        return BrokerStatus(
            kafka=jars.KAFKA_VERSION,
            directory=self.directory,
            bootstrap=cluster.bootstrap if cluster else None,
            nodes=tuple(self._node_status(node) for node in nodes),
            data_bytes=_size_bytes(self.directory),
        )

    def up(self, report: jars.Report | None = None) -> Cluster:
        """Start every node that does not run, and return once all of them answer.

        Ports, data and cluster id are those of the last time. ``report`` hears of the one-time download.
        Raises MillraceError when the jars cannot be had, when there is data of another number of nodes, or
        when a node does not come up; then nothing that was started is left running.
        """
        with self._locked():
            planned = self._planned()
            before = self._processes(planned)
            if len(before) < len(planned.nodes):
                process.java_program()
                classpath = jars.classpath(report)
                planned = planned if before else planned.with_free_ports()
                self._write_properties(planned)
                self._format(planned, classpath)
                stopped = [node for node in planned.nodes if node.id not in before]
                planned = self._start(planned, stopped, classpath)
            self._await(planned, fresh={node.id for node in planned.nodes} - before.keys())
            return Cluster(planned.bootstrap)

    def down(self, *, wipe: bool = False) -> None:
        """Stop every node that runs; ``wipe`` also deletes data, logs and addresses."""
        if not self._state_path.exists():
            return
        with self._locked():
            found = state.load(self._state_path)
            if found:
                # what is about to be deleted need not be closed, which takes three nodes 6 s
                process.stop(self._processes(found).values(), kill=wipe)
            if wipe:
                shutil.rmtree(self.directory)

    def kill(self, node: int) -> None:
        """End one node as a power cut would (SIGKILL)."""
        with self._locked():
            running = process.running(self._node(node), self._properties_path(node))
            process.stop([running] if running else [], kill=True)

    def start_node(self, node: int) -> None:
        """Start one node again on its data, port and settings; return once the cluster counts it in."""
        with self._locked():
            known = self._node(node)
            if process.running(known, self._properties_path(node)):
                return
            found = self._start(self._existing(), [known], jars.classpath())
            self._await(found, fresh={node})

    @property
    def _state_path(self) -> Path:
        return self.directory / "state.json"

    def _node_directory(self, node: int) -> Path:
        return self.directory / f"node-{node}"

    def _properties_path(self, node: int) -> Path:
        return self._node_directory(node) / "server.properties"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / f"{self.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _existing(self) -> State:
        found = state.load(self._state_path)
        if found is None:
            raise MillraceError(f"there is no broker in {self.directory}: start one with `millrace broker up`")
        return found

    def _planned(self) -> State:
        found = state.load(self._state_path)
        if found and self.nodes not in (None, len(found.nodes)):
            raise MillraceError(
                f"the broker in {self.directory} has {len(found.nodes)} node(s), not {self.nodes}: leave out "
                "--nodes to keep it, or delete its data with `millrace broker down --wipe`"
            )
        return found or state.new_state(self.nodes or 1)

    def _node(self, node: int) -> Node:
        for known in self._existing().nodes:
            if known.id == node:
                return known
        raise MillraceError(f"the broker in {self.directory} has no node {node}; its first is 1")

    def _processes(self, of: State) -> dict[int, "psutil.Process"]:
        found = {node.id: process.running(node, self._properties_path(node.id)) for node in of.nodes}
        return {node: running for node, running in found.items() if running}

    def _node_status(self, node: Node) -> NodeStatus:
        running = process.running(node, self._properties_path(node.id))
        resident = running.memory_info().rss if running else 0
        return NodeStatus(node.id, node.address, running.pid if running else None, resident)

    def _write_properties(self, planned: State) -> None:
        for node in planned.nodes:
            path = self._properties_path(node.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            settings = server_properties(planned, node, path.parent / "data", self.properties)
            path.write_text(render(settings))

    def _format(self, planned: State, classpath: list[Path]) -> None:
        fresh = [
            self._properties_path(node.id)
            for node in planned.nodes
            if not (self._node_directory(node.id) / "data" / "meta.properties").exists()
        ]
        formatting = [process.format_data(classpath, path, planned.cluster_id) for path in fresh]
        for one in formatting:
            process.formatted(one)

    def _start(self, planned: State, nodes: list[Node], classpath: list[Path]) -> State:
        for node in nodes:
            pid, started = process.start(
                classpath, self._properties_path(node.id), self.log_path(node.id), HEAP_MB[len(planned.nodes)]
            )
            planned = planned.with_node(replace(node, pid=pid, started=started))
            state.save(self._state_path, planned)
        return planned

    def _await(self, started: State, fresh: set[int]) -> None:
        wanted = fresh | self._processes(started).keys()
        try:
            wait_until_ready(
                {node.id: Cluster(node.address) for node in started.nodes if node.id in wanted},
                alive=lambda: set(self._processes(started)),
                log_path=self.log_path,
            )
        except BaseException:
            process.stop(one for node, one in self._processes(started).items() if node in fresh)
            raise


def _size_bytes(directory: Path) -> int:
    """What a directory takes on disk; a broker that runs makes and removes files meanwhile."""
    total = 0
    for path, _, names in os.walk(directory):  # passes over directories that are gone
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(Path(path) / name).st_blocks * 512
    return total
