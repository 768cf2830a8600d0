"""The agent over its Unix socket."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from portslice.errors import PortsliceError

_BASE = "/portslice/v1/containers"
_CHUNK = 1 << 16


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.connect(str(self._path))
        except FileNotFoundError:
            raise PortsliceError(
                f"No agent listens on '{self._path}': start one (portslice agent --help), or name its socket (--socket)"
            ) from None
        except ConnectionRefusedError:
            raise PortsliceError(f"The agent at '{self._path}' has stopped; its containers go on") from None
        except PermissionError:
            raise PortsliceError(
                f"You may not use '{self._path}': it is for root and the socket's group (--socket_group of the agent)"
            ) from None


class Client:
    """Requests to one agent. Every failure is a PortsliceError that says what to do."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    def launch(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start a container."""
        return _object(self._json("POST", _BASE, request))

    def containers(self) -> list[dict[str, Any]]:
        """All containers."""
        return list(self._json("GET", _BASE))

    def container(self, name: str) -> dict[str, Any]:
        """One container, by name or id."""
        return _object(self._json("GET", _of(name)))

    def statistics(self, name: str) -> dict[str, Any]:
        """Identity, ResourceStatistics and drops of a living container."""
        return _object(self._json("GET", _of(name, "statistics")))

    def kill(self, name: str, signal: str) -> dict[str, Any]:
        """Signal a container."""
        return _object(self._json("POST", _of(name, "kill"), {"signal": signal}))

    def wait(self, name: str) -> dict[str, Any]:
        """Wait for a container's end.

        :raises ConnectionError, http.client.HTTPException: the agent stopped meanwhile.
        """
        return _object(self._json("GET", _of(name, "wait")))

    def output(self, name: str, stream: str, offset: int) -> Iterator[bytes]:
        """The bytes of `stdout` or `stderr` from `offset` on, as they come, to the container's end.

        :raises ConnectionError, http.client.HTTPException: the agent stopped meanwhile.
        """
        connection = _Connection(self._path)
        try:
            connection.request("GET", f"{_of(name, stream)}?offset={offset}")
            response = connection.getresponse()
            while data := response.read1(_CHUNK):
                yield data
        finally:
            connection.close()

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        connection = _Connection(self._path)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        try:
            answer = json.loads(text)
        except ValueError:
            raise PortsliceError(f"The agent answered {response.status}: {text.strip()}") from None
        if response.status >= 400:
            raise PortsliceError(answer.get("error", text))
        return answer


def _object(answer: Any) -> dict[str, Any]:
    return dict(answer)


def _of(name: str, what: str = "") -> str:
    return f"{_BASE}/{quote(name, safe='')}" + (f"/{what}" if what else "")
