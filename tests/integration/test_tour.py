"""The guided tour, followed from its first command to its last: each prints what the tour says that it prints."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from own import ROOT, free_port
from touring import Section, Visitor, sections

from streams.broker import Broker
from topologies.demo.processes import MILLRACE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
TOUR = sections((ROOT / "deploy" / "TOUR.md").read_text())
# What the tour says, and where it takes place here: beside other tests, with ports and directories of its own.
PORTS = {"8080": "MILLRACE_ORDERS_PORT", "8090": "MILLRACE_VIEWS_PORT"}


@pytest.fixture(scope="module")
def visitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """Somebody in a directory where `.venv` is this Python's, as `make setup` has it."""
    here = tmp_path_factory.mktemp("tour")
    programs = here / "programs"
    programs.mkdir()
    words = " ".join(f"'{word}'" for word in MILLRACE)
    (programs / "millrace").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    (programs / "millrace").chmod(0o755)
    (here / ".venv").symlink_to(Path(sys.prefix))
    ports = {port: str(free_port()) for port in PORTS}
    environment = {
        **{name: "" for name in os.environ if name.startswith("MILLRACE_")},
        **{variable: ports[port] for port, variable in PORTS.items()},
        "PYTHONPATH": str(ROOT),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "160",
    }
    replaced = {"~/millrace-tour": str(here / "home"), **{f":{port}": f":{mine}" for port, mine in ports.items()}}
    visiting = Visitor(here, environment, replaced)
    try:
        yield visiting
    finally:
        visiting.close()
        Broker(here / "home").down(wipe=True)  # the last section does it, if it comes to that


@pytest.mark.parametrize("section", TOUR, ids=lambda section: section.title)
def test_the_tour_goes_as_it_says(visitor: Visitor, section: Section) -> None:
    visitor.follow(section.steps)
