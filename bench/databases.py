"""Database servers of one's own: started on a free port with an empty directory, and gone at the end with all in it.

For measuring and for tests: Debian's `mariadb-server` and `postgresql`, wherever their programs lie. They keep what
they commit (MariaDB's and PostgreSQL's defaults: a flush to disk for each commit).
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL

from streams.errors import MillraceError
from topologies.names import free_port
from topologies.orders.database import DRIVERS

READY_S: Final = 30.0
STOP_S: Final = 20.0
LOOK_S: Final = 0.05
PLACES: Final = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec")
POSTGRES: Final = Path("/usr/lib/postgresql")  # where Debian has it, a directory a version


class NoServer(MillraceError):
    """The database server's programs are not installed."""


@dataclass
class Server:
    """A server that runs; it can be killed and started again, and has what it had."""

    name: str
    url: URL
    directory: Path
    _command: Sequence[str]
    _user: str | None
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it takes connections. Raises MillraceError with its last line."""
        log = (self.directory / "server.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, user=self._user, cwd="/"
            )
        deadline = time.monotonic() + READY_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise MillraceError(f"{self.name} did not start: {_last_line(self.directory / 'server.log')}")
            time.sleep(LOOK_S)

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order, without waiting for those who are connected."""
        self._end(signal.SIGINT if self.name == "postgresql" else signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            try:
                probe.connect(("127.0.0.1", self.url.port or 0))
                # MariaDB greets; PostgreSQL waits for the client, and listens only when it is ready
                return self.name == "postgresql" or bool(probe.recv(1))
            except OSError:
                return False


@contextmanager
def mariadb() -> Iterator[Server]:
    """MariaDB, with an empty database `shop`. Raises NoServer."""
    install, serve = _program("mariadb-install-db"), _program("mariadbd", "mysqld")
    with _directory("millrace-mariadb-") as directory:
        user = _owner("mysql")
        _give(directory, user)
        data, port = directory / "data", free_port()
        _run([
            install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"
        ], user, directory)  # fmt: skip
        (directory / "init.sql").write_text("CREATE DATABASE IF NOT EXISTS shop;\n")
        command = [
            serve, "--no-defaults", f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1",
            f"--socket={directory / 'sock'}", f"--pid-file={directory / 'pid'}", "--skip-name-resolve",
            f"--init-file={directory / 'init.sql'}", "--max-connections=300",
        ]  # fmt: skip
        url = URL.create(DRIVERS["mysql"], "root", None, "127.0.0.1", port, "shop")
        yield from _running(Server("mariadb", url, directory, command, user))


@contextmanager
def postgresql() -> Iterator[Server]:
    """PostgreSQL, with an empty database `shop`. Raises NoServer."""
    init, serve = _program("initdb"), _program("postgres")
    with _directory("millrace-postgres-") as directory:
        user = _owner("postgres")
        _give(directory, user)
        data, port = directory / "data", free_port()
        _run([init, "-D", str(data), "-U", "shop", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"], user, directory)
        command = [
            serve, "-D", str(data), "-p", str(port), "-k", str(directory),
            "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300",
        ]  # fmt: skip
        url = URL.create(DRIVERS["postgresql"], "shop", None, "127.0.0.1", port, "postgres")
        yield from _running(Server("postgresql", url, directory, command, user))


SERVERS: Final[dict[str, Callable[[], Any]]] = {"mariadb": mariadb, "postgresql": postgresql}


def _running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def _directory(prefix: str) -> Iterator[Path]:
    # sockets have paths of at most 107 bytes, which a test's own directory may have used up
    path = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _program(*names: str) -> str:
    newest_first = sorted(map(str, POSTGRES.glob("*/bin")), reverse=True)
    search = os.pathsep.join([os.environ.get("PATH", ""), *PLACES, *newest_first])
    for name in names:
        if found := shutil.which(name, path=search):
            return found
    raise NoServer(f"there is no {names[0]} here: apt-get install mariadb-server postgresql")


def _owner(name: str) -> str | None:
    """Who runs it: neither server likes to be root's."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError as error:
        raise NoServer(f"there is no user {name} here, which the server would run as") from error


def _give(directory: Path, user: str | None) -> None:
    if user is not None:
        shutil.chown(directory, user)


def _run(command: Sequence[str], user: str | None, directory: Path) -> None:
    log = directory / "setup.log"
    with log.open("wb") as file:
        done = subprocess.run(command, stdout=file, stderr=file, user=user, cwd="/", check=False)
    if done.returncode != 0:
        raise MillraceError(f"{Path(command[0]).name} failed: {_last_line(log)}")


def _last_line(log: Path) -> str:
    return ([line for line in log.read_text(errors="replace").splitlines() if line.strip()] or ["it said nothing"])[-1]
