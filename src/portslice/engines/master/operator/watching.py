"""SUBSCRIBE: the state, and then what happens, as it happens.

Anybody who may read may watch, so watchers are few and what waits for each is little: one too many takes the place of
the one that has watched longest, and one that does not read is hung up on.
"""

import logging
from typing import Any

from aiohttp import web

from portslice.engines.master.cluster import Cluster
from portslice.engines.master.operator.answers import Answer, Answers, event_json
from portslice.engines.mesos.streams import Events, line

log = logging.getLogger(__name__)

MOST_WATCHERS = 32
_MOST_UNREAD = 4 << 20  # bytes
_HEARTBEAT_SECS = 15.0
_HEARTBEAT = line({"type": "HEARTBEAT"})


class Watching:
    """All who watch."""

    def __init__(self, cluster: Cluster, answers: Answers) -> None:
        self._cluster = cluster
        self._answers = answers
        self._streams: list[Events] = []
        cluster.watchers.append(self._tell)

    async def stream(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        """Tell whoever asks, until either ends."""
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        stream = Events(_HEARTBEAT, _HEARTBEAT_SECS, _MOST_UNREAD)
        stream.put_first(line({"type": "SUBSCRIBED", "subscribed": self._subscribed()}))
        stream.put_bytes(_HEARTBEAT)
        self._streams.append(stream)
        if len(self._streams) > MOST_WATCHERS:
            log.warning("More than %s watch: hanging up on the one that has watched longest", MOST_WATCHERS)
            self._streams.pop(0).cut()
        try:
            await stream.copy_to(request, response)
        except OSError:
            pass
        finally:
            if stream in self._streams:
                self._streams.remove(stream)
        return response

    def _subscribed(self) -> Answer:
        return {"get_state": self._answers.state(), "heartbeat_interval_seconds": _HEARTBEAT_SECS}

    def _tell(self, kind: str, subject: Any) -> None:
        if self._streams:
            event = line(event_json(kind, subject))
            for stream in self._streams:
                stream.put_bytes(event)
