"""Names of workers: one live process each, the same again after a crash, and no two hosts' alike."""

import socket
from pathlib import Path

import pytest

from streams.errors import MillraceError
from topologies.names import StateUnwritable, free_port, member_name, require_free, slot_of


def test_a_slot_is_one_member_for_its_state_directory_and_another_one_elsewhere(
    tmp_path: Path,
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for directory in (here, there):
        directory.mkdir()
    first = member_name(here, "w0", None)
    assert first == member_name(here, "w0", None)
    assert first.startswith("w0-")
    assert first != member_name(there, "w0", None)
    assert member_name(here, "w1", None) != first
    assert [path.name for path in here.glob("mark*")] == ["mark"]
    assert slot_of(here, first) == "w0"
    assert slot_of(there, first) == first


def test_a_name_that_is_given_is_the_members(tmp_path: Path) -> None:
    assert member_name(tmp_path, "till-3", "till-3") == "till-3"
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateUnwritable, match="give another with --state"):
        member_name(tmp_path / "state", "w0", None)


def test_a_port_that_somebody_listens_on_is_named() -> None:
    require_free(free_port())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MillraceError, match=f"port {port} is taken: choose another with --port"):
            require_free(port)
