"""A worker's own pages, beside Faust's: `/metrics` for Prometheus, `/readyz` once its partitions are restored."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tables.partition import Counters, Feed, Partition
from tables.store import memory_bytes

if TYPE_CHECKING:
    from streams.delivery import BatchApp
    from topologies.processor import EngineProcessor

COUNTERS = {
    "events": "Source records taken, dead, late and duplicate ones included.",
    "dead": "Records sent to the dead letters.",
    "late": "Events that came after their window's grace.",
    "duplicates": "Events dropped because their eventId was seen before.",
    "flushes": "Flushes made durable.",
    "flush_s": "Seconds spent in flushes.",
}


class EngineCollector:
    """Reads an engine's counters when Prometheus asks."""

    def __init__(self, processor: "EngineProcessor") -> None:
        """Keep the engine to be read."""
        self._processor = processor

    def collect(self) -> Iterable[Metric]:
        """Every metric of the worker; labels are the source's topic and partition."""
        partitions = list(self._processor.engine.partitions.values())
        feeds = [(p, feed) for p in partitions for feed in p.feeds.values()]
        for name, text in COUNTERS.items():
            yield _counter(name, text, feeds)
        position = GaugeMetricFamily("millrace_position", "Next source offset.", labels=["topic", "partition"])
        watermark = GaugeMetricFamily("millrace_watermark_seconds", "Watermark.", labels=["topic", "partition"])
        for _, feed in feeds:
            labels = [feed.tp.topic, str(feed.tp.partition)]
            position.add_metric(labels, feed.position or 0)
            watermark.add_metric(labels, max(0, feed.intake.watermark) / 1000)
        cells = GaugeMetricFamily("millrace_cells", "Accumulators in memory.", labels=["table", "partition"])
        size = GaugeMetricFamily("millrace_state_bytes", "Bytes of local state.", labels=["partition"])
        for partition in partitions:
            size.add_metric([str(partition.number)], partition.store.size_bytes())
            for feed in partition.feeds.values():
                for cache in feed.caches:
                    cells.add_metric([cache.table.name, str(partition.number)], cache.cells())
        yield from (position, watermark, cells, size)
        memory = GaugeMetricFamily("millrace_rocksdb_bytes", "RocksDB's memory, of all stores.", labels=["kind"])
        for kind, found in memory_bytes().items():
            memory.add_metric([kind], found)
        yield memory


def _counter(name: str, text: str, feeds: list[tuple[Partition, Feed]]) -> Metric:
    family = CounterMetricFamily(f"millrace_{_unit(name)}", text, labels=["topic", "partition"])
    for _, feed in feeds:
        counters: Counters = feed.counters
        family.add_metric([feed.tp.topic, str(feed.tp.partition)], getattr(counters, name))
    return family


def _unit(name: str) -> str:
    return name.replace("_s", "_seconds") if name.endswith("_s") else name


def add_pages(app: "BatchApp", processor: "EngineProcessor") -> None:
    """Serve `/metrics` and `/readyz` on the worker's web port."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(EngineCollector(processor))

    @app.page("/metrics", name="metrics")
    async def metrics(page: Any, request: Any) -> Any:
        body = generate_latest(registry)
        return page.bytes(body, content_type=CONTENT_TYPE_LATEST.split(";")[0])

    @app.page("/rebalances", name="rebalances")
    async def rebalances(page: Any, request: Any) -> Any:
        return page.json({"pauses": [asdict(pause) for pause in processor.pauses]})

    @app.page("/readyz", name="readyz")
    async def readyz(page: Any, request: Any) -> Any:
        owned = sorted(processor.engine.partitions)
        return page.json({"ready": processor.ready, "partitions": owned}, status=200 if processor.ready else 503)
