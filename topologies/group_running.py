"""A group with side effects as a process of its own: its name, its pages, its loop, and an end in good order."""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from streams.consuming import Handle, Meter, Reading, consume
from streams.topics import Topic
from topologies.group_pages import group_pages, served
from topologies.names import claim_member, claim_port
from topologies.settings import LOOPBACK, Settings
from topologies.views.guard import Access

logger = logging.getLogger(__name__)


def _none() -> Mapping[str, float]:
    return {}


@dataclass(frozen=True)
class Work:
    """What a group does; `counts` are counters of its own, for the metrics.

    `beside` are the loops of other groups of this process, whose pages are the same.
    """

    group: str
    topics: Sequence[Topic]
    handle: Handle
    reading: Reading = field(default_factory=Reading)
    counts: Callable[[], Mapping[str, float]] = _none
    beside: Mapping[str, Meter] = field(default_factory=dict)


async def run_group(
    work: Work,
    settings: Settings,
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    stop: asyncio.Event | None = None,
    meter: Meter | None = None,
    started: Callable[[str], None] = logger.info,
) -> None:
    """Work until SIGINT, SIGTERM or `stop`; `started` is told the url of its pages.

    The member's name is `settings.name`, else the first free slot of the state directory, as for workers: one that was
    killed is back at once. `port` None is the first free one from the workers'. Raises what `consume` raises, and
    MillraceError for a name or port that is taken.
    """
    stop = asyncio.Event() if stop is None else stop
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    instance = claim_member(settings.state_dir, work.group, settings.name)
    port = claim_port(settings.state_dir, settings.worker_port) if port is None else port
    meter, access = meter or Meter(), Access(settings.read_token, settings.ops_token)
    reading = replace(work.reading, instance=instance, session_s=settings.session_s)
    pages = group_pages({work.group: meter, **work.beside}, work.counts, access)
    async with served(pages, host, port) as url:
        started(url)
        await consume(
            settings.cluster, work.group, work.topics, work.handle, stop=stop, reading=reading, meter=meter, tell=_tell
        )


def _tell(line: str) -> None:
    logger.warning("%s", line)
