"""When a started cluster is ready: every node is in the metadata that a client is given."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from streams.cluster import Cluster
from streams.errors import MillraceError

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

READY_S: Final = 90.0


def wait_until_ready(
    nodes: Mapping[int, Cluster],
    alive: Callable[[], set[int]],
    log_path: Callable[[int], Path],
    timeout_s: float = READY_S,
) -> None:
    """Return once each of ``nodes``, asked at its own address, answers and knows of all the others.

    Asking one for all would not do: the cluster still names a killed node until its session is over. Raises
    MillraceError with the log's last line of trouble when a node's process ends meanwhile, and after
    ``timeout_s``.
    """
    from confluent_kafka.admin import AdminClient

    # refused connections are expected here: try again at once, and do not write of them to the terminal
    quiet = {"log_level": 0, "reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 50}
    waiting = {node: AdminClient(at.librdkafka(**quiet)) for node, at in nodes.items()}
    deadline = time.monotonic() + timeout_s
    while waiting:
        node = min(waiting)
        if ended := nodes.keys() - alive():
            raise MillraceError(_trouble(f"Kafka's node {min(ended)} ended at its start", log_path(min(ended))))
        if _known(waiting[node]) >= nodes.keys():
            del waiting[node]
            continue
        if time.monotonic() > deadline:
            raise MillraceError(_trouble(f"Kafka is not ready after {timeout_s:g} s", log_path(node)))
        time.sleep(0.02)


def _known(admin: "AdminClient") -> set[int]:
    from confluent_kafka import KafkaException

    try:
        return set(admin.list_topics(timeout=0.25).brokers)
    except KafkaException:
        return set()


def _trouble(what: str, log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    telling = [line for line in lines[-400:] if " ERROR " in line or " FATAL " in line or "Exception" in line]
    reason = f": {telling[-1].strip()[:300]}" if telling else ""
    return f"{what}{reason} (its log: {log})"
