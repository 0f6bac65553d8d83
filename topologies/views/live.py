"""Every view is also a stream of events: a snapshot, then what changes in it, for as long as the client listens.

Asked for with `Accept: text/event-stream`, or under the view's path with `/live` after it, for those who cannot set
headers (EventSource in a browser). The events are in `channel`; what goes wrong before the first one is answered as a
problem, like any answer. A stream may also begin with `after=`: then its first event contains what is named.

A client is sent the next frame when it has taken the one before. Who reads slowly misses nothing: what came meanwhile
is one delta, or a snapshot. aiohttp-sse does not fit: it formats an event for each client, where here all share the
bytes, and has a task beside each for its signs of life.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from topologies.views.after import After
from topologies.views.answers import HELD, SERVED, SERVING, Views
from topologies.views.channel import BEAT
from topologies.views.channels import Channels, Computed, Live
from topologies.views.endpoints import FOLLOWING, LAST_ID
from topologies.views.guard import SUFFIX, extend
from topologies.views.metrics import BEGAN
from topologies.views.parameters import once
from topologies.views.problems import Handler, Problem
from topologies.views.queries import SALES

EVENTS: Final = "text/event-stream"
RESERVED: Final = tuple(parameter.name for parameter in FOLLOWING)
RETRY: Final = b"retry: 1000\n\n"
# Nothing between here and the client may keep events back.
HEADERS: Final = {"Content-Type": EVENTS, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
# What is kept for a client beyond what the system keeps for its socket: this, and a piece of a frame.
BUFFER_BYTES: Final = 32 << 10
PIECE_BYTES: Final = 64 << 10

CHANNELS = web.AppKey("channels", Channels)
# By the path of each view that can be followed, the topology that it is from; None: it is the server's own.
LIVE = web.AppKey("live", Mapping[str, str | None])
# What a channel keeps from one answer to the next, by the question, for views that can go on from there.
MEMORY = web.RequestKey("memory", dict[str, Any])


def path_of(request: web.Request) -> str:
    """The declared path of the view that is asked for, such as `/api/tables/{name}`, without `/live`."""
    resource = request.match_info.route.resource
    return resource.canonical.removesuffix(SUFFIX) if resource is not None else ""


@web.middleware
async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer once, or go on answering; in both cases not before what `after=` names is covered."""
    if path_of(request) not in request.app[LIVE] or not (_wants_events(request) or request.query.keys() & RESERVED):
        return await handler(request)
    asked = Asked.read(request)
    if asked.after.wanted:
        extend(request, asked.after.deadline)
        await asked.after.covered(asked.views, copies=request.app[LIVE][path_of(request)] is not None)
    if _wants_events(request):
        return await _stream(request, handler, asked)
    return await _once(request, handler, asked)


def _wants_events(request: web.Request) -> bool:
    resource = request.match_info.route.resource
    if request.method != "GET" or resource is None:
        return False
    return resource.canonical.endswith(SUFFIX) or EVENTS in request.headers.get("Accept", "")


@dataclass(frozen=True)
class Asked:
    """A request apart: the question, which is the same for all who ask it, and what is this client's own."""

    question: str
    request: web.Request
    after: After
    last_id: str | None
    views: Sequence[Views]

    @classmethod
    def read(cls, request: web.Request) -> "Asked":
        """Take apart a request. Raises Problem."""
        query = request.query
        given = once(query, RESERVED)
        after = After.read(given)
        last_id = request.headers.get("Last-Event-ID") or LAST_ID.of(given)
        url = request.rel_url.without_query_params(*RESERVED)
        pairs = sorted(url.query.items(), key=lambda pair: pair[0])
        question = request.rel_url.raw_path.removesuffix(SUFFIX) + "?" + urlencode(pairs, errors="replace")
        # plain, so that no view sees what is not for it, or begins a stream of its own
        plain = request.clone(rel_url=url, headers={"Host": request.headers.get("Host", "")})
        return cls(question, plain, after, last_id, _views(request))


def _views(request: web.Request) -> Sequence[Views]:
    """The topologies that a view is from, as far as is known: with news of them it is answered anew."""
    served, path = request[SERVED], path_of(request)
    owner = request.app[LIVE][path]
    if owner is not None:
        return (served.of(owner),)
    if "name" in request.match_info:
        return (served.of_table(request.match_info["name"]),)
    if path.startswith("/api/sales"):
        return [views for views in served.all if views.model.tables.keys() & set(SALES.values())]
    return served.all


async def _body(handler: Handler, request: web.Request) -> bytes:
    response = await handler(request)
    if not isinstance(response, web.Response) or not isinstance(response.body, bytes) or response.status != 200:
        raise Problem(406, "not-live", "Not live", "this cannot be followed: ask for it without")
    return response.body


async def _once(request: web.Request, handler: Handler, asked: Asked) -> web.Response:
    raw = await asked.after.answered(asked.views, lambda: _body(handler, asked.request))
    return web.Response(body=raw, content_type="application/json", headers={"Cache-Control": "no-store"})


async def _stream(request: web.Request, handler: Handler, asked: Asked) -> web.StreamResponse:
    channels, asking = request.app[CHANNELS], _Asking(handler, asked.request)
    news = [views.tracker.news for views in asking.views()]
    with channels.joined(asked.question, asking.compute, news) as live:
        await _begun(live, asked)
        request[HELD].release()  # the stream goes on with whatever is served
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        extend(request, None)
        request[BEGAN] = time.perf_counter()
        try:
            await _Client(request, response, channels, live).send_all(live.channel.position(asked.last_id))
        except ConnectionError:
            pass  # it has gone
        except TimeoutError:
            channels.counts.stuck += 1
            if request.transport is not None:
                request.transport.abort()
    return response


@dataclass
class _Asking:
    """Asks a view again and again, each time of what is served then, with what is remembered of that."""

    handler: Handler
    request: web.Request
    _remembered: Sequence[Views] = ()

    def views(self) -> Sequence[Views]:
        """The topologies that the view is from, as they are served now."""
        self.request[SERVED] = self.request.app[SERVING].now
        return _views(self.request)

    async def compute(self) -> Computed:
        """The answer, and what it is from."""
        with self.request.app[SERVING].held():
            views = self.views()
            if MEMORY not in self.request or any(a is not b for a, b in zip(views, self._remembered, strict=False)):
                self.request[MEMORY] = {}
            self._remembered = views
            return Computed(await _body(self.handler, self.request), [one.topology.name for one in views])


async def _begun(live: Live, asked: Asked) -> None:
    """Return when there is an answer to begin with. Raises Problem."""
    while not live.channel.begun:
        await live.woken()
        if live.ended:
            raise Problem(503, "closing", "Closing", "the server ends")
    if live.channel.problem is not None:
        raise live.channel.problem
    await asked.after.until(asked.views, live.woken, lambda: asked.after.is_in(live.channel.body))


@dataclass(frozen=True)
class _Client:
    request: web.Request
    response: web.StreamResponse
    channels: Channels
    live: Live

    async def send_all(self, seq: int | None) -> None:
        """Send frame after frame. Raises ConnectionError when the client has gone, TimeoutError when it is stuck."""
        if self.request.transport is not None:
            self.request.transport.set_write_buffer_limits(BUFFER_BYTES)
        await self._send(RETRY)
        beats = self.live.beats
        while not self.live.ended:
            frame = self.live.channel.after(seq)
            if frame is not None:
                seq = frame.seq
                await self._send(frame.raw)
            elif beats != self.live.beats:
                beats = self.live.beats
                await self._send(BEAT)
            else:
                await self.live.woken()

    async def _send(self, raw: bytes) -> None:
        self.channels.counts.frames += 1
        self.channels.counts.bytes += len(raw)
        whole = memoryview(raw)
        for start in range(0, len(raw), PIECE_BYTES):
            async with asyncio.timeout(self.channels.pace.stuck_s):
                await self.response.write(whole[start : start + PIECE_BYTES])
                await self.request.writer.drain()  # write alone waits only once 64 KiB have come together


async def end_streams(app: web.Application) -> None:
    """End all streams, for a server that is about to stop: their clients look for another."""
    await app[CHANNELS].close()
