"""`millrace doctor` on this machine alone: real directories, disks, packages and ports, and no broker."""

import http.server
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tables.store import Store
from topologies.chaos.unwritable import unwritable
from topologies.cli import main
from topologies.names import free_port

GROUP = "order-analytics-group"
Doctor = Callable[..., list[dict[str, str]]]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with a sound store."""
    store = Store(tmp_path / "state" / GROUP / "0", ["sales"])
    change = store.change()
    change.put_all("sales", [(b"key", b"value")])
    change.write()
    store.close()
    return tmp_path / "state"


@pytest.fixture
def doctor(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """What is found besides that there is no broker."""
    for name in [name for name in os.environ if name.startswith("MILLRACE_")]:
        monkeypatch.delenv(name)
    port = free_port()

    def doctor(*arguments: str) -> list[dict[str, str]]:
        capsys.readouterr()
        where = ["--home", str(tmp_path), "--state", str(state), "--port", str(port)]
        with pytest.raises(SystemExit) as ended:
            main(["doctor", "--json", *where, *arguments])
        assert ended.value.code == 3
        found: list[dict[str, str]] = json.loads(capsys.readouterr().out)["findings"]
        (missing,) = (one for one in found if one["problem"] == "broker-missing")
        assert missing["mend"] == "millrace broker up"
        return [one for one in found if one is not missing]

    return doctor


def mended(finding: dict[str, str]) -> None:
    subprocess.run(finding["mend"], shell=True, check=True)


def test_but_for_the_broker_this_machine_is_well(doctor: Doctor) -> None:
    assert doctor() == []


def test_a_state_directory_that_cannot_be_written_is_told(doctor: Doctor, state: Path) -> None:
    with unwritable(state):
        (finding,) = doctor()
    assert finding["problem"] == "state-unwritable"
    assert str(state) in finding["what"]
    assert finding["mend"].split()[0] in ("export", "sudo", "mv")
    assert doctor() == []


def test_a_state_directory_that_is_a_file_is_told_and_mended(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (finding,) = doctor("--state", str(tmp_path / "file"))
    assert finding["problem"] == "state-unwritable"
    mended(finding)
    assert doctor("--state", str(tmp_path / "file")) == []


def test_a_store_that_is_damaged_is_told_and_mended(doctor: Doctor, state: Path) -> None:
    (state / GROUP / "0" / "CURRENT").write_bytes(b"\x00garbage\n" * 20)
    (finding,) = doctor()
    assert finding["problem"] == "state-damaged"
    assert finding["mend"] == f"rm -r {state / GROUP / '0'}"
    mended(finding)
    assert doctor() == []


@contextmanager
def holding(store: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has a store open."""
    script = (
        "import sys; from pathlib import Path; from tables.store import Store\n"
        "store = Store(Path(sys.argv[1]), []); print('open', flush=True); sys.stdin.read()"
    )
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_store_in_a_stopped_process_is_told_until_it_is_woken(doctor: Doctor, state: Path) -> None:
    with holding(state / GROUP / "0") as process:
        assert doctor() == []
        process.send_signal(19)
        (finding,) = doctor()
        assert finding["problem"] == "lock-stopped"
        assert f"pid {process.pid}" in finding["what"]
        mended(finding)
        assert doctor() == []


def test_a_lock_of_a_dead_process_is_none(doctor: Doctor, state: Path) -> None:
    with holding(state / GROUP / "0") as process:
        process.kill()
        process.wait()
        assert doctor() == []


def test_a_copy_that_a_worker_left_aside_is_told_and_removed(doctor: Doctor, state: Path) -> None:
    with holding(state / GROUP / "0.w1"):
        assert doctor() == []
    (finding,) = doctor()
    assert finding["problem"] == "state-leftover"
    mended(finding)
    assert doctor() == []


def test_a_full_disk_is_told(doctor: Doctor, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(small)], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        (finding,) = doctor("--state", str(small))
        assert (finding["problem"], finding["severity"]) == ("disk-full", "error")
        assert "only 4 MiB free of 4 MiB" in finding["what"]
        assert finding["mend"].startswith("du -xh")
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize(
    ("version", "problem"), [("0.0.1", "package-version"), ("999.0", "package-version")], ids=["too old", "too new"]
)
def test_a_package_out_of_its_range_is_told(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, problem: str
) -> None:
    installed = tmp_path / "site" / f"rocksdict-{version}.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rocksdict\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (finding,) = doctor()
    assert finding["problem"] == problem
    assert f"rocksdict {version} is installed" in finding["what"]
    assert shlex.split(finding["mend"])[:4] == ["python", "-m", "pip", "install"]


def test_a_port_that_something_else_took_is_told(doctor: Doctor) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        (finding,) = doctor("--port", str(server.server_port))
        assert finding["problem"] == "port-taken"
        assert f"pid {os.getpid()}" in finding["what"]
        assert finding["mend"].startswith(f"millrace views --port {server.server_port + 1}"[:22])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="a port cannot be shared here")
def test_a_port_that_two_processes_share_is_told_and_mended(doctor: Doctor) -> None:
    script = (
        "import socket, sys; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
        "s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); print('listens', flush=True); sys.stdin.read()"
    )
    port, sharing = free_port(), []
    try:
        for _ in range(2):
            process = subprocess.Popen(
                [sys.executable, "-c", script, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            sharing.append(process)
            assert process.stdout is not None
            assert process.stdout.readline() == b"listens\n"
        (finding,) = doctor("--port", str(port))
        assert finding["problem"] == "port-shared"
        assert all(str(process.pid) in finding["what"] for process in sharing)
        mended(finding)
        assert sharing[1].wait(10) < 0
    finally:
        for process in sharing:
            process.kill()
            process.communicate()


def test_a_listener_that_is_no_kafka_is_told(doctor: Doctor, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            main(["doctor", "--json", "--bootstrap", f"127.0.0.1:{port}"])
        assert ended.value.code == 3
        found = json.loads(capsys.readouterr().out)["findings"]
    assert [one["problem"] for one in found] == ["broker-silent"]
    assert "MILLRACE_SECURITY_PROTOCOL" in found[0]["mend"]
