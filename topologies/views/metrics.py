"""What a view server tells Prometheus: how it follows, how fresh it is, how it answers."""

import time
from collections.abc import Callable, Iterator, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tables.read_model import ReadModel
from tables.topic_copy import TopicCopy
from topologies.views.channels import Channels
from topologies.views.freshness import Tracker
from topologies.views.problems import Handler

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
NOT_ROUTED = "unknown"


class FollowCollector(Collector):
    """Reads what is followed when Prometheus asks. `group` says of which topology each figure is."""

    def __init__(self, trackers: Callable[[], Sequence[Tracker]]) -> None:
        """Keep what says what is to be read."""
        self._of = trackers

    @property
    def _trackers(self) -> dict[str, Tracker]:
        return {tracker.model.group.name: tracker for tracker in self._of()}

    def collect(self) -> Iterator[Metric]:
        """Every metric of the read side; times are in seconds."""
        applied = CounterMetricFamily(
            "millrace_views_records_applied", "Changelog, progress and copied records applied.", labels=["group"]
        )
        connected = _gauge("millrace_views_connected", "1 while the cluster answers.")
        caught_up = _gauge("millrace_views_caught_up", "1 once what was there at the start is applied.")
        size = _gauge("millrace_views_state_bytes", "Bytes on disk.")
        for group, tracker in self._trackers.items():
            kept: list[ReadModel | TopicCopy] = [tracker.model, *tracker.copies.values()]
            applied.add_metric([group], sum(one.records for one in kept))
            connected.add_metric([group], float(tracker.connected))
            caught_up.add_metric([group], float(tracker.caught_up))
            size.add_metric([group], sum(map(state_bytes, kept)))
        yield from (applied, connected, caught_up, size)
        yield from self._sources(time.time())
        yield from self._copies()

    def _sources(self, now: float) -> Iterator[Metric]:
        lag = _gauge("millrace_views_lag", "Source offsets that the tables do not cover.", "topic", "partition")
        covered = _gauge("millrace_views_covered_offset", "Everything before is covered.", "topic", "partition")
        age = _gauge("millrace_views_watermark_age_seconds", "Now less the lowest watermark.", "topic")
        fresh = _gauge("millrace_views_freshness_seconds", "Since the tables were last known to be complete.", "topic")
        for group, tracker in self._trackers.items():
            for topic, source in tracker.sources.items():
                offsets = tracker.model.covered(topic)
                for partition, offset in offsets.items():
                    covered.add_metric([group, topic, str(partition)], offset)
                for partition, behind in source.lag(offsets).items():
                    lag.add_metric([group, topic, str(partition)], behind)
                marks = tracker.model.watermarks(topic)
                if marks:
                    age.add_metric([group, topic], now - min(marks.values()) / 1000)
                since = tracker.age_s([topic], now)
                if since is not None:
                    fresh.add_metric([group, topic], since)
        yield from (lag, covered, age, fresh)

    def _copies(self) -> Iterator[Metric]:
        lag = _gauge("millrace_views_copy_lag", "Records of a derived topic that its copy does not have.", "topic")
        for group, tracker in self._trackers.items():
            for topic, behind in tracker.copies_lag().items():
                if behind is not None:
                    lag.add_metric([group, topic], behind)
        yield lag


class LiveCollector(Collector):
    """Reads what live views there are when Prometheus asks."""

    def __init__(self, channels: Channels) -> None:
        """Keep what is to be read."""
        self._channels = channels

    def collect(self) -> Iterator[Metric]:
        """Every metric of live views."""
        counts = self._channels.counts
        for name, says, value in (
            ("clients", "Streams that are open.", counts.clients),
            ("channels", "Different views that are followed.", len(self._channels)),
        ):
            yield GaugeMetricFamily(f"millrace_views_live_{name}", says, value)
        for name, says, value in (
            ("answers", "Answers computed for live views, the same as before or not.", counts.computed),
            ("frames", "Frames sent to clients, signs of life included.", counts.frames),
            ("bytes", "Bytes sent to clients.", counts.bytes),
            ("stuck", "Clients that were disconnected because they took nothing.", counts.stuck),
        ):
            yield CounterMetricFamily(f"millrace_views_live_{name}", says, value)


def _gauge(name: str, says: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, says, labels=["group", *labels])


def state_bytes(kept: ReadModel | TopicCopy) -> int:
    """Bytes of a local copy; files that RocksDB removes meanwhile do not count."""
    try:
        return kept.store.size_bytes()
    except FileNotFoundError:
        return state_bytes(kept)


class HttpMetrics:
    """One server's registry, and the counters of its requests."""

    def __init__(self, server: str) -> None:
        """Register everything with a registry of its own, so that several servers fit into a process.

        `server` goes into the metrics' names.
        """
        self.registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            f"millrace_{server}_http_requests",
            "Requests answered.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            f"millrace_{server}_http_request_seconds",
            "How long answers took.",
            ["route"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request. `route` is as declared, such as `/api/tables/{name}`: there are few."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class Metrics(HttpMetrics):
    """What a view server tells."""

    def __init__(self, trackers: Callable[[], Sequence[Tracker]], channels: Channels) -> None:
        """Read trackers and channels when Prometheus asks."""
        super().__init__("views")
        self.registry.register(FollowCollector(trackers))
        self.registry.register(LiveCollector(channels))


METRICS = web.AppKey("metrics", HttpMetrics)
# When a stream began (of perf_counter): whoever begins one notes it.
BEGAN = web.RequestKey("began", float)


@web.middleware
async def measured(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count and time a request. A stream is counted when it ends, and as one that took until it began."""
    started = time.perf_counter()
    response = await handler(request)
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else NOT_ROUTED
    took_s = request.get(BEGAN, time.perf_counter()) - started
    request.app[METRICS].answered(route, request.method, response.status, took_s)
    return response


async def metrics(request: web.Request) -> web.Response:
    """`GET /metrics`, for Prometheus."""
    body = generate_latest(request.app[METRICS].registry)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
