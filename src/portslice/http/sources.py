"""Whom a connection comes from, for bounds that each has for itself.

Elsewhere an address is one. This host's own addresses are everybody's here, though: so a process is known by its user,
as the kernel tells it of the socket, and a container, whose sockets are not the host's, by the port that it sends from,
which is its own. What one container does costs others nothing, nor the host.
"""

import socket
from asyncio import BaseTransport
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from portslice.containers.container import Container
from portslice.errors import NetworkError
from portslice.network.sockdiag import SockDiag


class Source(NamedTuple):
    """One of those that are told apart.

    :param who: at an address of this host: what is known.
    """

    ip: str
    who: str = ""
    is_container: bool = False

    def __str__(self) -> str:
        return f"{self.who} at {self.ip}" if self.who else self.ip


class Sources:
    """Tells them apart.

    :param container: which container a port belongs to; None: unknown.
    """

    def __init__(self, container: Callable[[int], Container | None] = lambda _: None) -> None:
        self._container = container
        self._diag = SockDiag()

    def of(self, transport: BaseTransport) -> Source:
        """The other end of a TCP connection (IPv4)."""
        peer, own = (transport.get_extra_info(end) for end in ("peername", "sockname"))
        uid = None
        with suppress(NetworkError):
            uid = self._diag.owner(peer, own)
        if uid is not None:
            return Source(peer[0], f"a process of the user {uid}")
        if not is_own(peer[0]):
            return Source(peer[0])
        container = self._container(peer[1])
        return Source(peer[0], f"the container {container.id}" if container else "the container", is_container=True)


def is_own(ip: str) -> bool:
    """Whether it is an address of this host."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError:
            return False
        return True
