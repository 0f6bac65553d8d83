"""The archive's files, on a local disk or anywhere that fsspec reaches: written whole, once, and never over another.

A footer's own entries (`Footer`) begin with `millrace.`: `from` and `end`, the offsets that the file covers (holes of
the log included), `rows`, `topic-id`, which tells the topic from another that is made under its name later, and where
there are any `lost`: so many offsets from `from` on were deleted from the log before anybody had archived them.
"""

import contextlib
import io
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from streams.errors import MillraceError
from streams.log import TP
from topologies.archive.layout import Place, place_of

# What a killed process was writing; another one may be at work on its own, but not for so long.
ORPHAN_S: Final = 3600.0
INCOMING: Final = ".incoming"
COMPRESSION: Final = "zstd"


@dataclass(frozen=True)
class Footer:
    """What a file says of itself."""

    first: int
    end: int
    rows: int
    topic_id: str = ""
    lost: int = 0

    def metadata(self) -> dict[str, str]:
        """As it is written."""
        said = {
            "millrace.from": str(self.first),
            "millrace.end": str(self.end),
            "millrace.rows": str(self.rows),
            "millrace.topic-id": self.topic_id,
        }
        return said | ({"millrace.lost": str(self.lost)} if self.lost else {})

    @classmethod
    def read(cls, metadata: Mapping[bytes, bytes]) -> Self:
        """From a file's metadata. Raises KeyError or ValueError for a file of somebody else's."""
        said = {name: metadata[f"millrace.{name}".encode()].decode() for name in ("from", "end", "rows", "topic-id")}
        lost = int(metadata.get(b"millrace.lost", b"0"))
        return cls(int(said["from"]), int(said["end"]), int(said["rows"]), said["topic-id"], lost)


class Files:
    """The files below one url. All methods block; raises OSError where the storage fails."""

    def __init__(self, url: str, **options: Any) -> None:
        """Find the file system; `options` are its own. Raises MillraceError for one that cannot do what is needed."""
        try:
            self.fs, root = fsspec.core.url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise MillraceError(f"archive {url!r} cannot be reached: {error}") from error
        self.url, self.root = url, root.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)
        if not self.local and not _creates(self.fs):
            raise MillraceError(
                f"archive {url!r}: {type(self.fs).__name__} cannot put a file whole and only where there is none; "
                "use a local path or an object store (s3://, gs://, memory://)"
            )

    def places(self, topic: str) -> list[tuple[str, Place]]:
        """All files of a topic with what their paths say, by partition and first offset."""
        directory = f"{self.root}/{topic}"
        with _as_os_error():
            self.fs.invalidate_cache()
            paths = self.fs.find(directory) if self.fs.exists(directory) else []
        found = [(path, place) for path in paths if (place := place_of(path)) is not None and place.tp.topic == topic]
        return sorted(found, key=lambda one: (one[1].tp, one[1].first, one[1].day))

    def topics(self) -> list[str]:
        """The topics that have a directory."""
        with _as_os_error():
            self.fs.invalidate_cache()
            entries = self.fs.ls(self.root, detail=True) if self.fs.exists(self.root) else []
        names = [entry["name"].rstrip("/").rpartition("/")[2] for entry in entries]
        return sorted(name for name in names if not name.startswith("."))

    def newest(self, tp: TP) -> tuple[str, Footer] | None:
        """The file of a partition that begins last."""
        with _as_os_error():
            self.fs.invalidate_cache()
            found = [(place, path) for path in self._paths(tp) if (place := place_of(path)) is not None]
        if not found:
            return None
        _, path = max(found)
        return path, self.footer(path)

    def _paths(self, tp: TP) -> Iterator[str]:
        """What lies in a partition's own directories, under every day: a later record can be of an earlier one."""
        directory = f"{self.root}/{tp.topic}"
        days = self.fs.ls(directory, detail=True) if self.fs.exists(directory) else []
        for day in days:
            if day["type"] == "directory":
                with contextlib.suppress(FileNotFoundError):  # it has no file of this day
                    yield from self.fs.ls(f"{day['name'].rstrip('/')}/partition={tp.partition}", detail=False)

    def footer(self, path: str) -> Footer:
        """What a file says of itself. Raises MillraceError for one that is damaged, or none of an archive's."""
        try:
            with _as_os_error(), self.fs.open(path, "rb") as file:
                return Footer.read(pq.read_metadata(file).metadata or {})
        except (KeyError, ValueError, pa.ArrowInvalid) as error:
            raise MillraceError(
                f"archive file {path} is damaged or somebody else's: {error!r}; move it away"
            ) from error

    def offsets(self, path: str) -> list[int]:
        """The offsets of a file's rows, in their order."""
        with _as_os_error(), self.fs.open(path, "rb") as file:
            # without pyarrow's threads: two in thirty processes aborted at their end while some still ran
            found = pq.ParquetFile(file, pre_buffer=False).read(columns=["offset"], use_threads=False)
        offsets: list[int] = found["offset"].to_pylist()
        return offsets

    def create(self, path: str, table: pa.Table) -> None:
        """Write a table to a path below the url. Raises FileExistsError where there is one already."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression=COMPRESSION)
        if self.local:
            _link(Path(self.root), path, buffer.getbuffer())
        else:
            self._put(f"{self.root}/{path}", buffer.getvalue())

    def _put(self, path: str, content: bytes) -> None:
        """Put an object. One that is there after a failure counts as there: perhaps it was ours that got through."""
        try:
            self.fs.pipe_file(path, content, mode="create")
        except FileExistsError:
            raise
        except Exception as error:  # each store's client has errors of its own
            self.fs.invalidate_cache()
            with _as_os_error():
                there = self.fs.exists(path)
            raise FileExistsError(path) if there else OSError(_said(error)) from error

    def prepare(self) -> None:
        """Look whether the url can be written to, and clear away what killed processes left."""
        if not self.local:
            return
        incoming = Path(self.root) / INCOMING
        try:
            incoming.mkdir(parents=True, exist_ok=True)
            if not os.access(incoming, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise MillraceError(f"archive {self.url} cannot be written: {error.strerror}; give another --to") from error
        for orphan in incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - orphan.stat().st_mtime > ORPHAN_S:
                    orphan.unlink()


def _creates(fs: Any) -> bool:
    """Whether the file system's own `pipe_file` knows the mode `create`; fsspec's general one looks, then writes."""
    for kind in type(fs).__mro__:
        for name in ("_pipe_file", "pipe_file"):
            code = getattr(kind.__dict__.get(name), "__code__", None)
            if code is not None and kind.__module__ not in ("fsspec.spec", "fsspec.asyn"):
                return "mode" in code.co_varnames or "create" in code.co_consts
    return False


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Each store's client has errors of its own; here what a storage fails with is an OSError."""
    try:
        yield
    except (OSError, MillraceError, KeyError, ValueError):  # the latter two are what a damaged file gives
        raise
    except Exception as error:
        raise OSError(_said(error)) from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _link(root: Path, path: str, content: memoryview) -> None:
    """Write beside, make it durable, and give it its name, which fails where that is taken."""
    final, incoming = root / path, root / INCOMING / f"{uuid4().hex}.parquet"
    for directory in (incoming.parent, final.parent):
        directory.mkdir(parents=True, exist_ok=True)
    try:
        with incoming.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        final.hardlink_to(incoming)
        for directory in _between(final.parent, root):
            _sync(directory)
    finally:
        incoming.unlink(missing_ok=True)


def _between(directory: Path, root: Path) -> Iterator[Path]:
    """The directory and those above it, up to the root: each of them may be new."""
    yield directory
    while directory != root:
        directory = directory.parent
        yield directory


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
