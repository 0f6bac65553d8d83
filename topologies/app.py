"""A Faust app that runs a topology: `build_app(topology, settings)`, run by `faust -A module worker`.

The app is plain Faust with batched delivery: agents of your own, batched or not, may stand beside the topology's.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faust.types import StreamT
from yarl import URL

from streams.delivery import (
    FETCH_BYTES,
    MAX_POLL_RECORDS,
    QUEUED_BATCHES,
    Assignor,
    Batch,
    BatchApp,
    BatchSchema,
    TableManager,
    Transport,
)
from streams.errors import MillraceError
from streams.log import LogError
from streams.memory import GIVE_BACK_EVERY_S, give_back, spare_the_collector
from topologies.names import claim_name, member_name
from topologies.processor import EngineProcessor
from topologies.replay.locks import over
from topologies.settings import Settings
from topologies.topology import Topology
from topologies.worker_pages import add_pages

logger = logging.getLogger(__name__)

# A member hears of a rebalance with its next heartbeat, and all the others stand still until the last one has.
HEARTBEAT_S = 0.5


def build_app(topology: Topology, settings: Settings, **faust_settings: Any) -> BatchApp:
    """Wire a topology into a Faust app. Connects nothing; may be called more than once in a process."""
    brokers = [URL(f"kafka://{server}") for server in settings.cluster.bootstrap.split(",")]
    app = BatchApp(
        topology.name,
        **{
            "broker": brokers,
            "store": "memory://",
            "datadir": str(Path(settings.state_dir) / "faust"),
            "TableManager": TableManager,
            "PartitionAssignor": Assignor,
            "topic_disable_leader": True,
            "topic_allow_declare": True,
            "table_standby_replicas": 0,
            "broker_commit_interval": topology.flush_s if settings.flush_s is None else settings.flush_s,
            "broker_max_poll_records": MAX_POLL_RECORDS,
            "consumer_max_fetch_size": FETCH_BYTES,
            "broker_session_timeout": settings.session_s,
            "broker_heartbeat_interval": min(HEARTBEAT_S, settings.session_s / 5),
            "stream_recovery_delay": 0.0,
            "stream_wait_empty": False,
            "web_port": settings.worker_port,
            "web_bind": "127.0.0.1",
            "web_host": "127.0.0.1",
            # Of Faust's own pages none: they tell about tables that are not there, routes and monitors.
            "web_router_enabled": False,
            "web_tables_enabled": False,
            "web_stats_enabled": False,
            "web_graph_enabled": False,
            "web_metrics_enabled": False,
            **faust_settings,
        },
    )
    app.cluster = settings.cluster
    app.processor = processor = EngineProcessor(topology, settings.cluster, Path(settings.state_dir))
    app.transport = Transport(brokers, app)
    for name in sorted(processor.topics):
        _add_agent(app, processor, name)
    add_pages(app, processor)

    @app.timer(GIVE_BACK_EVERY_S)  # type: ignore[untyped-decorator]  # Faust's
    async def give_memory_back() -> None:
        await give_back()

    async def admitted() -> None:
        await over(Path(settings.state_dir) / topology.name, topology.name)

    def prepare() -> None:
        spare_the_collector()
        name = processor.engine.name = claim_name(settings.state_dir, topology.name, settings.name)
        app.instance_name = member_name(settings.state_dir, name, settings.name)
        (Path(settings.state_dir) / "faust").mkdir(exist_ok=True)

    app.admitted, app.prepare = admitted, prepare
    return app


def app_from_environment(make: Callable[[Settings], Topology]) -> BatchApp:
    """The app of an entry module, for Faust's own command line. Ends the process with one line where it cannot be."""
    try:
        settings = Settings.from_environment()
    except MillraceError as error:
        raise SystemExit(f"error: {error}") from None
    return build_app(make(settings), settings)


def _add_agent(app: BatchApp, processor: EngineProcessor, topic_name: str) -> None:
    topic = app.topic(topic_name, schema=BatchSchema(), maxsize=QUEUED_BATCHES)

    @app.agent(topic, name=f"{processor.topology.name}.{topic_name}")
    async def apply_batches(stream: StreamT[Batch]) -> None:
        async for batch in stream:
            try:
                await processor.take(app, batch)
            except (MillraceError, LogError) as error:
                app.fail(error)
