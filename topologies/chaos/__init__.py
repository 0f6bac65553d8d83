"""A fault harness: a topology on a real broker under load, a seeded schedule of faults, and every cell compared.

`faults` is what can be done to a fleet, `fleet` the processes it is done to, `subject` which topology it is about,
`run` puts one run together. `compare` looks at every changelog, read model and derived topic of the sales; `behaviour`
and `recommendations` at every session, cart, alert, cell of the funnel, pair count and published neighbour of theirs.

A fault counts only while something is at stake: at its moment the group had records to make durable or to recover
(`watch`), and the load went on until the workers owned every partition again. One that did not count comes again, so
that every run has as many as were asked for.

What is tried, what it is for, and what it has found, here or as the same schedule on the driver; all of that is mended.

| fault | what could go wrong | found |
|---|---|---|
| kill | unflushed events lost, or flushed ones applied twice | 1 |
| kill at changelog-sent | accumulators ahead of the progress count their events again | |
| kill at progress-sent | the store is behind the progress and its tail is not read | |
| kill at store-written, before-commit | the group's offsets are behind what the tables contain | |
| kill at recovering | a changelog's stretch is taken for the whole of it | |
| kill at handing-over | the next owner starts from too old a position | 2, 3 |
| wipe | changelogs alone do not bring everything back | 4 |
| join, leave | two owners, or none; a partition that comes back finds its old cache | 5, 6, 7 |
| pause | a zombie's stale flush overwrites its successor's | 8 |
| pause, compact, wipe | compaction keeps the zombie's record because it is the last one | 9 |
| broker: one node, or all at once | a flush that failed half-way is taken for done, or sent twice | 13, 14 |
| broker-away: all, for longer than a flush waits | the same; a worker gives up, or waits for ever | 13, 14 |
| corrupt | a damaged store is read as if it were whole | |
| full | a write that failed is taken for done | 12 |
| read-only | the same; or a worker goes on elsewhere, and nobody knows | 10 |
| delete-changelog, a run's last: all must refuse | it is made anew, and what follows is taken for the whole | 11 |
| duplicates, late and out-of-order events | are part of the load, always | |

1. Event ids that a restore had read again were forgotten when only the second stage was flushed; after the next kill a
   duplicate counted.
2. Faust's streams acknowledge past the consumer's own `ack`: its commit went ahead of what was durable.
3. A static member that came back with another port met an assertion in Faust's assignor, and stood still for ever.
4. A window past its retention stayed in the changelog when its state was lost before its tombstones were written.
5. The first batch of a partition without progress, lost in a rebalance, was never missed: there was no position.
6. A restore that the next revoke overtook kept its stores open.
7. A partition that went away while its offset was asked for ended the worker in the middle of its seek.
8. A batch lost between fetcher and engine on a partition that stays quiet waited for ever: no next one showed the gap.
9. A zombie's record stayed unsettled when the one who had found it died before the next flush.
10. The advice was to delete the directory; and one with "lock" in its path was taken for one that is locked.
11. Whoever started next made the topic anew, the view server included; a running worker went on into the new one, or,
    without one, tried again for ever and said nothing.
12. Closing a store on a full disk raised a second error, which hid the line that says what to do.
13. A broker had taken a flush without saying so, and the next one settled with it while events went on: the store had
    cells ahead of the position and did not say how far, and after a kill their events counted twice.
14. The same in the first of several tables made the flush forget what was acknowledged of the others: the progress
    named their ends too low, and a restore that saw no more than that lacked events.

`full` bounds the size of a worker's files; `read-only` mounts a directory over itself, since a mode does not stop root
(`unwritable` has the other ways). Of deleted changelogs `tables.lost` says why nobody goes on, whatever it has locally.
"""
