"""A fault harness: a topology on a real broker under load, a seeded schedule of faults, and every cell compared.

`faults` is what can be done to a fleet, `fleet` the processes it is done to, `compare` looks at every changelog,
read model and derived topic, `run` puts one run together.

What is tried, and what it is for:

| fault | what could go wrong |
|---|---|
| kill | unflushed events lost, or flushed ones applied twice |
| kill at changelog-sent | accumulators ahead of the progress count their events again |
| kill at progress-sent | the store is behind the progress and its tail is not read |
| kill at store-written, before-commit | the group's offsets are behind what the tables contain |
| kill at recovering | a changelog's stretch is taken for the whole of it |
| kill at handing-over | the next owner starts from too old a position |
| wipe | changelogs alone do not bring everything back |
| join, leave | two owners, or none; a partition that comes back finds its old cache |
| pause | a zombie's stale flush overwrites its successor's |
| pause, compact, wipe | compaction keeps the zombie's record because it is the last one |
| broker | a flush that failed half-way is taken for done, or sent twice |
| corrupt | a damaged store is read as if it were whole |
| full | a write that failed is taken for done |
| duplicates, late and out-of-order events | are part of the load, always |
"""
