"""Who is at the other end of the Unix socket, and may they change the host?

Root and the socket's group may; the file's mode keeps others out, and the credentials that the kernel vouches for
(unix(7), SO_PEERCRED) say whom a container runs as. A process inside one of our containers may never, even as uid 0:
it is known by its PID namespace, a child of the agent's, which it cannot leave.
"""

import socket
import struct
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from portslice.errors import AccessError


class Peer(NamedTuple):
    """The process at the other end."""

    pid: int
    uid: int
    gid: int


def peer_of(request: web.Request) -> Peer:
    """The caller.

    :raises AccessError: it lives in a container, or is gone already.
    """
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is None or connection.family != socket.AF_UNIX:
        raise AccessError("This needs the agent's Unix socket")
    peer = Peer(*struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
    if _pid_namespace_depth(peer.pid) != 1:
        raise AccessError("A process inside a container may not use the agent's socket")
    return peer


def _pid_namespace_depth(pid: int) -> int:
    """1 in the agent's own PID namespace, more in those below; 0 if the process is gone or beyond our sight."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(numbers)
