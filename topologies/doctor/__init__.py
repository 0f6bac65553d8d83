"""What `millrace doctor` looks at, and what mends what it finds.

Each module looks at one thing and yields `Finding`s (something is wrong: what, where, and the very command that mends
it) and `Fine`s (what was looked at and is as it should be). Nothing is mended here, and nothing but the clock's look
writes anywhere: it makes a topic of one record, to see the brokers' time, and deletes it.

- `brokers`: does anybody answer, at the addresses that they advertise, and how new are they; do all nodes take part
- `topics`: are those of each topology there, all of them, partitioned alike, kept as they must be, and writable
- `groups`: does somebody work, on every partition, and does the lag not grow (two looks, some seconds apart)
- `state`: can the state directory be written, who has it open, does it belong to this cluster, is it sound
- `machine`: room on the disk, packages within their ranges, the clock
- `database`: does the order database answer, has it this version's tables, does a relay publish what is in its outbox
- `ports`: is what listens on the view server's port one view server

A topology that has never run here (nobody has ever written its progress or committed for it) is not examined, unless
it is named: missing topics are no fault of it.
"""
