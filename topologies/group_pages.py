"""The pages of a process whose work is a side effect: `/healthz`, `/readyz` and `/metrics`, as the workers have them.

`/healthz` answers while the process lives, which is all that a restart can mend; `/readyz` is 200 while Kafka answers
and its group, or each of its groups, has let it in, 503 else, with the reason. `/metrics` needs the token for
operations, where one is set.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.consuming import Meter
from streams.log import TP
from topologies.views.guard import ACCESS, PUBLIC, Access, guarded, harden, warn_if_open
from topologies.views.problems import problems, to_json
from topologies.views.server import listen, url_of

Counts = Callable[[], Mapping[str, float]]
Ready = tuple[bool, Mapping[str, Any]]
STOP_S: Final = 2.0


class GroupCollector(Collector):
    """Reads groups' loops when Prometheus asks; `counts` are further counters, by name without the `millrace_`."""

    def __init__(self, meters: Mapping[str, Meter], counts: Counts) -> None:
        """Keep what is to be read, by group."""
        self._meters, self._counts = meters, counts

    def collect(self) -> Iterator[Metric]:
        """Every metric of the groups in this process."""
        labels = ["group", "topic", "partition"]
        handled = CounterMetricFamily("millrace_group_handled", "Records that took effect.", labels=labels)
        again = CounterMetricFamily("millrace_group_again", "Times that records had to wait.", labels=labels)
        lag = GaugeMetricFamily("millrace_group_lag", "Records that are not handled yet.", labels=labels)
        gathered = GaugeMetricFamily("millrace_group_gathered", "Records read and not handled yet.", labels=labels)
        position = GaugeMetricFamily("millrace_group_position", "Everything before is handled.", labels=labels)
        connected = GaugeMetricFamily("millrace_group_connected", "1 while Kafka answers.", labels=["group"])
        for group, meter in self._meters.items():
            families: tuple[tuple[CounterMetricFamily | GaugeMetricFamily, Mapping[TP, int]], ...] = (
                (handled, meter.handled),
                (again, meter.again),
                (lag, meter.lag()),
                (gathered, meter.gathered),
                (position, meter.position),
            )
            for family, found in families:
                for tp, value in found.items():
                    family.add_metric([group, tp.topic, str(tp.partition)], value)
            connected.add_metric([group], float(meter.connected))
        yield from (handled, again, lag, gathered, position, connected)
        for name, count in self._counts().items():
            yield CounterMetricFamily(f"millrace_{name}", f"{name.replace('_', ' ').capitalize()}.", count)


def group_pages(meters: Mapping[str, Meter], counts: Counts, access: Access) -> web.Application:
    """The application of a process that is a member of these groups; nothing listens yet."""

    def ready() -> Ready:
        if not all(meter.connected for meter in meters.values()):
            return False, {"why": "Kafka does not answer"}
        return True, {"partitions": sorted([*tp] for meter in meters.values() for tp in meter.assigned)}

    return pages(GroupCollector(meters, counts), ready, access)


def pages(collector: Collector, ready: Callable[[], Ready], access: Access) -> web.Application:
    """The application that shows what `collector` reads, and whether its process is ready with more of that."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)

    async def healthz(request: web.Request) -> web.Response:
        return web.Response(body=to_json({"ok": True}), content_type="application/json")

    async def readyz(request: web.Request) -> web.Response:
        is_ready, more = ready()
        body = to_json({"ready": is_ready, **more})
        return web.Response(body=body, status=200 if is_ready else 503, content_type="application/json")

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(middlewares=[problems, guarded])
    app[ACCESS], app[PUBLIC] = access, frozenset()
    app.on_response_prepare.append(harden)
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


@contextlib.asynccontextmanager
async def served(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Serve the pages while the context lasts; yields their url. Raises MillraceError where the port is taken."""
    warn_if_open(host, app[ACCESS])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)
    await runner.setup()
    try:
        await listen(runner, host, port)
        yield url_of(runner)
    finally:
        await runner.cleanup()
