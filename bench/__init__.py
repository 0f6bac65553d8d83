"""What `millrace bench` measures, and how, so that a figure means the same each time.

- Contenders run one after another on the same topic of the same broker, each in a process of its own with a fresh
  group and state directory, in rounds (A B C, A B C, ...), so that whatever else the machine does hits all of them;
  medians are reported. Ratios of one run are what counts: absolute figures of two machines, or of two hours on a busy
  one, do not compare.
- `bench.orders` makes the records and knows the right sums; `bench.contenders` are the processes; `bench.measure` is
  what they and the command say to each other; `bench.check` compares sums; `bench.rounds` runs; `bench.stages`
  says where our time goes.
- A clock starts at the first batch after the warm-up and stops when the last record is applied; ours when the flush of
  the last record is durable.
"""
