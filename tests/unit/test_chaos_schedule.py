"""The fault harness' schedule, and the directory that it seals."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from streams.errors import MillraceError
from topologies.chaos.faults import FAULTS, LAST, RARE
from topologies.chaos.run import schedule
from topologies.chaos.unwritable import unwritable
from topologies.cli.chaos import chaos

NAMES = list(FAULTS)
SEEDS = range(1, 31)


def test_the_same_seed_gives_the_same_faults() -> None:
    assert all(schedule(seed, 5, NAMES) == schedule(seed, 5, NAMES) for seed in SEEDS)
    assert len({tuple(schedule(seed, 5, NAMES)) for seed in SEEDS}) > 25


@pytest.mark.parametrize("first", [1, 1000])
def test_thirty_seeds_have_every_fault_several_times(first: int) -> None:
    counts = Counter(name for seed in range(first, first + 30) for name in schedule(seed, 5, NAMES))
    assert set(counts) == set(NAMES)
    assert min(counts.values()) >= 5
    usual = [counts[name] for name in NAMES if name not in (*RARE, *LAST)]
    assert max(usual) - min(usual) <= 5


@pytest.mark.parametrize("count", [1, 5, 9])
def test_a_run_has_as_many_faults_as_were_asked_for_and_one_that_ends_it_comes_on_top(count: int) -> None:
    for seed in SEEDS:
        planned = schedule(seed, count, NAMES)
        ending = [name for name in planned if name in LAST]
        assert len(planned) == count + len(ending)
        assert planned[len(planned) - len(ending) :] == ending


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_alone_can_be_asked_for(name: str) -> None:
    assert set(schedule(3, 2, [name])) == {name}


def test_a_sealed_directory_takes_nothing_and_is_as_before_afterwards(tmp_path: Path) -> None:
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    (sealed / "kept").write_text("kept")
    with unwritable(sealed), pytest.raises(OSError, match="sealed/new"):
        (sealed / "new").write_text("new")
    (sealed / "new").write_text("new")
    assert sorted(path.name for path in sealed.iterdir()) == ["kept", "new"]
    assert [path.name for path in tmp_path.iterdir()] == ["sealed"]


@pytest.mark.parametrize(
    "options",
    [
        {"soak": 1.0, "topology": "behaviour"},
        {"beside_faust": True, "topology": "recommendations"},
        {"beside_faust": True, "soak": 1.0},
    ],
)
def test_options_that_one_run_cannot_have_together_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(MillraceError, match="for themselves"):
        chaos(**options)
