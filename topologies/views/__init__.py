"""The read side: a view server that follows topologies' changelogs and answers for their tables over HTTP.

    changelogs, progress  ->  follower  ->  read model (local RocksDB)  ->  queries  ->  HTTP
    derived topics        ->            ->  copies     (local RocksDB)  ->  views of one's own

A server needs no worker to answer: it has the whole of the tables, and says with every answer how fresh they are.
Add servers to scale; each is complete. One serves any number of topologies, each with a follower of its own.

Every view is also a stream (`live`): a follower tells what is new (`news`), a channel for each question that somebody
follows answers it anew (`channels`), says what changed as a patch (`patches`), and keeps the last ones for who is
behind or comes back (`channel`). An answer can be asked for that contains what somebody has just produced (`after`).
"""

from topologies.views.described import Described
from topologies.views.parameters import Parameters
from topologies.views.problems import BadParameter, NotFound, Problem
from topologies.views.queries import newest_window
from topologies.views.reader import Posted, Reader
from topologies.views.server import build_views, run

__all__ = [
    "BadParameter",
    "Described",
    "NotFound",
    "Parameters",
    "Posted",
    "Problem",
    "Reader",
    "build_views",
    "newest_window",
    "run",
]
