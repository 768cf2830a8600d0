"""Answers that do not end: events as records of RecordIO, each its length in decimal digits, a line's end and that many
bytes (Mesos' v1 scheduler, executor and operator APIs).
"""

import asyncio
import json
import logging
from typing import Any

from aiohttp import web

log = logging.getLogger(__name__)

MOST_UNREAD = 16 << 20  # bytes


class Events:
    """Events on their way to a reader. One that reads too slowly is hung up on.

    :param heartbeat: the event that is sent when there was no other for so long.
    :param most: bytes that wait for it.
    """

    def __init__(self, heartbeat: bytes, heartbeat_secs: float, most: int = MOST_UNREAD) -> None:
        self._heartbeat = heartbeat
        self._heartbeat_secs = heartbeat_secs
        self._most = most
        self._unread = 0
        self._ended = False
        self._events: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._cut = False
        self._reading: asyncio.Timeout | None = None

    def put_first(self, event: bytes) -> None:
        """One that may be as long as it is."""
        self._most += len(event)
        self.put_bytes(event)

    def put_bytes(self, event: bytes) -> None:
        """An event."""
        if self._ended:
            return
        self._unread += len(event)
        self._events.put_nowait(event)
        if self._unread > self._most:
            self.cut()

    def end(self) -> None:
        """Let the stream end behind what was put."""
        if not self._ended:
            self._ended = True
            self._events.put_nowait(None)

    def cut(self) -> None:
        """Let it end now, and what was put be lost."""
        if self._reading is not None and not self._cut:
            self._reading.reschedule(0)
        self._ended = self._cut = True
        self._events = asyncio.Queue()

    async def copy_to(self, request: web.Request, response: web.StreamResponse) -> None:
        """Write events and heartbeats to their end.

        :raises OSError: the reader has gone, or is hung up on.
        """
        try:
            async with asyncio.timeout(None) as self._reading:
                while not self._cut and (event := await self._next()) is not None:
                    await write(response, event)
            if self._cut:  # the cancellation may have been lost, as asyncio.wait_for does it
                raise TimeoutError
        except TimeoutError:
            log.warning("Hanging up on %s: %s bytes of events wait to be read", request.remote, self._unread)
            if request.transport is not None:
                request.transport.abort()
            raise

    async def _next(self) -> bytes | None:
        try:
            event = await asyncio.wait_for(self._events.get(), self._heartbeat_secs)
        except TimeoutError:
            return self._heartbeat
        self._unread -= len(event or b"")
        return event


def line(event: dict[str, Any]) -> bytes:
    """An event in JSON, on one line, as some clients want it."""
    return json.dumps(event, separators=(",", ":")).encode()


async def write(response: web.StreamResponse, event: bytes) -> None:
    """One event as a record, in one piece."""
    await response.write(b"%d\n%s" % (len(event), event))
