"""Errors an operator reads: each message is one line that says what is wrong and what to do next."""


def in_one_line(error: object) -> str:
    r"""What an error says, in one line; its type's name where it says nothing.

    >>> in_one_line(OSError("no\n  route")), in_one_line(TimeoutError())
    ('no route', 'TimeoutError')
    """
    return " ".join(str(error).split()) or type(error).__name__


class MillraceError(Exception):
    """Something the operator can act on; the command line prints it as ``error: ...`` and exits with 1."""


class BrokerUnreachable(MillraceError):
    """No broker answers at the bootstrap addresses."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(
            f"no Kafka broker answers at {bootstrap}: start one with `millrace broker up`, "
            "or name yours with --bootstrap or MILLRACE_BOOTSTRAP; see `millrace doctor`"
        )


class PartitionMismatch(MillraceError):
    """A topic exists with another number of partitions than it is declared with."""

    def __init__(self, topic: str, found: int, declared: int) -> None:
        super().__init__(
            f"topic {topic!r} has {found} partition(s) but {declared} are declared: set "
            f"MILLRACE_PARTITIONS={found} to use it as it is, or delete the topic to have it created anew; "
            "see `millrace doctor`"
        )
