"""The brokers: whether anybody answers, where they say that they can be reached, how new they are, who is missing."""

import asyncio
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaException

from streams.admin.connection import Admin
from streams.broker import BrokerStatus
from streams.cluster import Cluster
from topologies.doctor.finding import Finding, Fine, Said, Skipped

CONNECT_S: Final = 3.0
ANSWER_S: Final = 5.0
# Topic ids, by which workers and view servers notice that a topic was deleted and made anew.
OLDEST: Final = (2, 8)
# The first release with each request, newest first; and Kafka 4.0 dropped the oldest ways of fetching.
FETCH: Final = 1
RELEASES: Final = ((88, (4, 1)), (80, (3, 9)), (75, (3, 8)), (71, (3, 7)), (65, (3, 0)), (60, (2, 8)))


@dataclass
class Brokers:
    """What the brokers said; `reachable` is None unless the cluster can be asked more."""

    said: list[Said] = field(default_factory=list)
    reachable: Admin | None = None
    nodes: int = 0


def look(cluster: Cluster | None, embedded: BrokerStatus) -> Brokers:
    """Ask for the brokers of a cluster; None: none was named, and the embedded broker does not run."""
    found = Brokers()
    if cluster is None:
        found.said.append(_missing(embedded))
        return found
    refused = {address: why for address in cluster.bootstrap.split(",") if (why := unreachable(address.strip()))}
    if len(refused) == len(cluster.bootstrap.split(",")):
        found.said.append(_unreachable(refused, cluster, embedded))
        return found
    found.said += _partly(refused, cluster, embedded)
    admin = Admin(cluster)
    try:
        metadata = admin.client.list_topics(timeout=ANSWER_S)
    except KafkaException as error:
        found.said.append(_no_kafka(cluster, error))
        return found
    addresses = {node: (str(one.host), one.port) for node, one in metadata.brokers.items()}
    away = list(_advertised(addresses, refused, cluster, embedded))
    found.nodes = len(addresses)
    found.said += away
    if len(away) < len(addresses):
        found.reachable = admin
        found.said += version(cluster, len(addresses), embedded)
    return found


def unreachable(address: str) -> str | None:
    """Why nothing takes a connection at `host:port`; None if something does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OSError as error:
        return error.strerror or str(error) or "no answer"
    return None


def _missing(embedded: BrokerStatus) -> Finding:
    died = [str(node.node) for node in embedded.nodes if node.pid is None]
    kept = f"; that of {embedded.directory} is stopped, {embedded.data_bytes / 1e6:.0f} MB are kept" if died else ""
    return Finding("broker", "broker-missing", "error", f"no Kafka broker runs here{kept}", "millrace broker up")


def _unreachable(refused: Mapping[str, str], cluster: Cluster, embedded: BrokerStatus) -> Finding:
    told = ", ".join(f"{address} ({why})" for address, why in refused.items())
    if embedded.bootstrap == cluster.bootstrap:
        mend = "millrace broker down && millrace broker up"
    elif embedded.bootstrap:
        mend = f"export MILLRACE_BOOTSTRAP={embedded.bootstrap}    # the embedded broker, which runs"
    else:
        mend = "millrace broker up    # and leave --bootstrap and MILLRACE_BOOTSTRAP out; or start yours, or name it"
    return Finding("broker", "broker-unreachable", "error", f"no broker can be reached at {told}", mend)


def _partly(refused: Mapping[str, str], cluster: Cluster, embedded: BrokerStatus) -> Iterator[Finding]:
    left = ",".join(one for one in cluster.bootstrap.split(",") if one.strip() not in refused)
    for address, why in refused.items():
        ours = embedded.bootstrap == cluster.bootstrap
        mend = "millrace broker up" if ours else f"export MILLRACE_BOOTSTRAP={left}    # or start the one at {address}"
        yield Finding("broker", "node-missing", "warning", f"{address} does not answer ({why}); others do", mend)


def _no_kafka(cluster: Cluster, error: KafkaException) -> Finding:
    what = (
        f"{cluster.bootstrap} takes connections, but nothing there answers as Kafka over {cluster.protocol}: "
        f"{error.args[0].str()}"
    )
    mend = "export MILLRACE_SECURITY_PROTOCOL=SASL_SSL    # or what its listener is, with MILLRACE_SASL_* and _SSL_*"
    return Finding("broker", "broker-silent", "error", what, mend)


def _advertised(
    addresses: Mapping[int, tuple[str, int]], refused: Mapping[str, str], cluster: Cluster, embedded: BrokerStatus
) -> Iterator[Finding]:
    """Brokers that a client is sent on to, and cannot reach; those known from the bootstrap addresses are told."""
    for node, (host, port) in sorted(addresses.items()):
        why = unreachable(f"{host}:{port}")
        if why is None or f"{host}:{port}" in refused:
            continue
        what = f"broker {node} tells clients to come to {host}:{port}, which cannot be reached from here ({why})"
        if embedded.bootstrap == cluster.bootstrap:
            mend = "millrace broker down && millrace broker up"
        else:
            instead = cluster.bootstrap.split(",")[0]
            line = f"advertised.listeners={cluster.protocol}://{instead}"
            mend = f"echo {line} >> server.properties    # of broker {node}, then restart it"
        yield Finding("broker", "listener-unreachable", "error", what, mend)


def version(cluster: Cluster, nodes: int, embedded: BrokerStatus) -> Iterator[Said]:
    """How new the brokers are: exactly for the embedded one, else by the requests that they know."""
    where = f"{cluster.bootstrap}, {nodes} node(s)"
    if embedded.bootstrap == cluster.bootstrap:
        yield Fine("broker", f"Apache Kafka {embedded.kafka} at {where}")
        return
    try:
        known = asyncio.run(_requests(cluster))
    except Exception as error:  # whatever aiokafka raises while it connects: the version is all that is missing then
        yield Skipped("broker", f"{where} answers, its version cannot be asked for: {error}")
        return
    release = release_of(known)
    told = f"Kafka {release[0]}.{release[1]} or newer at {where}"
    if release >= OLDEST:
        yield Fine("broker", told)
        return
    what = f"the brokers at {where} are older than Kafka 2.8: a topic that is deleted and made anew is not noticed"
    yield Finding("broker", "broker-old", "warning", what, "millrace broker up    # or upgrade yours: brew, apt, helm")


def release_of(known: Mapping[int, tuple[int, int]]) -> tuple[int, int]:
    """The oldest release that knows these requests, as api key: (oldest, newest version); (0, 0) before 2.8.

    >>> release_of({1: (0, 12), 60: (0, 0)})
    (2, 8)
    """
    release = next((release for key, release in RELEASES if key in known), (0, 0))
    return max(release, (4, 0)) if known.get(FETCH, (0, 0))[0] >= 4 else release


async def _requests(cluster: Cluster) -> dict[int, tuple[int, int]]:
    from aiokafka.client import AIOKafkaClient
    from aiokafka.protocol.admin import ApiVersionRequest

    client: Any = AIOKafkaClient(request_timeout_ms=round(ANSWER_S * 1000), **cluster.aiokafka())
    await client.bootstrap()
    try:
        node = next(iter(client.cluster.brokers())).nodeId
        answer = await client.send(node, ApiVersionRequest())
    finally:
        await client.close()
    rows: Sequence[tuple[int, int, int]] = answer.api_versions
    return {key: (oldest, newest) for key, oldest, newest in rows}
