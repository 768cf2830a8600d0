"""A container's output as it comes, as RecordIO: `<length>\\n<record>`, each record JSON in a chunk of its own.

    {"type": "DATA", "data": {"type": "STDOUT", "data": "aGkK"}}
    {"type": "CONTROL", "control": {"type": "HEARTBEAT", "heartbeat": {"interval": {"nanoseconds": 30000000000}}}}

The stream begins with what the container wrote first and ends with the container. Heartbeats tell a client which hears
nothing that somebody is still there.
"""

import base64
import json
import time
from typing import Any

from aiohttp import web

from portslice.agent.service import Agent
from portslice.http.operator.containers import find
from portslice.http.operator.protocol import JSON, RECORDIO
from portslice.http.output import STREAMS, followed


class Streams:
    """The calls that stream."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._interval = agent.flags.http_heartbeat_interval

    async def attach(self, request: web.Request, argument: dict[str, Any], *, recordio: bool) -> web.StreamResponse:
        """Stream to whoever asked, until either ends."""
        container = find(self._agent, argument)
        headers = {"Content-Type": RECORDIO, "Message-Content-Type": JSON} if recordio else {"Content-Type": JSON}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        beaten = time.monotonic()
        async with followed(self._agent, container, *STREAMS) as pieces:
            async for piece in pieces:
                if piece is not None:
                    await response.write(_record(_data(*piece)))
                if time.monotonic() - beaten >= self._interval.seconds:
                    beaten = time.monotonic()
                    await response.write(_record(_heartbeat(self._interval.ns)))
        return response


def _record(message: dict[str, Any]) -> bytes:
    text = json.dumps(message, separators=(",", ":")).encode()
    return b"%d\n%b" % (len(text), text)


def _data(stream: str, data: bytes) -> dict[str, Any]:
    return {"type": "DATA", "data": {"type": stream.upper(), "data": base64.b64encode(data).decode()}}


def _heartbeat(interval_ns: int) -> dict[str, Any]:
    interval = {"interval": {"nanoseconds": interval_ns}}
    return {"type": "CONTROL", "control": {"type": "HEARTBEAT", "heartbeat": interval}}
