"""`deploy/compose.yaml` without containers: the same settings and commands as processes of this machine.

Names of services become 127.0.0.1, and ports free ones; a volume becomes a directory; MySQL becomes MariaDB, or SQLite
where that is not installed. What a container would do besides (images, users, read-only files, networks) is not looked
at here.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import yaml
from own import ROOT, free_port

from bench.databases import NoServer, mariadb
from streams.broker import jars, process
from streams.broker.properties import render
from streams.broker.readiness import wait_until_ready
from streams.broker.state import free_ports
from streams.cluster import Cluster

DEPLOY: Final = ROOT / "deploy"
OURS: Final = "millrace:local"
VARIABLE: Final = re.compile(r"\$\{\w+:-([^}]*)\}")
# What the image of Kafka does not take for settings of the broker.
NO_SETTINGS: Final = {"KAFKA_HEAP_OPTS", "KAFKA_OPTS"}
AGENT: Final = re.compile(r"(?s)sha256:(\w+).*?/jmx_prometheus_javaagent/([\d.]+)/")

Services = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """Knows compose's own tags, which say how files are merged."""


class _Replaced(list[Any]):
    """A list that a file wants in the place of another, not after it."""


def _replaced(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> _Replaced:
    return _Replaced(loader.construct_sequence(node, deep=True))


_Loader.add_constructor("!override", _replaced)


def load(name: str) -> dict[str, Any]:
    """A compose file as it stands, with `${NAME:-default}` at its defaults."""
    found: dict[str, Any] = yaml.load(VARIABLE.sub(r"\1", (DEPLOY / name).read_text()), _Loader)
    return found


def services(*names: str) -> Services:
    """The services of compose files, later ones laid over earlier ones, and `extends` followed."""
    merged: Services = {}
    for name in names:
        for service, declared in load(name)["services"].items():
            extended = declared.get("extends")
            base = load(extended["file"])["services"][extended["service"]] if extended else {}
            merged[service] = _over(merged.get(service, base), declared)
    return merged


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for name, value in above.items():
        old = both.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            both[name] = _over(old, value)
        elif name == "volumes":  # one thing at a place
            places = {one.split(":")[1]: one for one in [*(old or ()), *value]}
            both[name] = list(places.values())
        elif isinstance(old, list) and isinstance(value, list) and not isinstance(value, _Replaced):
            both[name] = [*old, *value]
        else:
            both[name] = value
    return both


def ours(found: Services) -> Services:
    """Those that run our image."""
    return {name: one for name, one in found.items() if one.get("image") == OURS}


def brokers(found: Services) -> Services:
    """Those that run Kafka's."""
    return {
        name: one
        for name, one in found.items()
        if "kafka" in one.get("image", "") and "CLUSTER_ID" in one["environment"]
    }


def broker_settings(environment: Mapping[str, Any]) -> dict[str, str]:
    """Kafka's `server.properties`, as its image makes them of the environment: KAFKA_NODE_ID becomes node.id."""
    named = {name: str(value) for name, value in environment.items() if name.startswith("KAFKA_")}
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in named.items()
        if name not in NO_SETTINGS
    }


def metrics_agent() -> Path | None:
    """The agent that `deploy/kafka/Dockerfile` puts beside Kafka, by its version and hash; None if it cannot be had."""
    import hashlib

    from jgo.maven import MavenContext

    digest, version = AGENT.search((DEPLOY / "kafka" / "Dockerfile").read_text()).groups()  # type: ignore[union-attr]
    try:
        named = MavenContext().project("io.prometheus.jmx", "jmx_prometheus_javaagent")
        jar: Path = named.at_version(version).artifact().resolve()
    except (OSError, RuntimeError):
        return None
    assert hashlib.sha256(jar.read_bytes()).hexdigest() == digest
    return jar


class Here:
    """Where names and ports of the compose files are on this machine."""

    def __init__(self, found: Services) -> None:
        """Give every broker three free ports, and every page of ours one."""
        self._ports: dict[tuple[str, str], int] = {}
        names = [(name, port) for name in brokers(found) for port in ("29092", "9093", "7071")]
        self._ports.update(zip(names, free_ports(len(names)), strict=True))

    def port(self, service: str, port: str) -> int:
        """The port in the place of a service's own."""
        return self._ports.setdefault((service, port), 0) or self._new(service, port)

    def _new(self, service: str, port: str) -> int:
        self._ports[service, port] = free_port()
        return self._ports[service, port]

    def addresses(self, text: str) -> str:
        """A text in which `service:port` is replaced where the service is a broker."""
        for (name, port), mine in self._ports.items():
            text = re.sub(rf"\b{re.escape(name)}:{port}\b", f"127.0.0.1:{mine}", text)
        return text


@contextmanager
def running_database(directory: Path) -> Iterator[str]:
    """The URL of a database in the place of MySQL: MariaDB, else SQLite."""
    with ExitStack() as opened:
        try:
            server = opened.enter_context(mariadb())
            yield server.url.render_as_string(hide_password=False)
        except NoServer:
            yield f"sqlite:///{directory / 'orders.db'}"


@contextmanager
def running_brokers(found: Services, here: Here, directory: Path, *, agent: Path | None = None) -> Iterator[Cluster]:
    """Run real Kafka with the settings of the compose file, on free ports."""
    classpath = jars.classpath()
    started: dict[int, psutil.Process] = {}
    addresses: dict[int, Cluster] = {}
    try:
        formatting = []
        for name, one in brokers(found).items():
            settings = _settings_here(name, one, here, directory)
            path = directory / name / "server.properties"
            path.parent.mkdir(parents=True)
            path.write_text(render(settings))
            formatting.append(process.format_data(classpath, path, one["environment"]["CLUSTER_ID"]))
        for one_format in formatting:
            process.formatted(one_format)
        for name, one in brokers(found).items():
            settings = _settings_here(name, one, here, directory)
            with _java_options(agent, here.port(name, "7071")):
                pid, _ = process.start(
                    classpath, directory / name / "server.properties", directory / f"{name}.log", 512
                )
            node = int(settings["node.id"])
            started[node] = psutil.Process(pid)
            addresses[node] = Cluster(f"127.0.0.1:{here.port(name, '29092')}")
        wait_until_ready(
            addresses,
            alive=lambda: {node for node, one in started.items() if one.is_running()},
            log_path=lambda node: directory / f"{list(brokers(found))[node - 1]}.log",
        )
        yield Cluster(",".join(one.bootstrap for one in addresses.values()))
    finally:
        process.stop(started.values(), kill=True)


def _settings_here(name: str, one: Mapping[str, Any], here: Here, directory: Path) -> dict[str, str]:
    settings = broker_settings(one["environment"])
    listeners = dict(re.findall(r"(\w+)://\w*:(\d+)", settings["listeners"]))
    at = {
        "INTERNAL": here.port(name, listeners["INTERNAL"]),
        "EXTERNAL": here.port(name, listeners["EXTERNAL"]),
        "CONTROLLER": here.port(name, listeners["CONTROLLER"]),
    }
    listening = ",".join(f"{listener}://127.0.0.1:{port}" for listener, port in at.items())
    told = ",".join(f"{listener}://127.0.0.1:{at[listener]}" for listener in ("INTERNAL", "EXTERNAL"))
    voters = here.addresses(settings["controller.quorum.voters"])
    data = str(directory / name / "data")
    return {
        **settings,
        "listeners": listening,
        "advertised.listeners": told,
        "controller.quorum.voters": voters,
        "log.dirs": data,
    }


@contextmanager
def _java_options(agent: Path | None, port: int) -> Iterator[None]:
    """An agent comes into a Java process by its environment, which `process.start` hands on."""
    before = os.environ.get("JAVA_TOOL_OPTIONS")
    if agent is not None:
        os.environ["JAVA_TOOL_OPTIONS"] = f"-javaagent:{agent}={port}:{DEPLOY / 'kafka' / 'metrics.yaml'}"
    try:
        yield
    finally:
        os.environ.pop("JAVA_TOOL_OPTIONS", None)
        if before is not None:
            os.environ["JAVA_TOOL_OPTIONS"] = before


def command_here(name: str, one: Mapping[str, Any], here: Here) -> list[str]:
    """A service's command as it runs on this machine."""
    words = list(one["command"])
    for at, word in enumerate(words):
        if word == "0.0.0.0":
            words[at] = "127.0.0.1"
        elif words[at - 1] == "--port":
            words[at] = str(here.port(name, word))
    return words


def environment_here(name: str, one: Mapping[str, Any], here: Here, directory: Path, database: str) -> dict[str, str]:
    """A service's environment as it is on this machine, with a home of its own, as its volume is."""
    told = {variable: here.addresses(str(value)) for variable, value in one["environment"].items()}
    return {**told, "MILLRACE_DATABASE": database, "MILLRACE_HOME": str(directory / "homes" / name)}


def check_here(name: str, one: Mapping[str, Any], here: Here) -> list[str]:
    """A service's health check as it runs on this machine."""
    words = list(one["healthcheck"]["test"][1:])
    words[:2] = [sys.executable, str(DEPLOY / Path(words[1]).name)]
    port = re.search(r":(\d+)/", words[2])
    assert port is not None
    words[2] = words[2].replace(f":{port[1]}/", f":{here.port(name, port[1])}/")
    return words


def healthy(command: Iterable[str]) -> bool:
    """Whether a health check ends well."""
    return subprocess.run(list(command), capture_output=True, timeout=20, check=False).returncode == 0


def program(name: str, *places: str) -> str | None:
    """Where a program is that not every machine has."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *places]))


def targets(here: Here, config: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Job, service and address here of everything that `prometheus.yml` asks for metrics."""
    for job in config["scrape_configs"]:
        for files in job.get("file_sd_configs", ()):
            for file in files["files"]:
                for group in yaml.safe_load((DEPLOY / "prometheus" / file).read_text()):
                    for target in group["targets"]:
                        service, _, port = target.partition(":")
                        yield job["job_name"], service, f"127.0.0.1:{here.port(service, port)}"
        for asked in job.get("dns_sd_configs", ()):
            for service in asked["names"]:
                yield job["job_name"], service, f"127.0.0.1:{here.port(service, str(asked['port']))}"


def prometheus_here(config: Mapping[str, Any], found: Sequence[tuple[str, str, str]]) -> str:
    """`prometheus.yml` with addresses in the place of names that only Docker's DNS knows; asked every five seconds."""
    jobs = []
    for job in config["scrape_configs"]:
        static = [
            {"targets": [address], "labels": {"service": service} if "dns_sd_configs" in job else {}}
            for name, service, address in found
            if name == job["job_name"]
        ]
        jobs.append({"job_name": job["job_name"], "static_configs": static})
    whole = {"scrape_interval": "5s", "scrape_timeout": "5s", "evaluation_interval": "5s"}
    text: str = yaml.safe_dump({**config, "global": whole, "scrape_configs": jobs})
    return text
