"""The agent over its Unix socket."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from portslice.errors import PortsliceError

_ROOT = "/portslice/v1"
_BASE = f"{_ROOT}/containers"
_CHUNK = 1 << 16


class AgentGoneError(PortsliceError):
    """No agent listens, or it stopped before it answered. Containers go on, and the next agent knows them."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.connect(str(self._path))
        except FileNotFoundError:
            raise AgentGoneError(
                f"No agent listens on '{self._path}': start one (portslice agent --help), or name its socket (--socket)"
            ) from None
        except ConnectionRefusedError:
            raise AgentGoneError(f"The agent at '{self._path}' has stopped; its containers go on") from None
        except PermissionError:
            raise PortsliceError(
                f"You may not use '{self._path}': it is for root and the socket's group (--socket_group of the agent)"
            ) from None
        except OSError as error:
            raise PortsliceError(f"'{self._path}' is no socket of an agent: {error.strerror or error}") from None


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

    def overview(self) -> list[dict[str, Any]]:
        """All living containers at a glance (portslice.overview)."""
        return list(self._json("GET", "/overview"))

    def version(self) -> str:
        """The agent's."""
        return str(self._json("GET", "/version")["portslice_version"])

    def update(self, name: str, change: dict[str, Any]) -> dict[str, Any]:
        """Change a running container."""
        return _object(self._json("PATCH", _of(name), change))

    def drops(self, name: str | None = None) -> list[dict[str, Any]]:
        """Refused packets of one container, or of all and the host, by container and reason."""
        return list(self._json("GET", f"{_ROOT}/drops" + (f"?container={quote(name, safe='')}" if name else "")))

    def kill(self, name: str, signal: str) -> dict[str, Any]:
        """Signal a container."""
        return _object(self._json("POST", _of(name, "kill"), {"signal": signal}))

    def wait(self, name: str) -> dict[str, Any]:
        """Wait for a container's end."""
        return _object(self._json("GET", _of(name, "wait")))

    def output(self, name: str, stream: str, offset: int) -> Iterator[bytes]:
        """The bytes of `stdout` or `stderr` from `offset` on, as they come, to the container's end."""
        with self._answer("GET", f"{_of(name, stream)}?offset={offset}") as answer:
            while data := answer.read1(_CHUNK):
                yield data

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        with self._answer(method, path, body) as answer:
            text = answer.read()
        try:
            return json.loads(text)
        except ValueError:
            raise PortsliceError(f"The agent answered: {text.decode(errors='replace').strip()}") from None

    @contextmanager
    def _answer(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _Connection(self._path)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            if answer.status >= 400:
                raise PortsliceError(_reason(answer))
            yield answer
        except (ConnectionError, http.client.HTTPException) as error:
            raise AgentGoneError(f"The agent at '{self._path}' has stopped; its containers go on") from error
        finally:
            connection.close()


def _reason(answer: http.client.HTTPResponse) -> str:
    text = answer.read().decode(errors="replace")
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return f"The agent answered {answer.status}: {text.strip()}"


def _object(answer: Any) -> dict[str, Any]:
    return dict(answer)


def _of(name: str, what: str = "") -> str:
    return f"{_BASE}/{quote(name, safe='')}" + (f"/{what}" if what else "")
