"""Which slices are over for good: the one rule that expiry, recovery and the second stage go by."""

from tables.cache import Cache
from tables.deciding import undecided_from
from tables.partition import Feed, Partition


def horizon(partition: Partition, feed: Feed, cache: Cache) -> int:
    """Slices that start before this (ms) are dropped, whatever a changelog says: the durable progress is past them.

    That is the durable watermark less the retention, or what all rules that look at the table have decided by then
    less the retention; in a second stage, which outlives nothing, what is final.
    """
    if feed.durable is None:
        return 0
    if feed.source.finals_of is not None:
        return final_before(feed, feed.durable.marks)
    done, undecided = feed.durable.watermark, undecided_from(partition, cache)
    edge = (done if undecided is None else min(done, undecided)) - cache.table.retention_ms
    return max(0, edge - edge % cache.slice_ms)


def final_before(feed: Feed, marks: dict[str, int]) -> int:
    """Slices before this are closed in every source partition; 0 while one of them has not said anything."""
    return min(marks.values()) if len(marks) == feed.source.topic.partitions else 0
