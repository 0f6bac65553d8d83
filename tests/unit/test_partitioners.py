"""Keys go where the Java client puts them."""

import pytest

from streams.codecs import user_key
from streams.partitioners import Partitioner, key_hash, murmur2, round_robin

# From Apache Kafka's own UtilsTest.testMurmur2.
JAVA = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "hashed"), JAVA)
def test_murmur2_is_javas(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed


def test_a_hash_is_made_positive_by_its_sign_bit_alone() -> None:
    assert key_hash(b"21", 7) == (-973932308 & 0x7FFFFFFF) % 7


def test_no_key_counts_as_an_empty_one() -> None:
    assert key_hash(None, 5) == key_hash(b"", 5)


def test_users_spread_over_all_partitions() -> None:
    counts = [0] * 4
    for user in range(10_000):
        counts[key_hash(user_key(user), 4)] += 1
    assert min(counts) > 2_300


def test_round_robin_takes_partitions_in_turn() -> None:
    choose: Partitioner = round_robin(start=2)
    assert [choose(b"same", 3) for _ in range(5)] == [2, 0, 1, 2, 0]
    assert round_robin()(None, 3) == 0
