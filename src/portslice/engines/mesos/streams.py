"""Answers that do not end: events as records of RecordIO, each its length in decimal digits, a line's end and that many
bytes (Mesos' v1 scheduler and executor APIs).
"""

import asyncio
import json
from typing import Any

from aiohttp import web

_MAX_UNREAD = 10_000  # events


class Events:
    """Events on their way to a reader. One that reads too slowly is hung up on.

    :param heartbeat: the event that is sent when there was no other for so long.
    """

    def __init__(self, heartbeat: bytes, heartbeat_secs: float) -> None:
        self._heartbeat = heartbeat
        self._heartbeat_secs = heartbeat_secs
        self._ended = False
        self._events: asyncio.Queue[bytes | None] = asyncio.Queue()

    def put_bytes(self, event: bytes) -> None:
        """An event."""
        if self._events.qsize() >= _MAX_UNREAD:
            self.end()
        elif not self._ended:
            self._events.put_nowait(event)

    def end(self) -> None:
        """Let the stream end behind what was put."""
        if not self._ended:
            self._ended = True
            self._events.put_nowait(None)

    async def copy_to(self, response: web.StreamResponse) -> None:
        """Write events and heartbeats to their end."""
        while True:
            try:
                event = await asyncio.wait_for(self._events.get(), self._heartbeat_secs)
            except TimeoutError:
                event = self._heartbeat
            if event is None:
                return
            await write(response, event)


def line(event: dict[str, Any]) -> bytes:
    """An event in JSON, on one line, as some clients want it."""
    return json.dumps(event, separators=(",", ":")).encode()


async def write(response: web.StreamResponse, event: bytes) -> None:
    """One event as a record, in one piece."""
    await response.write(b"%d\n%s" % (len(event), event))
