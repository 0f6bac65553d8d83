"""Accumulators: the row of aggregates of one (slice, key) in one partition, in memory and as bytes.

**In memory** a *cell* is a list, since lists are what Python changes fastest:
`[stamp, first, events, dirty, *states]`. `stamp` is the source offset last applied (-1: none), `first` the
first one, `events` how many events touched it, `dirty` whether it differs from what the last flush wrote,
then one state for each aggregate of its `RowSpec`.

**As bytes** (changelog, RocksDB, read models), all numbers big-endian:

- key: slice start in ms as u64, then the key in UTF-8. Keys sort by slice, then by key.
- value: version (u8, 1), epoch (u32), stamp (i64), first offset (i64), events (u32), then in msgpack the list
  of the dumped states. Bytes [1:13] compare as (epoch, stamp). An integer beyond 64 bits, which msgpack has
  not, is its extension type 1: two's complement. A list shorter than the row was written before aggregates were
  appended to it (tables.layout): those are empty.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec

from streams.errors import MillraceError
from tables.aggregates import Aggregate
from tables.layout import VERSION, Layout, fingerprint, layout_of
from tables.row_source import compile_row

Cell = list[Any]
WindowsMap = dict[int, dict[str, Cell]]
Apply = Callable[
    [
        Sequence[int],
        Sequence[int],
        Sequence[Iterable[tuple[Any, ...]]],
        WindowsMap,
        Callable[[int, str], Cell],
        list[tuple[int, str, Cell]],
    ],
    None,
]

STAMP, FIRST, EVENTS, DIRTY, STATES = range(5)

# Keys are names. A record is refused by the broker from 1 MiB on, and finals carry their key twice.
KEY_BYTES = 8_192
STAMP_SLICE = slice(1, 13)
EPOCH_SLICE = slice(1, 5)
OFFSET_SLICE = slice(5, 13)
FIRST_SLICE = slice(13, 21)
_HEADER = struct.Struct(">BIqqI")
_WINDOW = struct.Struct(">Q")
_WIDE_INT = 1


class UnknownFormat(MillraceError):
    """A value that this version cannot read."""


def encode_key(window: int, key: str) -> bytes:
    r"""The key bytes of a slice (start in ms) and a key. Raises ValueError for a key that no topic should carry.

    >>> encode_key(60_000, "total")
    b'\x00\x00\x00\x00\x00\x00\xea`total'
    """
    raw = key.encode()
    if len(raw) > KEY_BYTES:
        raise ValueError(f"a key of {len(raw)} bytes; the limit is {KEY_BYTES}")
    return _WINDOW.pack(window) + raw


def decode_key(raw: bytes) -> tuple[int, str]:
    r"""The slice start in ms and the key.

    >>> decode_key(b'\x00\x00\x00\x00\x00\x00\xea`total')
    (60000, 'total')
    """
    return int.from_bytes(raw[:8], "big"), raw[8:].decode()


def stamp_of(raw: bytes) -> bytes:
    """Twelve bytes of a value that compare as its (epoch, stamp)."""
    return raw[STAMP_SLICE]


def epoch_of(raw: bytes) -> int:
    """The epoch of a value."""
    return int.from_bytes(raw[EPOCH_SLICE], "big")


def first_of(raw: bytes) -> int:
    """The first source offset that a value contains."""
    return int.from_bytes(raw[FIRST_SLICE], "big", signed=True)


@dataclass(frozen=True)
class RowSpec:
    """The named aggregates of a row, in order, and the code made for them.

    `apply(offsets, windows, rows, windows_map, load, dirty)` adds a batch: for event i its offset, its slice
    start and its rows, flat tuples `(key, value, ...)` with one value for each aggregate. Cells are found in
    `windows_map[window][key]`; a missing one is asked of `load(window, key)`, which puts it there and returns
    it. Each touched cell gets the event's offset as its stamp and counts the event once, and the first time
    since its flush `(window, key, cell)` is appended to `dirty`. It compares no stamps: all offsets must be
    above those of the cells. If it raises, which it does for values that an aggregate refuses, cells are half
    done.

    `apply_checked` does the same, but passes over the rows of an event whose offset is not above the stamp
    that the cell had before the event: what was applied before is not applied again.
    """

    aggregates: Mapping[str, Aggregate[Any]]
    layout: Layout = field(init=False)
    fingerprint: str = field(init=False)
    apply: Apply = field(init=False, repr=False, compare=False)
    apply_checked: Apply = field(init=False, repr=False, compare=False)
    new_cell: Callable[[], Cell] = field(init=False, repr=False, compare=False)
    _dumped: Callable[[Cell], list[Any]] = field(init=False, repr=False, compare=False)
    _loaded: Callable[[int, int, int, list[Any]], Cell] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the row. Raises ValueError for a row of nothing."""
        if not self.aggregates:
            raise ValueError("a row needs at least one aggregate")
        put = object.__setattr__
        put(self, "aggregates", MappingProxyType(dict(self.aggregates)))
        put(self, "layout", layout_of(self.aggregates))
        put(self, "fingerprint", fingerprint(self.layout))
        code = compile_row(list(self.aggregates.values()), f"{self.fingerprint} {', '.join(self.aggregates)}")
        for name in ("apply", "apply_checked", "new_cell"):
            put(self, name, code[name])
        put(self, "_dumped", code["dumped"])
        put(self, "_loaded", code["loaded"])

    def encode(self, cell: Cell, epoch: int) -> bytes:
        """The value bytes of a cell."""
        header = _HEADER.pack(VERSION, epoch, cell[STAMP], cell[FIRST], cell[EVENTS])
        states = self._dumped(cell)
        try:
            return header + _pack(states)
        except OverflowError:
            return header + _pack(_widened(states))

    def decode(self, raw: bytes) -> tuple[int, Cell]:
        """The epoch and the cell, clean. Raises UnknownFormat for bytes of another version or row.

        Of a cell from before aggregates were appended, those are empty. One with more aggregates than these is
        refused: written again it would lose them.
        """
        return self._decode(raw, longer=False)

    def read(self, raw: bytes) -> Cell:
        """The cell for one who only reads: aggregates that a newer program has appended are left out."""
        return self._decode(raw, longer=True)[1]

    def _decode(self, raw: bytes, *, longer: bool) -> tuple[int, Cell]:
        try:
            version, epoch, stamp, first, events = _HEADER.unpack_from(raw)
            if version == VERSION:
                states = _unpack(raw[_HEADER.size :])
                if len(states) != len(self.layout):
                    states = self._fitted(states, longer=longer)
                return epoch, self._loaded(stamp, first, events, states)
        except (struct.error, msgspec.DecodeError, ValueError, TypeError) as error:
            raise UnknownFormat(f"{self._cannot_read(raw)}: {error}") from error
        raise UnknownFormat(f"{self._cannot_read(raw)}: version {version}, this program reads {VERSION}")

    def _fitted(self, states: list[Any], *, longer: bool) -> list[Any]:
        width = len(self.layout)
        if not states or (len(states) > width and not longer):
            raise ValueError(f"{len(states)} aggregates, this program knows {width}; was it written by a newer one?")
        empty: list[Any] = _unpack(_pack(self._dumped(self.new_cell())))
        return states[:width] + empty[len(states) :]

    def merge(self, cells: Sequence[Cell]) -> list[Any]:
        """One state for each aggregate, of all events of these cells.

        The cells stay as they are. The states are for reading: those of a single cell are its own.
        """
        if len(cells) == 1:
            return cells[0][STATES:]
        columns = enumerate(self.aggregates.values(), STATES)
        return [aggregate.merge_all([cell[i] for cell in cells]) for i, aggregate in columns]

    def results(self, states: Sequence[Any]) -> dict[str, Any]:
        """What a reader gets of merged states, by name."""
        named = zip(self.aggregates.items(), states, strict=True)
        return {name: aggregate.result(state) for (name, aggregate), state in named}

    def _cannot_read(self, raw: bytes) -> str:
        return f"{len(raw)} bytes are no value of the row {', '.join(self.aggregates)}"


def _widened(value: Any) -> Any:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        size = value.bit_length() // 8 + 1
        return msgspec.msgpack.Ext(_WIDE_INT, value.to_bytes(size, "big", signed=True))
    if isinstance(value, (list, tuple)):
        return [_widened(one) for one in value]
    if isinstance(value, dict):
        return {key: _widened(one) for key, one in value.items()}
    return value


def _narrowed(code: int, data: memoryview) -> int:
    if code != _WIDE_INT:
        raise ValueError(f"msgpack extension {code} is not known")
    return int.from_bytes(data, "big", signed=True)


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[Any], ext_hook=_narrowed).decode
