"""A whole shop as processes that can be killed: broker, order API, relay, payments, worker, views and readers."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.freshness import answers
from streams.broker import Broker
from streams.errors import MillraceError
from topologies.demo.client import Client
from topologies.demo.processes import Child, Children
from topologies.names import free_port

READY_S: Final = 60.0
LOOK_S: Final = 0.05
BROKER: Final = "broker"
# Longer than a session with a broker, so that all notice; shorter than a minute, after which events are late.
AWAY_S: Final = (0.5, 4.0)


@dataclass
class Seat:
    """A process's place: its arguments, its port, and who has it now."""

    name: str
    arguments: Sequence[str]
    port: int
    ready: str = "/healthz"
    child: Child | None = None
    kills: int = 0


@dataclass
class Shop:
    """What runs. A seat that is killed is taken again at once."""

    broker: Broker
    children: Children
    seats: dict[str, Seat] = field(default_factory=dict)
    broker_kills: int = 0
    ready_s: dict[str, list[float]] = field(default_factory=dict)
    _nodes: "list[int]" = field(default_factory=list)

    def add(self, name: str, *arguments: str, ready: str = "/healthz", more: Sequence[str] = ()) -> Seat:
        """A process that has pages on a port of its own; it is not started yet."""
        port = free_port()
        seat = Seat(name, [*arguments, "--port", str(port), *more], port, ready)
        self.seats[name] = seat
        return seat

    def client(self, name: str) -> Client:
        """Who asks a process."""
        return Client(f"http://127.0.0.1:{self.seats[name].port}")

    def start(self) -> None:
        """Start all that have no process, and wait until they are ready."""
        for seat in self.seats.values():
            if seat.child is None:
                self._sit(seat)
        for seat in self.seats.values():
            self._await(seat)

    def _sit(self, seat: Seat) -> None:
        seat.child = self.children.start(seat.name, list(seat.arguments))

    def _await(self, seat: Seat) -> None:
        deadline = time.monotonic() + READY_S
        while not answers(f"http://127.0.0.1:{seat.port}{seat.ready}"):
            self.revive()
            if time.monotonic() > deadline:
                raise MillraceError(f"{seat.name} is not ready after {READY_S:g} s; see {self.children.directory}")
            time.sleep(LOOK_S)

    def revive(self) -> None:
        """Start again what has ended, as whoever runs services does: a process may end while the broker is away."""
        for seat in self.seats.values():
            if seat.child is not None and seat.child.process.poll() is not None:
                self.children.running.remove(seat.child)
                self._sit(seat)

    def kill(self, name: str, chance: random.Random) -> None:
        """Kill a process, or a node of the broker, and return when it is back."""
        began = time.monotonic()
        if name == BROKER:
            self._kill_broker(chance)
        else:
            seat = self.seats[name]
            assert seat.child is not None
            self.children.running.remove(seat.child)
            seat.child.process.kill()
            seat.child.process.wait()
            seat.kills += 1
            self._sit(seat)
            self._await(seat)
        self.ready_s.setdefault(name, []).append(round(time.monotonic() - began, 2))

    def _kill_broker(self, chance: random.Random) -> None:
        """One node after the other, when there are several."""
        self._nodes = self._nodes or [node.node for node in self.broker.status().nodes]
        node = self._nodes.pop(0)
        self.broker.kill(node)
        time.sleep(chance.uniform(*AWAY_S))
        self.broker.start_node(node)
        self.broker_kills += 1

    def end(self, name: str) -> None:
        """End a process in order."""
        seat = self.seats.pop(name)
        if seat.child is not None and seat.child in self.children.running:
            self.children.end(seat.child)

    def wait(self, holds: Callable[[], Any], limit_s: float, otherwise: str) -> Any:
        """What `holds` returns once that is true. Raises MillraceError."""
        deadline = time.monotonic() + limit_s
        while not (found := holds()):
            self.revive()
            if time.monotonic() > deadline:
                raise MillraceError(f"{otherwise} after {limit_s:g} s; see the logs in {self.children.directory}")
            time.sleep(LOOK_S)
        return found


@contextmanager
def shop(home: Path, nodes: int, environment: dict[str, str]) -> Iterator[Shop]:
    """A broker and nothing else yet; at the end of the context nothing runs any more."""
    broker = Broker(home, nodes)
    try:
        cluster = broker.up()
        with Children(home / "logs", {**environment, "MILLRACE_BOOTSTRAP": cluster.bootstrap}) as children:
            yield Shop(broker, children)
    finally:
        broker.down(wipe=True)
