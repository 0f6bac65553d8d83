"""What a consumer group does with partitions, shown on a real broker: `millrace scenario`.

A scenario makes a topic and a group of its own, and tells what happens in three acts; then both are deleted.

1. `stages`: consumers join until all are there. Who owns which partition is asked from the broker (`ownership`), never
   from the consumers: with fewer than partitions some own several, with as many one each, with more some are idle.
2. `spreads`: producers send by key hash, round-robin and a custom partitioner; how the records lie, and whether those
   of a key were read in the order in which they were sent (`spreading`).
3. `death`, if asked for: one consumer is killed under load. The broker counts it as alive until its session times out;
   then its partitions move, and what it had read without committing is read again.

Each consumer is a process (`consumer`) with a member of the group in it, so that a death is a real one.
"""
