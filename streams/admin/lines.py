"""Records as lines of text: `key:value`, as they are typed, and as Kafka's console producer takes them.

With headers in the line it is Kafka's `parse.headers` format: `name:value,name:value`, a tab, then the record.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from streams.errors import MillraceError

Header = tuple[str, bytes]


class Outgoing(NamedTuple):
    """One record to send."""

    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


class BadLine(MillraceError):
    """A line that is no record as the format has it."""


@dataclass(frozen=True)
class LineFormat:
    """How a line is read. Raises ValueError for an empty separator.

    `keyed`: key and value are parted by the first `separator`; else the line is the value, under `key`. `headers` go
    before those in the line, which are there with `headed`. A value that equals `null` is a tombstone.

    >>> LineFormat().read(b'user-1:{"a":1}', 1)
    Outgoing(key=b'user-1', value=b'{"a":1}', headers=())
    """

    keyed: bool = True
    key: bytes | None = None
    separator: bytes = b":"
    headers: tuple[Header, ...] = ()
    headed: bool = False
    null: bytes | None = None

    def __post_init__(self) -> None:
        """Check the separator."""
        if not self.separator:
            raise ValueError("the separator must not be empty")

    def read(self, line: bytes, number: int) -> Outgoing:
        """The record of a line without its end. Raises BadLine, which names the line's number."""
        headers = self.headers
        if self.headed:
            raw, tab, line = line.partition(b"\t")
            if not tab:
                raise BadLine(f"line {number} has no headers: they are name:value,name:value and a tab")
            headers += tuple(_header(text, number) for text in raw.split(b",") if text)
        key, value = self._parted(line, number) if self.keyed else (self.key, line)
        return Outgoing(key, None if value == self.null else value, headers)

    def _parted(self, line: bytes, number: int) -> tuple[bytes, bytes]:
        # JSON without a key would be cut at its first colon, and sent as two halves without a word
        if self.separator == b":" and line[:1] in (b"{", b"[", b'"'):
            raise BadLine(
                f"line {number} begins like JSON, not like key:value: name the key with --key, or send it without one "
                "with --no-key"
            )
        key, found, value = line.partition(self.separator)
        if not found:
            raise BadLine(
                f"line {number} has no {self.separator.decode()!r} between key and value: name the key with --key, or "
                "send it without one with --no-key"
            )
        return key, value


def lines_of(raw: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their ends, Windows' ones included."""
    for line in raw:
        yield line.removesuffix(b"\n").removesuffix(b"\r")


def named_header(text: str) -> Header:
    """A header as it is typed, `name=value`. Raises MillraceError."""
    name, found, value = text.partition("=")
    if not found or not name:
        raise MillraceError(f"header {text!r} is not name=value")
    return name, value.encode()


def _header(text: bytes, number: int) -> Header:
    name, found, value = text.partition(b":")
    if not found or not name:
        raise BadLine(f"line {number}: header {text.decode(errors='replace')!r} is not name:value")
    return name.decode(errors="replace"), value
