"""A connection over which no whole request comes within some seconds is closed.

aiohttp waits for the first one without a bound, and only for the next ones with one (keepalive_timeout).
"""

import asyncio
import logging
import time
from collections.abc import Iterable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from portslice.http.routing import Handler

log = logging.getLogger(__name__)

FIRST_SECS = 30.0


class Patience:
    """Knows which connections of a server have brought a request."""

    def __init__(self, secs: float = FIRST_SECS) -> None:
        self._secs = secs
        self._silent: dict[RequestHandler, float] = {}
        self._heard: set[RequestHandler] = set()

    @web.middleware
    async def hear(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A whole head has come; the body is the handler's to wait for."""
        self._heard.add(request.protocol)
        return await handler(request)

    async def watch(self, server: web.Server) -> None:
        """Close those that wait too long, for ever."""
        while True:
            await asyncio.sleep(self._secs / 3)
            self.sweep(server.connections, time.monotonic())

    def sweep(self, connections: Iterable[RequestHandler], now: float) -> None:
        """Close those that have been silent for too long.

        :param connections: all that there are.
        """
        current = set(connections)
        self._heard &= current
        self._silent = {each: self._silent.get(each, now) for each in current - self._heard}
        late = [each for each, since in self._silent.items() if now - since >= self._secs]
        for each in late:
            each.force_close()
        if late:
            log.warning("Closing %s connections: no request has come over them for %g s", len(late), self._secs)
