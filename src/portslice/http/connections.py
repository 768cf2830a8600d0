"""How many connections a listener serves at once, in all and for each source.

Each costs memory and a descriptor, whatever comes over it. A source (portslice.http.sources) has a part of them, all
containers together have half; so nobody alone takes them all. One above a bound is answered 503 and closed. A Unix
socket is not bounded: whom its file lets in may do worse.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Hashable
from typing import cast

from aiohttp import web

from portslice.complaints import Complaints
from portslice.http.sources import Source, Sources

log = logging.getLogger(__name__)

MOST = 4096
MOST_OF_CONTAINERS = MOST // 2
MOST_OF_ONE = 256
_COMPLAINT_SECS = 10.0
_TEXT = b"Too many connections.\n"
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_TEXT), _TEXT)
)


class Connections:
    """Counts them."""

    def __init__(self) -> None:
        self._counts: Counter[Hashable] = Counter()
        self._complaints = Complaints(log, _COMPLAINT_SECS)

    def __len__(self) -> int:
        return self._counts["all"]

    def enter(self, source: Source) -> bool:
        """Count one more; or not, if it would be one too many."""
        full = next((bound for key, bound in _bounds(source) if self._counts[key] >= bound), None)
        if full is None:
            self._counts.update(key for key, _ in _bounds(source))
        else:
            self._complaints.warning("Refusing a connection from %s: there are %s already", source, full)
        return full is None

    def leave(self, source: Source) -> None:
        """Count one less."""
        for key, _ in _bounds(source):
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]


def _bounds(source: Source) -> list[tuple[Hashable, int]]:
    containers = [("containers", MOST_OF_CONTAINERS)] if source.is_container else []
    return [(source, MOST_OF_ONE), *containers, ("all", MOST)]


class _Door(asyncio.Protocol):
    """Lets a connection in to what serves it, or not."""

    def __init__(self, inside: asyncio.Protocol, connections: Connections, sources: Sources) -> None:
        self._inside = inside
        self._connections = connections
        self._sources = sources
        self._source: Source | None = None  # of one that is in

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        source = self._sources.of(transport)
        if self._connections.enter(source):
            self._source = source
            self._inside.connection_made(transport)
        else:
            refused = cast(asyncio.Transport, transport)
            refused.write(_BUSY)
            refused.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._source is not None:
            self._connections.leave(self._source)
            self._inside.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._source is not None:
            self._inside.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inside.eof_received() if self._source is not None else None

    def pause_writing(self) -> None:
        if self._source is not None:
            self._inside.pause_writing()

    def resume_writing(self) -> None:
        if self._source is not None:
            self._inside.resume_writing()


class BoundedSite(web.SockSite):
    """Serves a listening TCP socket (IPv4) within these bounds."""

    def __init__(self, runner: web.AppRunner, sock: socket.socket, sources: Sources) -> None:
        super().__init__(runner, sock)
        self._sources = sources

    async def start(self) -> None:
        """Begin to serve."""
        await web.BaseSite.start(self)
        serve = self._runner.server
        assert serve is not None
        connections = Connections()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Door(serve(), connections, self._sources), sock=self._sock, backlog=self._backlog
        )
