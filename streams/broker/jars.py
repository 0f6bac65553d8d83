"""Kafka's jars: fetched from Maven Central once, found again without the network.

They land in the machine's Maven repository (`~/.m2` unless `M2_REPO` says otherwise). A small list under
`~/.cache/millrace`, written once all of them are there and readable, spares later starts the resolution.
"""

import fcntl
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from streams.errors import MillraceError

if TYPE_CHECKING:
    from jgo.maven import Artifact

KAFKA_VERSION: Final = "4.4.0"
KAFKA: Final = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
LOGGING: Final = "org.slf4j:slf4j-simple:1.7.36"
PARALLEL_DOWNLOADS: Final = 8


@dataclass(frozen=True)
class Download:
    """How far the one-time download is; ``files`` is 0 while the list of jars is being resolved."""

    files_done: int
    files: int
    bytes_done: int


Report = Callable[[Download], None]


def classpath(report: Report | None = None, cache: Path | None = None) -> list[Path]:
    """Return all jars that Kafka needs, downloading them (45 MB) if this machine does not have them.

    ``report`` is called only while downloading, from several threads, one at a time. Raises MillraceError
    when they are neither here nor to be had.
    """
    cache = cache or Path.home() / ".cache" / "millrace"
    listing = cache / f"kafka-{KAFKA_VERSION}.json"
    with _locked(cache):
        if found := _listed(listing):
            return found
        try:
            jars = _fetch(report or (lambda _: None))
        except (OSError, RuntimeError) as error:  # requests raises OSErrors, jgo RuntimeErrors
            raise MillraceError(
                f"Kafka {KAFKA_VERSION} is not on this machine and Maven Central could not be reached: run "
                "`millrace broker up` once while online, or name a running Kafka with --bootstrap"
            ) from error
        listing.write_text(json.dumps([str(jar) for jar in jars]))
        return jars


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _listed(listing: Path) -> list[Path] | None:
    if not listing.exists():
        return None
    jars = [Path(name) for name in json.loads(listing.read_text())]
    return jars if all(jar.exists() for jar in jars) else None


def _fetch(report: Report) -> list[Path]:
    import jgo

    report(Download(0, 0, 0))
    # Resolved apart: jgo lets a second coordinate's dependency management rule the first one's versions,
    # which with a log4j backend gave Kafka 4.4 the clients of 3.9. Kafka's choice wins for what is in both.
    wanted: dict[tuple[str, str], Artifact] = {}
    for artifact in [*jgo.resolve(KAFKA), *jgo.resolve(LOGGING)]:
        wanted.setdefault((artifact.groupId, artifact.artifactId), artifact)
    counter = _Counter(len(wanted), report)
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        return list(pool.map(lambda artifact: counter.count(_whole_jar(artifact)), wanted.values()))


def _whole_jar(artifact: "Artifact") -> Path:
    jar: Path = artifact.resolve()
    if not zipfile.is_zipfile(jar):  # an interrupted download leaves half a file in the repository
        jar.unlink()
        jar = artifact.resolve()
    return jar


class _Counter:
    def __init__(self, files: int, report: Report) -> None:
        self._lock = threading.Lock()
        self._report = report
        self._state = Download(0, files, 0)

    def count(self, jar: Path) -> Path:
        with self._lock:
            done = self._state
            self._state = Download(done.files_done + 1, done.files, done.bytes_done + jar.stat().st_size)
            self._report(self._state)
        return jar
