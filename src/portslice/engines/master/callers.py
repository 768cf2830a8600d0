"""Who is at the other end of a connection.

A process of this host is known by its user: the kernel finds its socket in the network namespace of the master, where a
container's is not, although it has the same address. All others are known by their address alone.
"""

import os
from dataclasses import dataclass

from aiohttp import web

from portslice.http.sources import is_own
from portslice.network.sockdiag import SockDiag


@dataclass(frozen=True)
class Caller:
    """The other end.

    :param uid: of a process of this host.
    :param container: it claims an address of this host and is not among its processes.
    """

    ip: str
    uid: int | None
    container: bool

    @property
    def trusted(self) -> bool:
        """Root, or the master's own user, on this host."""
        return self.uid is not None and self.uid in (0, os.geteuid())

    def __str__(self) -> str:
        if self.uid is not None:
            return f"a process of the user {self.uid}"
        return f"a container, or {self.ip}" if self.container else self.ip


class Callers:
    """Looks them up."""

    def __init__(self) -> None:
        self._diag = SockDiag()

    def of(self, request: web.Request) -> Caller | None:
        """Who sends it; None if it is gone already."""
        if request.transport is None:
            return None
        peer, own = (request.transport.get_extra_info(end) for end in ("peername", "sockname"))
        uid = self._diag.owner(peer, own)
        return Caller(peer[0], uid, uid is None and is_own(peer[0]))
