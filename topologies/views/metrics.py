"""What a view server tells Prometheus: how it follows, how fresh it is, how it answers."""

import time
from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tables.read_model import ReadModel
from topologies.views.freshness import Tracker
from topologies.views.problems import Handler

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
NOT_ROUTED = "unknown"


class FollowCollector(Collector):
    """Reads the model and the tracker when Prometheus asks."""

    def __init__(self, model: ReadModel, tracker: Tracker) -> None:
        """Keep what is to be read."""
        self._model = model
        self._tracker = tracker

    def collect(self) -> Iterator[Metric]:
        """Every metric of the read side; times are in seconds."""
        model, tracker, now = self._model, self._tracker, time.time()
        yield CounterMetricFamily(
            "millrace_views_records_applied", "Changelog and progress records applied.", value=model.records
        )
        yield GaugeMetricFamily(
            "millrace_views_connected", "1 while the cluster answers.", value=float(tracker.connected)
        )
        yield GaugeMetricFamily(
            "millrace_views_caught_up", "1 once what was there at the start is applied.", value=float(tracker.caught_up)
        )
        yield GaugeMetricFamily("millrace_views_state_bytes", "Bytes on disk.", value=state_bytes(model))
        yield from self._sources(now)

    def _sources(self, now: float) -> Iterator[Metric]:
        lag = GaugeMetricFamily(
            "millrace_views_lag", "Source offsets that the tables do not cover.", labels=["topic", "partition"]
        )
        covered = GaugeMetricFamily(
            "millrace_views_covered_offset", "Everything before is covered.", labels=["topic", "partition"]
        )
        age = GaugeMetricFamily(
            "millrace_views_watermark_age_seconds", "Now less the lowest watermark.", labels=["topic"]
        )
        fresh = GaugeMetricFamily(
            "millrace_views_freshness_seconds", "Since the tables were last known to be complete.", labels=["topic"]
        )
        for topic, source in self._tracker.sources.items():
            offsets = self._model.covered(topic)
            for partition, offset in offsets.items():
                covered.add_metric([topic, str(partition)], offset)
            for partition, behind in source.lag(offsets).items():
                lag.add_metric([topic, str(partition)], behind)
            marks = self._model.watermarks(topic)
            if marks:
                age.add_metric([topic], now - min(marks.values()) / 1000)
            since = self._tracker.age_s([topic], now)
            if since is not None:
                fresh.add_metric([topic], since)
        yield from (lag, covered, age, fresh)


def state_bytes(model: ReadModel) -> int:
    """Bytes of the local copy; files that RocksDB removes meanwhile do not count."""
    try:
        return model.store.size_bytes()
    except FileNotFoundError:
        return state_bytes(model)


class Metrics:
    """One server's registry, and the counters of its requests."""

    def __init__(self, model: ReadModel, tracker: Tracker) -> None:
        """Register everything with a registry of its own, so that several servers fit into a process."""
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(FollowCollector(model, tracker))
        self._requests = Counter(
            "millrace_views_http_requests",
            "Requests answered.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "millrace_views_http_request_seconds",
            "How long answers took.",
            ["route"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request. `route` is as declared, such as `/api/tables/{name}`: there are few."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


METRICS = web.AppKey("metrics", Metrics)


@web.middleware
async def measured(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count and time a request."""
    started = time.perf_counter()
    response = await handler(request)
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else NOT_ROUTED
    request.app[METRICS].answered(route, request.method, response.status, time.perf_counter() - started)
    return response


async def metrics(request: web.Request) -> web.Response:
    """`GET /metrics`, for Prometheus."""
    body = generate_latest(request.app[METRICS].registry)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
