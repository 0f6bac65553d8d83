"""Who runs on a state directory, who may replay there, and what an interrupted replay leaves behind."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams.cluster import Cluster
from streams.errors import MillraceError
from topologies.names import held, holder, workers_here
from topologies.replay.in_place import InPlace
from topologies.replay.journal import Journal, end_journal, read_journal, write_journal
from topologies.replay.locks import RESET, alone, over, resetting
from topologies.replay.planning import Plan, Stretched
from topologies.settings import Settings

CLAIM = (
    "import sys, pathlib; from topologies.names import claim_name\n"
    "print(claim_name(pathlib.Path(sys.argv[1]), 'shop', None), flush=True); sys.stdin.read()"
)
PLAN = Plan("shop", "earliest", True, [Stretched("orders", 0, 0, 0, 7)], ["shop-progress"], [], [], [], 3)


def claimed(state: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip()
    return process


def test_workers_are_known_by_name_and_process_as_long_as_they_live(tmp_path: Path) -> None:
    with claimed(tmp_path) as first, claimed(tmp_path) as second:
        assert workers_here(tmp_path, "shop") == {"w0": first.pid, "w1": second.pid}
        first.kill()
        first.wait()
        assert workers_here(tmp_path, "shop") == {"w1": second.pid}
        second.communicate("")
    assert workers_here(tmp_path, "shop") == {}
    assert workers_here(tmp_path, "nobody") == {}


def test_a_second_replay_of_a_group_is_refused_with_the_process_of_the_first(tmp_path: Path) -> None:
    with alone(tmp_path, "shop"), pytest.raises(MillraceError, match=f"running already .process {os.getpid()}"):
        alone(tmp_path, "shop").__enter__()
    with alone(tmp_path, "shop"):
        pass


async def test_a_worker_that_starts_while_the_state_is_dropped_waits_until_that_is_over(tmp_path: Path) -> None:
    with resetting(tmp_path, "shop"):
        waiting = asyncio.create_task(over(tmp_path, "shop"))
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
    await asyncio.wait_for(waiting, 5)
    assert holder(tmp_path / RESET) is None
    await asyncio.wait_for(over(tmp_path / "never", "shop"), 5)


def test_what_is_to_be_done_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "shop") is None
    journal = Journal(PLAN, "resetting")
    write_journal(tmp_path / "shop", journal)
    assert read_journal(tmp_path / "shop") == journal
    end_journal(tmp_path / "shop")
    end_journal(tmp_path / "shop")
    assert read_journal(tmp_path / "shop") is None


def test_a_journal_that_cannot_be_read_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "replay.json").write_bytes(b"{")
    with pytest.raises(MillraceError, match=r"replay\.json cannot be read"):
        read_journal(tmp_path)


def test_a_worker_of_a_reading_group_is_gone_also_where_one_of_the_replayed_group_has_its_name(tmp_path: Path) -> None:
    settings = Settings(Cluster("localhost:9"), home=tmp_path, state_dir=tmp_path)
    replay = InPlace(settings, "analytics", lambda line: None)
    own = replay.topology.name
    replay.ended = {own: ["w0", "w1"], "readers": ["w0"]}
    with held(tmp_path / own / "w0.lock", "a worker runs"):
        assert replay.gone() == [(own, "w1"), ("readers", "w0")]
