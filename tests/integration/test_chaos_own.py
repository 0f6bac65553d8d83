"""`millrace chaos` with a topology of somebody's own: exact where the rule is, and caught where it is not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

ROOT = Path(__file__).parents[2]
# A rule that says something else in another process: what a worker applies again is not what it was.
FORGETFUL = """
import os
from clicks import CLICKS, Count, EventTime, Topology
from tables.aggregates import Sum

topology = Topology("forgetful").source(CLICKS, time=EventTime(slice_ms=10_000, grace_ms=5_000))


@topology.table(CLICKS, clicks=Count(), sum=Sum())
def by_page(click):
    yield click.page, 1, os.getpid() % 1_000
"""


def chaos(where: Path, topology: str) -> tuple[int, dict[str, Any], str]:
    """The exit code of a run of two kills, its answer, and what it said meanwhile."""
    words = ["chaos", "--topology", topology, "--load", "clicks_load:clicks", "--home", str(where / "home")]
    words += ["--runs", "1", "--faults", "2", "--only", "kill", "--rate", "1000"]
    command = [sys.executable, "-c", "from topologies.cli import main; main()", *words]
    modules = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "flow", where)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    ran = subprocess.run(
        command, cwd=where, env=environment | {"PYTHONPATH": modules}, capture_output=True, timeout=240, check=False
    )
    said = ran.stderr.decode()
    assert ran.stdout, said
    return ran.returncode, orjson.loads(ran.stdout.splitlines()[-1]), said


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_topology_of_ones_own_is_exact_under_faults_by_what_the_driver_makes_of_its_source(tmp_path: Path) -> None:
    status, answer, said = chaos(tmp_path, "clicks:topology")
    assert (status, answer["exact_runs"], answer["faults"]) == (0, 1, 2), said
    assert answer["cells"] > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_rule_that_is_no_function_of_its_event_is_caught(tmp_path: Path) -> None:
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    status, answer, said = chaos(tmp_path, "forgetful:topology")
    assert (status, answer["exact_runs"]) == (1, 0), said
    assert "by_page" in said
