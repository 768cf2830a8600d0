"""The agent's TCP port as a host process reaches it, and its Unix socket."""

import http.client
import io
import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from portslice.demo.node import Node
from portslice.network import namespaces

PORT = 5051
_PATIENCE_SECS = 60.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def connection(agent: Node, port: int = PORT) -> http.client.HTTPConnection:
    """A connection for any number of requests."""
    with namespaces.entered(agent.bed.host):
        opened = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECS)
        opened.connect()
    return opened


def ask(
    agent: Node, path: str, method: str = "GET", body: bytes | str | None = None, *, port: int = PORT, **headers: str
) -> Answer:
    """One request. `_` in the name of a header means `-`."""
    with closing(connection(agent, port)) as opened:
        return ask_over(opened, path, method, body, **headers)


def ask_over(
    opened: http.client.HTTPConnection, path: str, method: str = "GET", body: bytes | str | None = None, **headers: str
) -> Answer:
    """One of several requests over a connection."""
    opened.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = opened.getresponse()
    return Answer(response.status, dict(response.getheaders()), response.read())


def connection_over_socket(agent: Node) -> http.client.HTTPConnection:
    """As `connection`, to the agent's Unix socket."""
    opened = http.client.HTTPConnection("localhost")
    opened.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.sock.settimeout(_PATIENCE_SECS)
    opened.sock.connect(str(agent.socket))
    return opened


def over_socket(
    agent: Node, path: str, method: str = "GET", body: bytes | str | None = None, **headers: str
) -> Answer:
    """As `ask`, over the agent's Unix socket."""
    with closing(connection_over_socket(agent)) as opened:
        return ask_over(opened, path, method, body, **headers)


@contextmanager
def wire(agent: Node) -> Iterator[socket.socket]:
    """A bare connection, for what http.client would not send."""
    with namespaces.entered(agent.bed.host):
        opened = socket.create_connection(("127.0.0.1", PORT), timeout=_PATIENCE_SECS)
    with opened:
        yield opened


class _Stream(io.BufferedReader):
    """What a bare connection receives; HTTPResponse would close it behind the first answer."""

    def makefile(self, _mode: str) -> "_Stream":
        return self

    def close(self) -> None:
        pass


def answers(opened: socket.socket, *methods: str) -> Iterator[Answer]:
    """The answers to requests of these methods that were sent over a bare connection."""
    stream = _Stream(socket.SocketIO(opened, "r"))
    for method in methods:
        response = http.client.HTTPResponse(stream, method=method)  # type: ignore[arg-type]
        response.begin()
        yield Answer(response.status, dict(response.getheaders()), response.read())
