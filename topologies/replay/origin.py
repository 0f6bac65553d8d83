"""What `--from` says: earliest, a time, or an offset for each partition."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from streams.admin.topics import Stretch
from streams.errors import MillraceError
from streams.log import TP
from topologies.views.parameters import Parameters
from topologies.views.problems import BadParameter

EARLIEST: Final = "earliest"
_PLACE: Final = re.compile(r"(?:(?P<topic>[^:=,]+):)?(?P<partition>\d{1,9})=(?P<offset>\d{1,18})")


@dataclass(frozen=True)
class Origin:
    """Where a replay begins. Without `at_ms` and `offsets` at the first record that there is.

    `at_ms` is compared with the records' Kafka timestamps; `offsets` is by (topic, None where it was left out) and
    partition, and partitions that it does not name begin at their first record.
    """

    text: str
    at_ms: int | None = None
    offsets: Mapping[tuple[str | None, int], int] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether it is all that the log has."""
        return self.at_ms is None and not self.offsets

    def starts(self, held: Mapping[TP, Stretch]) -> dict[TP, int]:
        """The first offset of each partition, given what it holds (`at`: the offset of `at_ms`).

        Raises MillraceError for offsets of partitions that there are not, or that do not hold them.
        """
        if self.at_ms is not None:
            return {tp: found.end if found.at is None else found.at for tp, found in held.items()}
        starts = {tp: found.first for tp, found in held.items()}
        topics = sorted({tp.topic for tp in held})
        for (topic, partition), offset in self.offsets.items():
            if topic is None and len(topics) > 1:
                raise MillraceError(f"--from {partition}={offset}: which topic? write <topic>:{partition}={offset}")
            tp = TP(topic or topics[0], partition)
            if tp not in held:
                raise MillraceError(f"--from: {tp.topic}[{partition}] is no source; there are {', '.join(topics)}")
            if not held[tp].first <= offset <= held[tp].end:
                raise MillraceError(
                    f"--from: {tp.topic}[{partition}] holds offsets {held[tp].first} to {held[tp].end}, not {offset}"
                )
            starts[tp] = offset
        return starts


def parse_origin(text: str) -> Origin:
    """Read `earliest`, a time (ISO-8601 or epoch ms), or `[topic:]partition=offset,...`. Raises MillraceError.

    >>> parse_origin("orders:0=12,1=7").offsets
    {('orders', 0): 12, (None, 1): 7}
    """
    if text == EARLIEST:
        return Origin(text)
    if "=" in text:
        return Origin(text, offsets=dict(_place(part.strip()) for part in text.split(",")))
    try:
        return Origin(text, at_ms=Parameters({"--from": text}).time("--from"))
    except BadParameter as error:
        raise MillraceError(f"{error}; or `earliest`, or offsets like 0=1200,1=1180") from error


def _place(text: str) -> tuple[tuple[str | None, int], int]:
    found = _PLACE.fullmatch(text)
    if found is None:
        raise MillraceError(f"--from: {text!r} is no offset: write [topic:]partition=offset,..., e.g. 0=1200,1=1180")
    return (found["topic"], int(found["partition"])), int(found["offset"])
