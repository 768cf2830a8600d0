"""The page at `/`, and the events that keep it up to date. It reads, and nothing on it changes the host.

    GET /                 the page; its other files are below /dashboard/
    GET /overview/events  server-sent events (HTML standard, section 9.2), for as long as the reader stays:
                          `agent` once, what does not change while the agent runs; then `overview` every second, what
                          /overview answers

All readers share one ticker, which runs only while there is a reader; each tick is written out and compressed once. An
event is complete by itself: a reader that is slower than the ticker misses some and never has more than one waiting.
A thousand busy containers are 0.6 to 1 MB of JSON a second, 0.1 to 0.2 MB compressed; sending only what has changed
would save a quarter of that, and an event would need those before it.

A compressed event is a run of whole deflate blocks that ends at a byte and refers to nothing before it (Z_FULL_FLUSH).
So every reader gets a gzip header of its own and then events that were compressed for all.

The page is served on TCP only. On the Unix socket, forwarded to a browser, any other page could use the right to
change the host.
"""

import asyncio
import gzip
import hashlib
import logging
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ETag, web

import portslice
from portslice.agent import startup
from portslice.agent.service import Agent
from portslice.errors import PortsliceError
from portslice.http.answers import PIECES, compact, takes_gzip
from portslice.network.reasons import EXPLANATIONS
from portslice.overview import overview
from portslice.ports import PortSet

log = logging.getLogger(__name__)

_STATIC = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_TICK_SECS = 1.0
_STALLED_SECS = 30.0  # a reader that takes longer for one event is let go
_MAX_READERS = 200  # anybody may read, and one that stalls keeps up to an event in the agent's memory
_RETRY = "retry: 2000\n"  # milliseconds until a reader whose agent has gone tries again
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # RFC 1952: deflate, no name, no time
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # kept, but asked for each time: the answer is 304 while the ETag is the same
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True)
class _Asset:
    """A file of the page."""

    type: str
    plain: bytes
    compressed: bytes
    etag: str

    @classmethod
    def read(cls, path: Path) -> "_Asset":
        plain = path.read_bytes()
        return cls(_TYPES[path.suffix], plain, gzip.compress(plain, mtime=0), hashlib.sha256(plain).hexdigest()[:16])

    def response(self, request: web.Request) -> web.Response:
        """200, or 304 if the client has this very content."""
        response = web.Response(headers=_HEADERS)
        response.etag = ETag(self.etag, is_weak=True)  # compressed or not
        if any(each.value in (self.etag, "*") for each in request.if_none_match or ()):
            response.set_status(304)
            return response
        response.content_type, response.charset = self.type, "utf-8"
        response.body = self.plain
        if takes_gzip(request.headers.get("Accept-Encoding", "")):
            response.body = self.compressed
            response.headers["Content-Encoding"] = "gzip"
        return response


class _Event:
    """A server-sent event, as it is written."""

    def __init__(self, name: str, value: Any, *, retry: str = "") -> None:
        self.plain = f"{retry}event: {name}\ndata: {compact(value, PIECES, in_order=True)}\n\n".encode()
        deflate = zlib.compressobj(level=3, wbits=-zlib.MAX_WBITS)
        self.compressed = deflate.compress(self.plain) + deflate.flush(zlib.Z_FULL_FLUSH)


class _Ticker:
    """An overview of all containers every second, while anybody reads."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._readers = 0
        self._latest: _Event | None = None
        self._ticked = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    def is_idle(self) -> bool:
        """Whether nobody reads, and nothing is done."""
        return self._task is None

    def is_full(self) -> bool:
        """Whether as many read as may."""
        return self._readers >= _MAX_READERS

    async def __aenter__(self) -> "_Ticker":
        self._readers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._readers -= 1

    async def next(self, seen: _Event | None) -> _Event:
        """The latest event, as soon as it is another one than `seen`."""
        async with self._ticked:
            await self._ticked.wait_for(lambda: self._latest is not None and self._latest is not seen)
            assert self._latest is not None
            return self._latest

    async def _run(self) -> None:
        while self._readers:
            try:
                event = await asyncio.to_thread(_overviews, await self._agent.snapshots.take())
                async with self._ticked:
                    self._latest = event
                    self._ticked.notify_all()
            except Exception:
                log.exception("The dashboard's readers go without an overview")
            await asyncio.sleep(_TICK_SECS)  # between two, so that a host that lags sends fewer
        self._latest = self._task = None


def _overviews(snapshot: Any) -> _Event:
    return _Event("overview", [overview(usage) for usage in snapshot])


class Dashboard:
    """The page of an agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        files = [path for path in _STATIC.rglob("*") if path.suffix in _TYPES]
        self._assets = {path.relative_to(_STATIC).as_posix(): _Asset.read(path) for path in files}
        self._ticker = _Ticker(agent)

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.get("/", self.page),
            web.get("/dashboard/{name:.+}", self.asset),
            web.get("/overview/events", self.events),
        ]

    async def page(self, request: web.Request) -> web.Response:
        """Beyond Mesos: the page that shows all containers, live."""
        return self._assets["index.html"].response(request)

    async def asset(self, request: web.Request) -> web.Response:
        """Another file of the page."""
        asset = self._assets.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        return asset.response(request)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Beyond Mesos: server-sent events for the page, until the reader goes or stalls."""
        if self._ticker.is_full():
            raise web.HTTPServiceUnavailable(text=f"{_MAX_READERS} pages are open already: close one")
        response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        compressed = takes_gzip(request.headers.get("Accept-Encoding", ""))
        if compressed:
            response.headers["Content-Encoding"] = "gzip"
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        try:
            if compressed:
                await response.write(_GZIP_HEADER)
            event = _Event("agent", self._about(), retry=_RETRY)
            async with self._ticker as ticker:
                while True:
                    async with asyncio.timeout(_STALLED_SECS):
                        await response.write(event.compressed if compressed else event.plain)
                    event = await ticker.next(event)
        except (ConnectionResetError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        return response

    def _about(self) -> dict[str, Any]:
        """What does not change while this agent runs: who it is, and whose the ports are (all ranges inclusive)."""
        agent = self._agent
        about: dict[str, Any] = {
            "hostname": agent.hostname,
            "version": portslice.__version__,
            "page": hashlib.sha256("".join(each.etag for each in self._assets.values()).encode()).hexdigest()[:16],
            "cpus": os.cpu_count(),
            "mem_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "reasons": EXPLANATIONS,
        }
        try:
            host = startup.host_port_range()
            about["host_ephemeral_ports"] = [host.begin, host.end]
        except PortsliceError as error:
            log.warning("The dashboard does not show the host's ephemeral ports: %s", error)
        if agent.port_mapping is not None:
            ports, ephemeral = startup.port_resources(agent.flags)
            about |= {
                "ports": _pairs(ports),
                "ephemeral_ports": _pairs(ephemeral),
                "ephemeral_block": agent.flags.ephemeral_ports_per_container,
            }
        return about


def _pairs(ports: PortSet) -> list[list[int]]:
    return [[each.begin, each.end] for each in ports.ranges]
