"""The read side: a view server that follows a topology's changelogs and answers for its tables over HTTP.

    changelogs, progress  ->  follower  ->  read model (local RocksDB)  ->  queries  ->  HTTP

A server needs no worker to answer: it has the whole of the tables, and says with every answer how fresh they are.
Add servers to scale; each is complete.
"""

from topologies.views.problems import BadParameter, Problem
from topologies.views.queries import newest_window
from topologies.views.server import build_views, run

__all__ = ["BadParameter", "Problem", "build_views", "newest_window", "run"]
