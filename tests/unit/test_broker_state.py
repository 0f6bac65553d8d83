import shutil
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from streams.broker import Broker
from streams.broker.broker import _size_bytes
from streams.broker.properties import server_properties
from streams.broker.state import PORTS, free_ports, load, new_state, save
from streams.errors import MillraceError


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    state = new_state(3).with_node(replace(new_state(1).nodes[0], pid=12, started=1.5))
    save(tmp_path / "broker" / "state.json", state)
    assert load(tmp_path / "broker" / "state.json") == state


def test_nothing_saved_is_no_state(tmp_path: Path) -> None:
    assert load(tmp_path / "state.json") is None


def test_ports_are_distinct_and_never_ones_for_outgoing_connections() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(port in PORTS for port in ports)


def test_only_ports_that_somebody_took_are_exchanged() -> None:
    state = new_state(1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", state.nodes[0].port))
        other.listen()
        moved = state.with_free_ports()
    assert moved.nodes[0].port != state.nodes[0].port
    assert moved.nodes[0].controller_port == state.nodes[0].controller_port
    assert moved.cluster_id == state.cluster_id


@pytest.mark.parametrize(("nodes", "copies", "in_sync"), [(1, "1", "1"), (3, "3", "2")])
def test_internal_topics_are_replicated_as_far_as_there_are_nodes(nodes: int, copies: str, in_sync: str) -> None:
    state = new_state(nodes)
    properties = server_properties(state, state.nodes[0], Path("/data"))
    assert properties["offsets.topic.replication.factor"] == copies
    assert properties["transaction.state.log.min.isr"] == in_sync
    assert properties["controller.quorum.voters"].count("@") == nodes


def test_given_properties_win() -> None:
    state = new_state(1)
    properties = server_properties(state, state.nodes[0], Path("/d"), {"log.segment.bytes": "1048576"})
    assert properties["log.segment.bytes"] == "1048576"


def test_two_nodes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MillraceError, match="--nodes 1 or 3"):
        Broker(tmp_path, nodes=2)


def test_a_broker_that_never_was_is_stopped_and_not_found(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.down()
    assert broker.cluster() is None
    assert broker.status().nodes == ()
    with pytest.raises(MillraceError, match="millrace broker up"):
        broker.kill(1)


def test_a_size_is_told_while_the_broker_makes_and_deletes_directories(tmp_path: Path) -> None:
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            deep = tmp_path / "topic-0" / "deep"
            deep.mkdir(parents=True)
            (deep / "0.log").write_bytes(b"x" * 5_000)
            shutil.rmtree(tmp_path / "topic-0")

    kept = tmp_path / "kept"
    kept.write_bytes(b"x" * 5_000)
    churning = threading.Thread(target=churn)
    churning.start()
    try:
        sizes = [_size_bytes(tmp_path) for _ in range(2_000)]
    finally:
        done.set()
        churning.join()
    assert min(sizes) >= 5_000
