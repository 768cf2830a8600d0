"""Mesos' v1 executor API as a client: calls and the stream of events, in JSON over HTTP.

The stream is RecordIO: the length of a record in decimal digits, a line feed, the record. Everything here blocks, and
is for a thread.
"""

import http.client
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

log = logging.getLogger(__name__)

PATH = "/slave(1)/api/v1/executor"
_CALL_SECS = 20.0
_RECORD_BYTES = 64 << 20  # longer is no record, but a length that went wrong
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


class ApiError(Exception):
    """The agent does not answer, or not as it should."""


class Api:
    """One executor's way to its agent."""

    def __init__(self, host: str, port: int, framework_id: str, executor_id: str) -> None:
        self._address = host, port
        self._identity = {"framework_id": {"value": framework_id}, "executor_id": {"value": executor_id}}
        self._stream: socket.socket | None = None

    def call(self, kind: str, **body: Any) -> None:
        """Make a call.

        :raises ApiError: the agent has not accepted it.
        """
        connection = http.client.HTTPConnection(*self._address, timeout=_CALL_SECS)
        try:
            with closing(connection):
                response = self._request(connection, kind, body)
                text = response.read(1000).decode(errors="replace")
                if response.status != 202:
                    raise ApiError(f"The agent answers {kind} with {response.status} {text}")
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ApiError(f"Failed to send {kind}: {error or type(error).__name__}") from None

    def subscribe(self, subscription: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Subscribe; the events, until the connection ends. One that is none is passed over, with a line in the log.

        :raises ApiError: the agent refuses, or the connection has ended.
        """
        connection = http.client.HTTPConnection(*self._address, timeout=_CALL_SECS)
        try:
            with closing(connection):
                connection.connect()
                self._stream = connection.sock
                response = self._request(connection, "SUBSCRIBE", {"subscribe": subscription})
                with closing(response):
                    if response.status != 200:
                        text = response.read(1000).decode(errors="replace")
                        raise ApiError(f"The agent answers SUBSCRIBE with {response.status} {text}")
                    self._stream.settimeout(None)  # there may be nothing to say for half an hour
                    yield from self._events(response)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ApiError(f"Disconnected from the agent: {error or type(error).__name__}") from None
        finally:
            self._stream = None

    def hang_up(self) -> None:
        """End the stream, from any thread."""
        if (stream := self._stream) is not None:
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def _request(
        self, connection: http.client.HTTPConnection, kind: str, body: dict[str, Any]
    ) -> http.client.HTTPResponse:
        connection.request("POST", PATH, json.dumps({"type": kind, **self._identity, **body}), _HEADERS)
        return connection.getresponse()

    @staticmethod
    def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
        while line := response.readline(32):
            length = line.strip()
            if not length.isdigit() or int(length) > _RECORD_BYTES:
                raise ApiError(f"Disconnected from the agent: {line!r} is not the length of a record")
            record = response.read(int(length))
            if len(record) < int(length):
                break
            try:
                event = json.loads(record)
            except (ValueError, RecursionError) as error:
                log.error("Ignoring an event that is not JSON: %s", error)
                continue
            if isinstance(event, dict):
                yield event
            else:
                log.error("Ignoring an event that is not an object: %s", record[:200])
        raise ApiError("Disconnected from the agent: the stream has ended")
