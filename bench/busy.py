"""A shop that was busy for three hours, taken in: what the benches of the view server ask for.

One worker of each topology, a view server, and the history that they have applied, under names of their own.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench.freshness import GIVE_UP_S, await_ready
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.simulator.run import Plan
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS, USER_ACTIVITY
from topologies.demo.client import Client
from topologies.demo.processes import Child, Children
from topologies.demo.run import Demo
from topologies.names import free_port
from topologies.settings import Settings

SHOP: Final = ShopSettings()
TOPICS: Final = f"{USER_ACTIVITY.name},{ORDER_EVENTS.name}"
HISTORY: Final = 60_000
# Flat out, 60,000 events are 30 s of event time; so they are three hours, or up to six at a quiet time of the day.
HISTORY_SPEED: Final = 360
HISTORY_BEGAN_MS: Final = 7 * 3_600_000


@contextmanager
def busy_shop(cluster: Cluster, home: Path, topologies: Sequence[str], *, views: Sequence[str] = ()) -> Iterator[Demo]:
    """Run the shop's workers and views; the history is sent, though the views may still be taking it in.

    `views` are more options of `millrace views`.

    Raises MillraceError when a process ends by itself, or is not ready in time.
    """
    settings = Settings.from_environment(
        cluster=cluster, home=home, state_dir=home / "state", views_port=free_port(),
        prefix=f"answers-{secrets.token_hex(3)}-",
    )  # fmt: skip
    environment = {
        "MILLRACE_BOOTSTRAP": cluster.bootstrap,
        "MILLRACE_HOME": str(home),
        "MILLRACE_STATE": str(settings.state_dir),
        "MILLRACE_PREFIX": settings.prefix,
    }
    with ExitStack() as stack:
        children = stack.enter_context(Children(home / "logs", environment))
        running = Demo(settings, children, Client(f"http://127.0.0.1:{settings.views_port}"), Plan(SHOP))
        stack.callback(running.end)
        running.start(dict.fromkeys(topologies, 1), views=views)
        await_ready(running)
        past = ["simulate", "-n", str(HISTORY), "--speed", str(HISTORY_SPEED), "--topics", TOPICS, "--no-progress"]
        past += ["--start", str(time.time_ns() // 1_000_000 - HISTORY_BEGAN_MS)]
        history = children.start("history", past)
        running.wait(lambda: _ended(running, history), GIVE_UP_S, "the history is not sent")
        yield running


def _ended(running: Demo, child: Child) -> bool:
    if child.process.poll() is None:
        return False
    running.children.running.remove(child)
    if child.process.returncode:
        raise MillraceError(f"{child.name} failed: {(child.log.read_text().splitlines() or ['no word'])[-1]}")
    return True
