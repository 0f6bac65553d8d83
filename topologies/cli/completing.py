"""Shell completion: which command is being typed, and the values that some of its arguments can have.

The machinery is typer's (`millrace --install-completion`, `--show-completion`): the shell runs `millrace` anew at every
Tab, with what was typed in the environment. So what is here must be quick, and must never fail: what cannot be found
in time is simply not offered.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import typer

ASKED: Final = "_MILLRACE_COMPLETE"
ANSWER_S: Final = 1.5


def words_before(environment: Mapping[str, str]) -> list[str] | None:
    r"""The words before the one that is being typed, without `millrace` itself; None if nothing is to be completed.

    >>> words_before({"_MILLRACE_COMPLETE": "complete_bash", "COMP_WORDS": "millrace\nworker\nan", "COMP_CWORD": "2"})
    ['worker']
    >>> words_before({"_MILLRACE_COMPLETE": "complete_fish", "_TYPER_COMPLETE_ARGS": "millrace wor"})
    []
    """
    if not environment.get(ASKED, "").startswith("complete"):
        return None
    if "COMP_WORDS" in environment:  # bash
        return environment["COMP_WORDS"].split()[1 : int(environment.get("COMP_CWORD", "1"))]
    typed = environment.get("_TYPER_COMPLETE_ARGS", "")
    return typed.split()[1 : None if typed.endswith(" ") else -1]


def topologies(incomplete: str) -> list[str]:
    """Our topologies; a module of yours is found by nobody but you."""
    from topologies.loading import OURS

    return _beginning(OURS, incomplete)


def topics(ctx: typer.Context, incomplete: str) -> list[str]:
    """The topics of the cluster that the command line so far, or the environment, names; Kafka's own are left out."""
    return _beginning((name for name in _topics(ctx) if not name.startswith("__")), incomplete)


def groups(ctx: typer.Context, incomplete: str) -> list[str]:
    """The consumer groups of that cluster."""
    return _beginning(_groups(ctx), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))


def _topics(ctx: typer.Context) -> Iterable[str]:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    from streams.errors import MillraceError

    try:
        return list(AdminClient(_connection(ctx)).list_topics(timeout=ANSWER_S).topics)
    except (KafkaException, MillraceError):
        return []


def _groups(ctx: typer.Context) -> Iterable[str]:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    from streams.errors import MillraceError

    try:
        listing = AdminClient(_connection(ctx)).list_consumer_groups(request_timeout=ANSWER_S)
        return [group.group_id for group in listing.result(ANSWER_S).valid]
    except (KafkaException, MillraceError, TimeoutError):
        return []


def _connection(ctx: typer.Context) -> dict[str, Any]:
    import os

    from topologies.settings import find_cluster, home_directory

    given = ctx.params
    cluster = find_cluster(os.environ, given.get("home") or home_directory(os.environ), given.get("bootstrap"))
    return cluster.librdkafka(log_level=0)
