"""The view server's port: one view server listens there, and nobody else."""

from collections.abc import Iterator
from http.client import HTTPException
from typing import Any, Final

import psutil

from topologies.demo.client import Client
from topologies.doctor.finding import Finding, Fine, Said, Skipped
from topologies.doctor.state import command_of
from topologies.settings import LOOPBACK, Settings

PORTS_TRIED: Final = 100


def look(settings: Settings) -> Iterator[Said]:
    """Who listens on the port that `millrace views` would take."""
    port = settings.views_port
    try:
        found = listeners(port)
    except psutil.AccessDenied:
        yield Skipped("views", f"this system does not tell who listens on port {port}")
        return
    if not found:
        yield Skipped("views", f"no view server listens on port {port}")
        return
    if len(found) > 1:
        told = " and ".join(f"pid {pid} at {', '.join(sorted(at))}" for pid, at in sorted(found.items()))
        what = f"{len(found)} processes listen on port {port}, who asks gets one or the other: {told}"
        yield Finding("views", "port-shared", "error", what, f"kill {max(found, key=_started)}    # the younger one")
        return
    yield from _only(settings, next(iter(found)))


def listeners(port: int) -> dict[int, set[str]]:
    """The processes that listen on a port, with the addresses at which they do. Raises psutil.AccessDenied."""
    found: dict[int, set[str]] = {}
    for one in psutil.net_connections(kind="tcp"):
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port:
            found.setdefault(one.pid or 0, set()).add(one.laddr.ip)
    return found


def _only(settings: Settings, pid: int) -> Iterator[Said]:
    port = settings.views_port
    health: dict[str, Any] = {}
    try:
        health = dict(Client(f"http://{LOOPBACK}:{port}", settings.read_token).get("/healthz"))
    except (OSError, HTTPException, ValueError, TypeError):
        pass  # what answers is no HTTP, no JSON, or another JSON
    fresh = health.get("freshness")
    if health.get("status") == "ok" and fresh is None:
        yield Skipped("views", f"the view server on port {port} tells more with MILLRACE_READ_TOKEN")
        return
    if not isinstance(fresh, dict):
        who = f"pid {pid} ({command_of(pid)})" if pid else "a process of another user"
        what = f"port {port} is taken by {who}, which is no view server that answers"
        mend = f"millrace views --port {_free_after(port)}    # or end the other: kill {pid}"
        yield Finding("views", "port-taken", "warning", what, mend)
    elif not fresh["connected"]:
        what = f"the view server on port {port} (pid {pid}) has lost its cluster, and answers from what it has"
        yield Finding("views", "views-disconnected", "error", what, f"kill {pid} && millrace views --port {port}")
    else:
        yield Fine("views", f"one view server on port {port}, {fresh['lagTotal'] or 0:,} records behind")


def _free_after(port: int) -> int:
    return next((one for one in range(port + 1, port + PORTS_TRIED) if not listeners(one)), port + 1)


def _started(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0
