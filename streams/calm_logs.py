"""aiokafka's log lines while a broker is away: the same few, eighty a second, cut to one of each in a while.

And what it tells of each reader that is set to a place and let go again, ten times a second for who follows a topic.
"""

import logging
import time
from typing import Final

EVERY_S: Final = 10.0
TALKERS: Final = (
    "aiokafka",
    "aiokafka.cluster",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.producer.sender",
)
# They say at level INFO which topics are read, for each stretch of a log that is.
CHATTERS: Final = ("aiokafka.consumer.consumer", "aiokafka.consumer.subscription_state")


class OnceInAWhile(logging.Filter):
    """Lets a warning or error of one text pass once in `every_s`; what stands in for its `%s` does not count."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        """Nothing has been said yet."""
        super().__init__()
        self._every_s = every_s
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be said."""
        if record.levelno < logging.WARNING:
            return True
        now, text = time.monotonic(), str(record.msg)
        if now - self._said.get(text, -self._every_s) < self._every_s:
            return False
        self._said[text] = now
        return True


def calm_logs() -> None:
    """Cut the repetitions from now on; a second call changes nothing."""
    for name in TALKERS:
        talker = logging.getLogger(name)
        if not any(isinstance(one, OnceInAWhile) for one in talker.filters):
            talker.addFilter(OnceInAWhile())
    for name in CHATTERS:
        logging.getLogger(name).setLevel(logging.WARNING)
