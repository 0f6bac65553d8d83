"""What the README says is so: commands parse, URLs answer, Python runs, links and settings exist."""

import re
import shlex
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp.test_utils import TestClient, TestServer
from clicks import topology as clicks
from views_shop import open_model, sales, shop_settings

from tables.read_model import ReadModel
from tables.topic_copy import TopicCopy
from topologies.cli import main
from topologies.loading import OURS, load_topology
from topologies.orders.api.endpoints import ENDPOINTS
from topologies.settings import SECURITY, Settings
from topologies.topology import Topology
from topologies.views.answers import Views
from topologies.views.freshness import Tracker
from topologies.views.server import attach, views_app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Which view server a port in the README belongs to; 6066 is a worker's own.
SERVED: dict[int, Callable[[], list[Topology]]] = {8090: lambda: ours(), 8091: lambda: [clicks]}
# What is answered about what nobody has done or computed yet.
NOTHING_YET = {
    "/api/sessions/": (404, "did nothing in the newest"),
    "/api/recommendations/products/": (404, "was in no session"),
    "/api/trending": (503, ""),
}
WORKERS = {"/metrics", "/readyz"}
# What is in braces in a path of the order API, whose answers tests/flow/test_orders_http.py is about.
ORDERED = re.compile(r"{\w+}")


def blocks(*languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(README) if language in languages]


def command_lines() -> list[list[str]]:
    """The words of every line in a shell block; comments are gone."""
    lines = [line for text in blocks("sh") for line in text.splitlines()]
    lines += [line[2:] for text in blocks("console") for line in text.splitlines() if line.startswith("$ ")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def lines_of(program: str) -> list[list[str]]:
    found = [words for words in command_lines() if words[0] == program]
    assert found, f"the README has no {program}"
    return found


def urls() -> list[str]:
    return [word for words in lines_of("curl") for word in words if word.startswith("http")]


@pytest.mark.parametrize("words", lines_of("millrace"), ids=" ".join)
def test_every_command_is_one_and_takes_its_options(words: list[str]) -> None:
    assert exit_code(words) == 0


@pytest.mark.parametrize("words", [["millrace", "demo", "--sideways"], ["millrace", "dance"]])
def test_a_command_that_is_none_would_be_noticed(words: list[str]) -> None:
    assert exit_code(words) == 2


def exit_code(words: list[str]) -> int:
    """Read a command line to its end and run nothing: help comes after options are read, before they are used."""
    with pytest.raises(SystemExit) as ended:
        main([*words[1:], "--help"])
    return int(ended.value.code or 0)


def test_everything_else_in_a_shell_block_is_known_to_this_test() -> None:
    known = {"millrace", "curl", "make", "export", "source", "faust", "rm", "docker"}
    assert {words[0] for words in command_lines()} <= known
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {words[1] for words in lines_of("make")} <= targets
    names = {name for words in lines_of("export") for name in re.findall(r"MILLRACE_\w+(?==)", " ".join(words))}
    assert names <= {*SECURITY, "MILLRACE_BOOTSTRAP"}


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[dict[int, TestClient[Any, Any]]]:
    clients: dict[int, TestClient[Any, Any]] = {}
    opened: list[ReadModel | TopicCopy] = []
    for port, topologies_of in SERVED.items():
        served = []
        for topology in topologies_of():
            directory = tmp_path / str(port) / topology.name
            model = open_model(topology, directory / "model")
            copies = {name: TopicCopy(copied, directory / name) for name, copied in topology.copies.items()}
            opened += [model, *copies.values()]
            served.append(Views(topology, model, Tracker(model, copies=copies), "KRW"))
        app = views_app([views.topology for views in served])
        attach(app, *served)
        clients[port] = TestClient(TestServer(app))
        await clients[port].start_server()
    yield clients
    for client in clients.values():
        await client.close()
    for one in opened:
        one.close()


def ours() -> list[Topology]:
    """What `millrace demo` serves."""
    return [sales(), *(load_topology(name, shop_settings()) for name in OURS if name != "analytics")]


async def test_every_url_is_served(servers: dict[int, TestClient[Any, Any]]) -> None:
    for url in urls():
        asked = urlsplit(url)
        assert asked.hostname == "127.0.0.1"
        if asked.port == 6066:
            assert asked.path in WORKERS
            continue
        if asked.port == 8080:
            assert any(re.fullmatch(ORDERED.sub(r"[^/]+", path), asked.path) for path in ENDPOINTS), url
            continue
        assert asked.port is not None
        answer = await servers[asked.port].get(f"{asked.path}?{asked.query}")
        streams = asked.path.endswith("/live")  # and never ends: what it begins with
        said = (await answer.content.readuntil(b"\n\n")).decode() if streams else await answer.text()
        yet = next((found for start, found in NOTHING_YET.items() if asked.path.startswith(start)), (200, ""))
        yet = (504, "covered") if "after=" in asked.query else yet
        status, words = (503, "") if asked.path == "/readyz" else yet
        assert answer.status in (200, status), f"{url}: {said}"
        assert answer.status == 200 or words in said


def python_blocks() -> Iterator[str]:
    yield from blocks("python")


@pytest.mark.parametrize("source", list(python_blocks()), ids=lambda source: source.splitlines()[0][:40])
def test_every_python_block_runs(source: str) -> None:
    exec(compile(source, "README.md", "exec"), {"__name__": "readme"})


def test_every_link_leads_somewhere() -> None:
    headings = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", README, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in headings
        elif not target.startswith("https://"):
            assert (ROOT / target).exists(), target


def test_the_settings_table_is_complete_and_has_the_defaults() -> None:
    rows = {cells[1].strip(): cells[2].strip() for line in README.splitlines() if len(cells := line.split("|")) == 5}
    for field in fields(Settings):
        if field.name in ("cluster", "home", "state_dir"):
            continue
        told = rows[f"`MILLRACE_{field.name.upper()}`"]
        if isinstance(field.default, (int, float)):
            assert float(told) == field.default
        elif field.default:
            assert told == field.default
    assert all(variable in README for variable in SECURITY)
