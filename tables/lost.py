"""What a worker says when a topic that holds a part of its group's state is gone, or is another one than before.

It refuses, also where local state is still complete. What a changelog has lost cannot be told from what it never had:
read models, restores and the workers of other hosts would go on with less than the truth and not know it, and a worker
that wrote its own part again would do so for its own partitions alone. The source still has the events (if it keeps
them long enough), so the tables are built anew from there.
"""

from streams.errors import MillraceError


class ChangelogLost(MillraceError):
    """A topic of the group's state was deleted, lost records, or was made anew."""

    def __init__(self, topic: str) -> None:
        """Name the topic, and the way out."""
        super().__init__(
            f"topic {topic} was deleted or has lost records, and with them a part of the tables: no worker goes on "
            "with the rest. Stop all workers of the group and build its tables anew from the source with "
            "`millrace replay <topology> --from earliest`"
        )
        self.topic = topic
