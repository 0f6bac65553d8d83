"""What an operator asks of a cluster and does to it, whatever runs on it: topics, groups, records, load.

One module a subject, each a few functions over confluent-kafka's clients that take a `Cluster` or an admin client and
give back frozen values; nothing here prints, asks or knows a topology:

- `connection`: an admin client that has reached its cluster, and errors as one line
- `topics`: what topics there are, how they are kept, where they begin and end; made and deleted
- `altering`: topics changed while they are in use
- `groups`: consumer groups, their members, and how far behind they are
- `resetting`: where a group would go on, planned before anything is set
- `lines`: records as lines of text, as they are typed and as Kafka's own console tools take them
- `sending`: such records into a topic, by any partitioner
- `reading`: records out of a topic, in a group or in none
- `perf`: how fast a cluster takes and gives records

Positions, lags and percentiles are defined as Kafka's own tools define them, which tests/integration/
test_kafkas_tools.py compares.
"""
