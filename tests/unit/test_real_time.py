"""Real-time priority: who gets it, and what is said where it cannot be had."""

import os
import threading

import pytest

from streams.errors import MillraceError
from topologies.real_time import is_first, may_run_first, run_first, running_first


def not_permitted(*_: object) -> None:
    raise PermissionError


def test_what_is_not_permitted_says_what_would_permit_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sched_setscheduler", not_permitted, raising=False)
    with pytest.raises(MillraceError, match="CAP_SYS_NICE"):
        run_first()
    assert not may_run_first()


def test_a_single_core_is_not_taken_from_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", not_permitted, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    with pytest.raises(MillraceError, match="single core"):
        run_first()


def test_a_system_without_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setscheduler", raising=False)
    with pytest.raises(MillraceError, match="no real-time priority on this system"):
        run_first()


@pytest.mark.skipif(not may_run_first(), reason="needs root or CAP_SYS_NICE, and two cores")
def test_the_calling_thread_alone_runs_first_and_only_for_as_long_as_asked() -> None:
    found: list[bool] = []
    with running_first():
        assert is_first()
        beside = threading.Thread(target=lambda: found.append(is_first()))
        beside.start()
        beside.join()
    assert found == [False]
    assert not is_first()
