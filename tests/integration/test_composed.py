"""`deploy/compose.yaml` run by hand: its settings on real Kafka, its commands as processes, its health checks, and
every query of the dashboard and the alerts against the metrics that all of it then gives.

What needs an engine for containers is not seen here: that images of others are there under these names, users,
networks, read-only files, and MySQL (MariaDB stands in for it).
"""

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from composing import (
    DEPLOY,
    Here,
    Services,
    check_here,
    command_here,
    environment_here,
    healthy,
    metrics_agent,
    ours,
    program,
    prometheus_here,
    running_brokers,
    running_database,
    services,
    targets,
)
from fleet import wait_until
from own import ROOT, free_port

from streams.admin.connection import Admin
from streams.admin.topics import TopicState, describe_topics
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.topics import Topic, ensure_topics
from topologies.demo.processes import Children

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LIMIT_S = 60.0
ONE_SHOT = ("migrate", "seed")
CONFIG = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
# What has to happen first: nothing was refused, repeated, put aside or asked again here, unless by chance.
NOT_YET = {"millrace_orders_refused_total", "millrace_group_again_total"}
NAME = re.compile(r"\b((?:millrace|kafka|jvm)_\w+|up)\b(\{[^}]*\})?")


def wait(holds: Callable[[], Any], what: str) -> None:
    """Return once it holds: True, or nothing is left of what is missing."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            left = holds()
        except OSError as error:
            left = error
        if left is True or left == []:
            return
        assert time.monotonic() < deadline, f"not after {LIMIT_S:g} s: {what}; {left}"
        time.sleep(0.2)


@dataclass(frozen=True)
class Shop:
    """Everything that the compose file runs, but for what is others' and no Kafka."""

    here: Here
    found: Services
    children: Children
    cluster: Cluster

    def text(self, address: str) -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
            return str(response.read().decode())


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The shop, healthy, with customers who have bought."""
    agent = metrics_agent()
    if agent is None:
        pytest.skip("the agent for Kafka's metrics is neither on this machine nor to be had")
    directory = tmp_path_factory.mktemp("composed")
    found = services("compose.yaml")
    here = Here(found)
    python_path = {"PYTHONPATH": str(ROOT)}
    with (
        running_database(directory) as database,
        running_brokers(found, here, directory / "kafka", agent=agent) as cluster,
        Children(directory / "logs", python_path) as children,
    ):

        def start(name: str) -> Any:
            environment = environment_here(name, found[name], here, directory, database)
            return children.start(name, command_here(name, found[name], here), environment)

        for name in ONE_SHOT:
            once = start(name)
            assert once.process.wait(60) == 0, once.log.read_text()
            children.running.remove(once)
        for name in ours(found):
            if name not in (*ONE_SHOT, "customers"):
                start(name)
        shop = Shop(here, found, children, cluster)
        for child in children.running:
            command = check_here(child.name, found[child.name], here)

            def checked(command: list[str] = command) -> bool:
                children.check()
                return healthy(command)

            wait(checked, f"{child.name} is healthy; its log is {child.log}")
        start("customers")
        buy(shop, 5)
        yield shop


def buy(shop: Shop, orders: int) -> None:
    """Place orders as a customer does."""
    for number in range(orders):
        request = urllib.request.Request(
            f"http://127.0.0.1:{shop.here.port('orders', '8080')}/api/orders",
            json.dumps({"items": [{"productId": 1, "quantity": 1}]}).encode(),
            {"X-USER-ID": "123", "Content-Type": "application/json", "Idempotency-Key": f"composed-{number}"},
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            assert response.status == 201


def exported(shop: Shop) -> str:
    return "\n".join(shop.text(address) for _, _, address in targets(shop.here, CONFIG))


def queries() -> dict[str, str]:
    """Everything that the dashboard draws and the alerts look at, by its title."""
    board = json.loads((DEPLOY / "grafana/dashboards/millrace.json").read_text())
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]
    drawn = {
        f"{panel['title']} {query['refId']}": query["expr"]
        for panel in board["panels"]
        for query in panel.get("targets", ())
    }
    return {**drawn, **{f"alert {rule['alert']}": rule["expr"] for rule in rules}}


def known(cluster: Cluster, topic: str) -> TopicState | None:
    """What a cluster says of a topic; None while the broker that is asked has not heard of it, as each does in time."""
    try:
        return describe_topics(Admin(cluster), [topic])[0]
    except MillraceError:
        return None


def test_three_brokers_of_the_cluster_file_keep_every_record_three_times(tmp_path: Path) -> None:
    found = services("compose.yaml", "compose.cluster.yaml")
    with running_brokers(found, Here(found), tmp_path) as cluster:
        ensure_topics(cluster, [Topic("copied", partitions=3)])
        described = wait_until(partial(known, cluster, "copied"), "the broker that is asked knows the topic")
        assert described.replication == 3
        assert {partition.leader for partition in described.partitions} == {1, 2, 3}


def test_every_metric_and_label_that_is_asked_for_is_exported(shop: Shop) -> None:
    def missing() -> list[str]:
        lines = exported(shop).splitlines()
        asked = {found for query in queries().values() for found in NAME.findall(query)}
        return sorted(f"{name}{matchers}" for name, matchers in asked if not there(lines, name, matchers))

    wait(missing, "all are exported")


def there(lines: list[str], name: str, matchers: str) -> bool:
    """Whether a metric has the labels that a query wants; what Prometheus adds itself (up, job) is not looked for."""
    wanted = [one for one in re.findall(r'\w+="[^"]*"', matchers) if not one.startswith("job=")]
    mine = [line for line in lines if re.match(rf"{name}[ {{]", line)]
    return name == "up" or name in NOT_YET or any(all(one in line for one in wanted) for line in mine)


def test_prometheus_finds_everyone_and_every_query_has_an_answer(shop: Shop, tmp_path: Path) -> None:
    prometheus = program("prometheus", "/usr/local/sbin", "/usr/sbin")
    if prometheus is None:
        pytest.skip("no prometheus on this machine")
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(prometheus_here(CONFIG, list(targets(shop.here, CONFIG))))
    (tmp_path / "alerts.yml").write_text((DEPLOY / "prometheus" / "alerts.yml").read_text())
    command = [
        prometheus,
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]

    def ask(path: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]

    def unanswered() -> list[str]:
        return [
            title
            for title, query in queries().items()
            if not title.startswith("alert ") and not any(name in query for name in NOT_YET)
            if not ask("query", query=query.replace("[1m]", "[30s]").replace("[2m]", "[30s]"))["result"]
        ]

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait(unanswered, f"all are answered; Prometheus logs to {tmp_path / 'log'}")
        up = {
            (one["metric"]["job"], one["metric"].get("service", "kafka")): one["value"][1]
            for one in ask("query", query="up")["result"]
        }
        assert up == {(job, service): "1" for job, service, _ in targets(shop.here, CONFIG)}
        rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
        assert {rule["health"] for rule in rules} == {"ok"}
        assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
    finally:
        process.terminate()
        process.wait(20)


def test_an_order_comes_through_every_service(shop: Shop) -> None:
    def value(service: str, port: str, name: str) -> float:
        lines = shop.text(f"127.0.0.1:{shop.here.port(service, port)}").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def handled(group: str) -> bool:
        return value(group, "6066", "millrace_group_handled_total") >= 5

    assert value("orders", "8080", "millrace_orders_placed_total") == 5
    wait(lambda: value("relay", "6066", "millrace_relay_published_total") >= 15, "placed, paid for, paid")
    for group in ("payments", "notify", "archive"):
        wait(partial(handled, group), f"{group} handled them")
    wait(lambda: value("analytics", "6066", "millrace_events_total") >= 10, "analytics counted them")
