"""A relay as a process of its own, with its pages: `/healthz`, `/readyz`, `/metrics`."""

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Final

from aiohttp import web
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import URL

from streams.topics import ORDER_EVENTS, PAYMENT_NOTIFICATIONS, ensure_topics
from topologies.group_pages import Ready, pages, served
from topologies.names import claim_port
from topologies.orders.database import Database
from topologies.orders.migrating import check
from topologies.orders.relay import DAY_S, Figures, Relay
from topologies.orders.sending import KafkaSender
from topologies.sales import own_topic
from topologies.settings import LOOPBACK, Settings
from topologies.views.guard import Access

logger = logging.getLogger(__name__)

COUNTERS: Final = {
    "published": "Rows of the outbox that Kafka has taken.",
    "batches": "Batches that they were sent in.",
    "forgotten": "Old rows that were deleted.",
}


class RelayCollector(Collector):
    """Reads a relay when Prometheus asks."""

    def __init__(self, figures: Figures) -> None:
        """Keep what is to be read."""
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Every metric of the relay."""
        figures = self._figures
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"millrace_relay_{name}", text, getattr(figures, name))
        yield GaugeMetricFamily("millrace_relay_shards", "Shards whose lease it has.", len(figures.shards))
        yield GaugeMetricFamily("millrace_relay_waiting", "Rows that it found at its last look.", figures.waiting)
        yield GaugeMetricFamily("millrace_relay_oldest_seconds", "Age of the oldest of them.", figures.oldest_s)
        yield GaugeMetricFamily("millrace_relay_connected", "1 while all goes well.", float(figures.connected))


def relay_pages(figures: Figures, access: Access) -> web.Application:
    """The application; nothing listens yet. One that stands by is ready, too."""

    def ready() -> Ready:
        return figures.connected, {"shards": sorted(figures.shards), "waiting": figures.waiting}

    return pages(RelayCollector(figures), ready, access)


async def run_relay(
    settings: Settings,
    url: URL,
    *,
    keep_s: float = DAY_S,
    host: str = LOOPBACK,
    port: int | None = None,
    started: Callable[[str], None] = logger.info,
) -> None:
    """Relay until SIGINT or SIGTERM; `started` is told the url of the pages. Raises MillraceError."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    port = claim_port(settings.state_dir, settings.worker_port) if port is None else port
    topics = [own_topic(topic, settings) for topic in (ORDER_EVENTS, PAYMENT_NOTIFICATIONS)]
    async with Database.open(url) as database:
        await check(database)
        await asyncio.to_thread(ensure_topics, settings.cluster, topics)
        relay = Relay(database, KafkaSender(settings.cluster), keep_s=keep_s, tell=_tell)
        async with served(
            relay_pages(relay.figures, Access(settings.read_token, settings.ops_token)), host, port
        ) as at:
            started(at)
            await relay.run(stop)


def _tell(line: str) -> None:
    logger.warning("%s", line)
