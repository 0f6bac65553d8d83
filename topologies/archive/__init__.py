"""Every record of the shop's topics, once, as Parquet files that any tool can query: group `data-platform-group`.

    <url>/order-events/date=2026-11-23/partition=3/00000000000000012000.parquet
          topic        day            partition   the first offset that the file covers

*Exactly once, by names.* A file covers `[from, end)` of its partition: its name says `from`, its footer `end`. The
next file of a partition begins where the newest one ends, so the files themselves say how far the archive is: the
offsets that the group commits are for `millrace groups` and the lag, and nothing rests on them. A file appears whole
or not at all, and only where there is none of its name (a hard link on a local disk, a conditional put elsewhere).

- The process dies before a file is there: its records are read again. After: they are not.
- Two archivers believe to own a partition (one was paused while its session ran out): both want to go on from the same
  offset, so for the same name; one gets it, the other finds where that file ends and goes on from there, or is told by
  the group that it has no business there any more. Overlapping files cannot come to be.

*The day* is that of the first record's Kafka timestamp (UTC), a function of the log alone, so that the two above want
the same path. A later day begins a new file; a record of an earlier day (a dead letter that was sent again) stays in
the file of its time. So a row never lies under a day before its own: ask with `date >= ...` and for the time itself.

*A row* has everything that the record had (offset, timestamp, key, value, headers), and the fields of its event beside
it. What does not decode is archived like everything else, with the reason in `unreadable`.
"""
