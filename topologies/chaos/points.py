"""Ending a process at a named point: `MILLRACE_FAULT=progress-sent:3` kills it at the third passage, as a power cut."""

import os
import signal
from collections import Counter
from collections.abc import Mapping

from streams.errors import MillraceError
from tables.points import POINTS, REPLAY_POINTS, install

VARIABLE = "MILLRACE_FAULT"


def install_from(environment: Mapping[str, str]) -> None:
    """Install the fault that the environment names, if any. Raises MillraceError for one that does not exist."""
    text = environment.get(VARIABLE)
    if not text:
        return
    point, _, passage = text.partition(":")
    if point not in (*POINTS, *REPLAY_POINTS) or not passage.isdecimal():
        raise MillraceError(f"{VARIABLE} is {text!r}: give POINT:N with one of {', '.join(POINTS)}")
    passages: Counter[str] = Counter()

    def strike(reached: str) -> None:
        passages[reached] += 1
        if reached == point and passages[reached] == int(passage):
            os.kill(os.getpid(), signal.SIGKILL)

    install(strike)
