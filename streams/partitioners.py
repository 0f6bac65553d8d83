"""Which partition a key belongs to, decided as the Java client does, so that producers of any language agree.

A partitioner is a plain function `(key, partitions) -> partition` with `0 <= partition < partitions`.
"""

from collections.abc import Callable
from itertools import count

Partitioner = Callable[[bytes | None, int], int]

_M = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """32-bit murmur2 of `key`, signed, equal to `org.apache.kafka.common.utils.Utils.murmur2`.

    >>> murmur2(b"21")
    -973932308
    """
    h = _SEED ^ len(key)
    whole = len(key) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(key[i : i + 4], "little") * _M & _MASK
        h = (h * _M & _MASK) ^ ((k ^ k >> 24) * _M & _MASK)
    if whole < len(key):
        h = (h ^ int.from_bytes(key[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    h ^= h >> 15
    return h - (1 << 32) if h & 0x80000000 else h


def key_hash(key: bytes | None, partitions: int) -> int:
    """The partition of `key` by its hash; no key counts as an empty one.

    The Java client and librdkafka's `murmur2_random` spread records without a key at random instead.
    """
    return (murmur2(key or b"") & 0x7FFFFFFF) % partitions


def round_robin(start: int = 0) -> Partitioner:
    """A partitioner that takes the partitions in turn, whatever the key, beginning with `start`.

    Not for topics whose consumers need one key in one partition.
    """
    turn = count(start)
    return lambda _key, partitions: next(turn) % partitions
