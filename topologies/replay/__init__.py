"""Replay in place: a group's tables are dropped and built anew from the log, by its ordinary workers.

*What is dropped* (`concerned`): the group's changelogs, its progress and what it noted of dead letters; topics that it
writes for itself (partials of closed slices, what it forwards to itself); topics of results that are streams, since
their records would be there twice; the local state of this host. *What is kept*: sources, results that are upserts
(each is said again, under its key; what is published of keys that have not come when all is rebuilt goes then), dead
letters and late events (said again under their ids).

*Where from* (`origin`, `planning`). From `earliest` the tables say what the live run's did, cell by cell, as far as the
log reaches back: what retention has taken is counted in cells before anything is dropped (`losses`). From a time or
from offsets they hold the events from there on and no others, as if the log began there: windows before are gone, the
first ones hold a part. Nothing in between is exact: what is late or a duplicate is a function of all that was before.

*Order* (`resetting`), so that a worker that starts in the middle, on whatever host, refuses and counts nothing wrong:

1. The group's offsets are set to where the replay starts: behind the progress, which workers refuse.
2. Topics that the group writes for itself are deleted: workers refuse a source that is another one than before.
3. All topics of the state are deleted, in one request: workers refuse a state of which a part is missing.
4. The local state is deleted, the topics are made anew, and a progress says where everything begins, in an epoch of its
   own (tables.renewal): what is left of the former tables on other hosts counts for nothing from then on.

Each step may be repeated. What is being done is written down first (`journal`), so the same command goes on where it
was killed: before 4 is done it begins again at 1, and after that it is the workers' own exactness that goes on.

*Rebuilding* (`rebuilding`) is workers as `millrace worker` starts them; the command watches what they commit. Further
workers may join them, and any worker may go on with a rebuild that nobody watches.
"""
