"""The fault harness on plain Faust, which it must find wrong; without faults, it must find it right."""

import secrets
from pathlib import Path

import pytest

from streams.cluster import Cluster
from streams.simulator.ledger import Cell
from topologies.chaos.side_by_side import Run, Verdict, judge, plan_for, run_target
from topologies.chaos.target import PlainFaust, Sales
from topologies.cli.chaos_beside import said
from topologies.settings import Settings

RATE = 800.0
SESSION_S = 4.0


def run(kafka: Cluster, directory: Path, target: PlainFaust, faults: list[str]) -> Run:
    settings = Settings.from_environment(
        cluster=kafka,
        home=directory,
        state_dir=directory / "state",
        prefix=f"beside-{secrets.token_hex(3)}-",
        worker_port=10_000 + secrets.randbelow(10_000),
        session_s=SESSION_S,
    )
    done = run_target(target, settings, directory, 1, faults, plan_for(1, RATE))
    print(said(done))
    return done


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("target", "faults"),
    [(PlainFaust("at_least_once"), ["join-leave"]), (PlainFaust("exactly_once"), ["join-leave", "kill"])],
    ids=["at_least_once", "exactly_once"],
)
def test_what_faults_do_to_plain_faust_is_caught(
    kafka: Cluster, tmp_path: Path, target: PlainFaust, faults: list[str]
) -> None:
    verdict = run(kafka, tmp_path, target, faults).verdict
    assert verdict.orders > 1_000
    assert verdict.over + verdict.lost > 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_plain_faust_without_faults_is_exact(kafka: Cluster, tmp_path: Path) -> None:
    done = run(kafka, tmp_path, PlainFaust("exactly_once"), [])
    assert done.verdict.orders > 1_000
    assert done.exact


def test_a_verdict_counts_what_is_too_much_too_little_missing_and_strange() -> None:
    ledger = {
        (0, "right"): Cell(placed=10, orders=1),
        (0, "twice"): Cell(placed=10, orders=1),
        (0, "short"): Cell(placed=30, orders=3),
        (0, "gone"): Cell(placed=10, orders=1),
        (0, "money"): Cell(placed=10, orders=1),
        (0, "only paid"): Cell(),
    }
    found = {
        (0, "right"): Sales(1, 10),
        (0, "twice"): Sales(2, 20),
        (0, "short"): Sales(1, 10),
        (0, "money"): Sales(1, 11),
        (60_000, "strange"): Sales(1, 5),
    }
    verdict = judge(ledger, found)
    assert verdict == Verdict(cells=7, over_cells=2, under_cells=2, money_cells=1, orders=7, over=2, lost=3)
    assert not verdict.exact
    assert judge(ledger, {at: Sales(cell.orders, cell.placed) for at, cell in ledger.items()}).exact
