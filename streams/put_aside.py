"""Which records of a partition lie among the dead letters and have not been taken back: why a replay counts once.

A replayed record carries the header `replayed-from: <topic>-<partition>-<offset>`, the place of its original. It is
taken only if that original was put aside here and not taken back since; then it is, and the next one is dropped. So
it does not matter how often a dead letter is replayed, by whom, or where that was interrupted. What comes of a
replayed record (applied, late, a duplicate, dead again) is decided as for any other; dead again, it has a place of
its own under which it can be mended and replayed again.

This is stronger than remembering which replays were seen: a group that could take the original (another one, or this
one after its fold was mended and its tables were rebuilt) does not count the replay on top of it.

Like every decision of `streams.intake` it is a function of the partition's records up to here. Kept as one bit an
offset, in chunks of 65,536. Originals 268 million offsets back and further are forgotten: their replay is dropped,
and `millrace dead-letters replay` refuses to send it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

CHUNK = 1 << 16
KEPT = CHUNK << 12


@dataclass
class PutAside:
    """Offsets of one source partition. `drain` tells which chunks have changed, for the flush."""

    _chunks: dict[int, int] = field(default_factory=dict)
    _changed: set[int] = field(default_factory=set)

    def add(self, offset: int) -> None:
        """Put a record aside."""
        chunk, bit = divmod(offset, CHUNK)
        if chunk not in self._chunks:
            self._forget(chunk - KEPT // CHUNK)
        self._chunks[chunk] = self._chunks.get(chunk, 0) | 1 << bit
        self._changed.add(chunk)

    def take_back(self, offset: int, by: int) -> bool:
        """Whether the record at `by` may stand in for the one at `offset`; if so, no later one may."""
        chunk, bit = divmod(offset, CHUNK)
        if not 0 <= offset < by < offset + KEPT or not self._chunks.get(chunk, 0) >> bit & 1:
            return False
        self._chunks[chunk] ^= 1 << bit
        self._changed.add(chunk)
        return True

    def drain(self) -> dict[int, bytes]:
        """The chunks that changed since the last drain: their bits, little-endian, without zeros at the end."""
        changed, self._changed = self._changed, set()
        return {chunk: _to_bytes(self._chunks.get(chunk, 0)) for chunk in sorted(changed)}

    def undrain(self, chunks: Iterable[int]) -> None:
        """Take back what could not be written."""
        self._changed.update(chunks)

    def load(self, chunk: int, raw: bytes) -> None:
        """Know a chunk again that was drained in an earlier life."""
        self._chunks[chunk] = int.from_bytes(raw, "little")

    def _forget(self, up_to: int) -> None:
        for chunk in [c for c in self._chunks if c < up_to]:
            del self._chunks[chunk]
            self._changed.add(chunk)

    def __len__(self) -> int:
        return sum(bits.bit_count() for bits in self._chunks.values())


def _to_bytes(bits: int) -> bytes:
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")
