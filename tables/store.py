"""One RocksDB for each (group, source partition): a column family a table, and meta data in the default one.

One WriteBatch takes all tables of the partition from one source offset to the next, together with the changelog
offsets, the highest stamp and the progress, so a crash leaves the old state or the new, never a mixture.

Meta keys (default column family):

- `next:<table>` the changelog offset to read on from, `schema:<table>` the row's fingerprint;
- `outdone:<table>:<offset>` keys whose last changelog record, read up to there, was not their best one
  (tables.recovery): the next flush says them again;
- `progress:<topic>` the progress as written to Kafka, `highest:<topic>` the highest stamp applied;
- `renewed` the epoch in which a replay in place began these tables anew, if one has (tables.renewal);
- `seen:<topic>:<position>` the event ids learned up to there (streams.dedupe).
"""

import contextlib
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import msgspec
from rocksdict import AccessType, BlockBasedOptions, Cache, ColumnFamily, Options, Rdict, WriteBatch, WriteBufferManager

from streams.errors import MillraceError

logger = logging.getLogger(__name__)

_decode_keys = msgspec.msgpack.Decoder(list[bytes]).decode

DEFAULT = "default"
# The cache above holds what is hot, so RocksDB gets little, and all stores of a process share it. By default each
# table of each partition may take 64 MiB to write and 32 MiB to read: four partitions of the sales tables grew for
# three million events, to 480 MiB.
WRITE_BUFFER_BYTES = 8 << 20
ALL_WRITE_BUFFERS_BYTES = 64 << 20
ALL_BLOCKS_BYTES = 32 << 20
WAL_BYTES = 32 << 20

UNWRITABLE = ("Read-only file system", "Permission denied", "Operation not permitted", "No space left")


class StoreLocked(MillraceError):
    """Another process has the directory open."""


class StoreDamaged(MillraceError):
    """RocksDB refuses the directory."""


class StoreFailed(MillraceError):
    """A write failed: the disk is full, or not writable."""


class Store:
    """The local state of one partition. Keys and values are bytes as `tables.accumulators` writes them."""

    def __init__(self, path: Path, tables: Sequence[str]) -> None:
        """Open or create. Raises `StoreLocked`, `StoreDamaged`, `StoreFailed`."""
        self.path = path
        self._families: dict[str, ColumnFamily] = {}
        self._db = _open(path, tables)
        for table in tables:
            self._families[table] = self._db.get_column_family_handle(table)
        self._data: dict[str, Rdict] = {t: self._db.get_column_family(t) for t in tables}

    def get(self, table: str, key: bytes) -> bytes | None:
        """One value."""
        value: bytes | None = self._data[table].get(key)
        return value

    def get_many(self, table: str, keys: list[bytes]) -> list[bytes | None]:
        """Values in the order of the keys."""
        get = self._data[table].get
        return [get(key) for key in keys]  # twice as fast as rocksdict's own multi-get, measured

    def scan(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of `[start, end)` in key order."""
        it = self._data[table].iter()
        it.seek(start)
        while it.valid():
            key = it.key()
            if key >= end:
                return
            yield key, it.value()
            it.next()

    def scan_back(self, table: str, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of `[start, end)` from the last key to the first."""
        it = self._data[table].iter()
        it.seek_for_prev(end)
        while it.valid():
            key = it.key()
            if key < start:
                return
            if key < end:
                yield key, it.value()
            it.prev()

    def newest_key(self, table: str) -> bytes | None:
        """The last key in key order: its slice is the newest stored."""
        it = self._data[table].iter()
        it.seek_to_last()
        return it.key() if it.valid() else None

    def meta(self, name: str) -> bytes | None:
        """One piece of meta data."""
        value: bytes | None = self._db.get(name.encode())
        return value

    def metas(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """All meta data whose name begins so, in the order of the names."""
        return _metas(self._db, prefix)

    def next_offset(self, table: str) -> int:
        """The changelog offset that the table's state has not seen yet."""
        value = self.meta(f"next:{table}")
        return int(value) if value is not None else 0

    def outdone(self, table: str) -> set[bytes]:
        """The keys that the next flush must say again."""
        return {key for _, raw in self.metas(f"outdone:{table}:") for key in _decode_keys(raw)}

    def change(self) -> "Change":
        """Start one atomic change."""
        return Change(self._families, self._db)

    def size_bytes(self) -> int:
        """Bytes on disk, about."""
        sizes = 0
        for file in self.path.iterdir():
            with contextlib.suppress(FileNotFoundError):  # RocksDB deletes files at any time
                sizes += file.stat().st_size
        return sizes

    def close(self) -> None:
        """Close and free the directory's lock, which RocksDB keeps until every handle is gone.

        Never raises: on a full disk the error that counts is the write's, and the changelogs have what is lost here.
        """
        for handle in (*self._data.values(), self._db):
            try:
                handle.close()
            except Exception as error:
                logger.info("state directory %s is closed without its last write: %s", self.path, error)
        self._data.clear()
        self._families.clear()


class Change:
    """One atomic change of a store: collect, then `write`."""

    def __init__(self, families: Mapping[str, ColumnFamily], db: Rdict) -> None:
        """Begin empty."""
        self._families = families
        self._db = db
        self._batch = WriteBatch(raw_mode=True)

    def put_all(self, table: str, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Put key/value pairs."""
        family, put = self._families[table], self._batch.put
        for key, value in pairs:
            put(key, value, family)

    def delete_all(self, table: str, keys: Sequence[bytes]) -> None:
        """Delete single keys."""
        family = self._families[table]
        for key in keys:
            self._batch.delete(key, family)

    def delete_range(self, table: str, start: bytes, end: bytes) -> None:
        """Delete every key of `[start, end)` at the cost of one record."""
        self._batch.delete_range(start, end, self._families[table])

    def meta(self, name: str, value: bytes) -> None:
        """Put meta data."""
        self._batch.put(name.encode(), value)

    def outdone(self, table: str, end: int, keys: Iterable[bytes]) -> None:
        """Note keys that the next flush must say again, found before the changelog offset `end`."""
        self.meta(f"outdone:{table}:{end:020d}", msgspec.msgpack.encode(list(keys)))

    def drop_meta(self, name: str) -> None:
        """Delete meta data."""
        self._batch.delete(name.encode())

    def write(self) -> None:
        """Apply all of it, or nothing. Raises `StoreFailed`."""
        try:
            self._db.write(self._batch)
        except Exception as error:
            text = str(error).splitlines()[0]
            raise StoreFailed(
                f"local state cannot be written ({text}): see that the disk has room and is writable, then start "
                "again; nothing is lost"
            ) from error


def memory_bytes() -> dict[str, int]:
    """What RocksDB holds in memory, of all stores of this process together."""
    return {"write_buffers": _write_buffers().get_usage(), "blocks": _blocks().get_usage()}


@cache
def _write_buffers() -> WriteBufferManager:
    return WriteBufferManager(ALL_WRITE_BUFFERS_BYTES, allow_stall=False)


@cache
def _blocks() -> Cache:
    return Cache(ALL_BLOCKS_BYTES)


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_write_buffer_manager(_write_buffers())
    blocks = BlockBasedOptions()
    blocks.set_block_cache(_blocks())
    options.set_block_based_table_factory(blocks)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    # A table that is seldom written would keep the write-ahead log of all others for months.
    options.set_max_total_wal_size(WAL_BYTES)
    return options


def _open(path: Path, tables: Sequence[str]) -> Rdict:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        present = Rdict.list_cf(str(path), _options()) if (path / "CURRENT").exists() else []
        families = {name: _options() for name in {DEFAULT, *tables, *present}}
        return Rdict(str(path), options=_options(), column_families=families)
    except Exception as error:
        text = str(error).splitlines()[0]
        if "While lock file" in text or "lock hold by" in text:
            raise StoreLocked(f"state directory {path} is open in another process") from error
        raise _refused(path, text) from error


def _refused(path: Path, text: str) -> StoreFailed | StoreDamaged:
    if any(reason in text for reason in UNWRITABLE):
        return StoreFailed(
            f"state directory {path} cannot be written ({text}): make it writable and start again, or give "
            "another with --state or MILLRACE_STATE; nothing is lost"
        )
    return StoreDamaged(
        f"state directory {path} cannot be opened ({text}); delete it and start again: "
        "the state is restored from the changelogs"
    )


def _metas(db: Rdict, prefix: str) -> Iterator[tuple[str, bytes]]:
    it = db.iter()
    it.seek(prefix.encode())
    while it.valid() and it.key().startswith(prefix.encode()):
        yield it.key().decode(), it.value()
        it.next()


def metas_of(path: Path, prefix: str) -> dict[str, bytes]:
    """The meta data of a store whose names begin so, also while another process has it open; none of it is changed.

    Raises `StoreDamaged`, and `StoreFailed` where the directory cannot be written: RocksDB wants that even so.
    """
    try:
        families = {name: Options(raw_mode=True) for name in Rdict.list_cf(str(path))}
        opened = Rdict(
            str(path),
            options=Options(raw_mode=True),
            column_families=families,
            access_type=AccessType.read_only(),
        )
    except Exception as error:
        raise _refused(path, str(error).splitlines()[0]) from error
    try:
        return dict(_metas(opened, prefix))
    finally:
        opened.close()


def wipe(path: Path) -> None:
    """Delete a store's directory, if it exists."""
    shutil.rmtree(path, ignore_errors=True)
