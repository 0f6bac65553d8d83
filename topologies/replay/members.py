"""Who is in a group while its tables are to be dropped: they are ended, waited for, or named."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from streams.admin.connection import Admin
from streams.admin.groups import Member, members_of
from streams.errors import MillraceError
from topologies.names import slot_of, workers_here

END_S: Final = 40.0
# Beyond the session of a worker that was killed, after which the group forgets it.
FORGOTTEN_S: Final = 5.0
POLL_S: Final = 0.2
OWN: Final = "replay-"


def empty(
    admin: Admin, group: str, state_dir: Path, session_s: float, *, stop: bool, told: Callable[[str], None]
) -> list[str]:
    """Return once nobody is in the group: the names of the workers that were ended for it.

    Workers that an interrupted replay has left are ended in any case, others of this host with `stop`; one that was
    killed is waited for until the group has forgotten it. Raises MillraceError naming who is left, and how to end it.
    """
    ended: list[str] = []
    forgotten, deadline = time.monotonic() + session_s + FORGOTTEN_S, time.monotonic() + END_S
    while True:
        here = workers_here(state_dir, group)
        for name in here.keys() - set(ended) if stop else {n for n in here if n.startswith(OWN)} - set(ended):
            told(f"ending {name} of {group} (process {here[name]})")
            with contextlib.suppress(ProcessLookupError):
                os.kill(here[name], signal.SIGTERM)
            ended.append(name)
        members = members_of(admin, group)
        alive = {name: pid for name, pid in here.items() if name not in ended}
        if not members and not here:
            return [name for name in ended if not name.startswith(OWN)]
        elsewhere = [one for one in members if not _of_this_host(one) or one.instance is None]
        limit = deadline if here.keys() & set(ended) else forgotten
        if alive or elsewhere or time.monotonic() > limit:
            raise _refusal(group, {slot_of(state_dir, one.name): one for one in members}, here, stop)
        time.sleep(POLL_S)


def _of_this_host(member: Member) -> bool:
    if member.host in ("", "127.0.0.1", "::1", "0:0:0:0:0:0:0:1"):
        return True
    try:
        known = {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return False
    return member.host in known


def _refusal(group: str, members: Mapping[str, Member], here: dict[str, int], stop: bool) -> MillraceError:
    names = {name: f"{name} at {one.host}" for name, one in members.items()}
    names |= {name: f"{name} (process {pid} of this host)" for name, pid in here.items()}
    if here and not stop:
        way = "end them (Ctrl-C, or `kill " + " ".join(str(pid) for pid in here.values()) + "`), or give --stop"
    else:
        way = "end them where they run, then run this again"
    return MillraceError(f"group {group} is in use by {', '.join(sorted(names.values()))}: {way}")
