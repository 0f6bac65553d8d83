"""How records spread over partitions, and whether those of a key stay in their order. Pure functions."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streams.partitioners import key_hash
from topologies.scenarios.wire import Read

BIG = b"user-1"


def big_customer_apart(key: bytes | None, partitions: int) -> int:
    """A custom partitioner: one customer who orders more than all others has the last partition to himself.

    >>> big_customer_apart(b"user-1", 4), big_customer_apart(b"user-2", 4)
    (3, 2)
    """
    return partitions - 1 if key == BIG or partitions == 1 else key_hash(key, partitions - 1)


@dataclass(frozen=True)
class Spread:
    """How the records of one act lay and were read. ``counts`` is by partition.

    Of ``keys``, ``in_one`` had all of their records in one partition, and of ``in_order`` each producer's records
    were read in the order in which they were sent.
    """

    counts: tuple[int, ...]
    keys: int
    in_one: int
    in_order: int


def spread_of(reads: Sequence[Read], partitions: int) -> Spread:
    """The spread of records as they were read; of one that was read again, the first time counts."""
    first = first_reads(reads)
    counts = Counter(one.partition for one in first)
    places = defaultdict(set)
    for one in first:
        places[one.key].add(one.partition)
    return Spread(
        counts=tuple(counts[number] for number in range(partitions)),
        keys=len(places),
        in_one=sum(len(found) == 1 for found in places.values()),
        in_order=len(places) - len(out_of_order(first)),
    )


def first_reads(reads: Iterable[Read]) -> list[Read]:
    """Each record once, as it was read first, in the order of reading; of one partition, in that of its offsets."""
    found: dict[tuple[int, int], Read] = {}
    for one in reads:
        place = (one.partition, one.offset)
        if place not in found or one.read_at < found[place].read_at:
            found[place] = one
    return sorted(found.values(), key=lambda one: (one.read_at, one.partition, one.offset))


def out_of_order(reads: Iterable[Read]) -> set[str]:
    """The keys of which some producer's records were not read in the order in which it sent them."""
    highest: dict[tuple[str, int], int] = {}
    found = set()
    for one in reads:
        written = (one.key, one.payload.producer)
        if one.payload.number < highest.get(written, -1):
            found.add(one.key)
        highest[written] = max(one.payload.number, highest.get(written, -1))
    return found
