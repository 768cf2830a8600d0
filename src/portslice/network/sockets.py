"""The host's own sockets on local ports: who else takes the packets that a container's port is to get.

The data plane looks at ports alone. A socket of the host on a port that it gives to a container, on whatever address,
hears nothing more from then on, and what it sends comes back to the container. So sockets are looked for before a port
is given out. The kernel lists them by sock_diag(7), as ss(8) reads it: 10,000 of TCP take 9 ms, where the text of
/proc/net/tcp takes 22, and from Linux 6.8 on those are among them that are bound but neither listen nor connect.
Which process holds a socket only /proc/PID/fd tells; that is looked up for messages alone.

What lingers without a process, in TIME_WAIT or the FIN_WAIT2 before it, holds no port: it answers nobody who matters.
"""

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from glob import iglob
from pathlib import Path
from typing import NamedTuple

from portslice.errors import NetworkError
from portslice.network.netlink import DUMP, Netlink
from portslice.ports import PortSet

_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = struct.Struct("=BBBxI48x")  # inet_diag_req_v2: family, protocol, extensions, states, id
_MESSAGE = struct.Struct("=BBxxH62xI")  # inet_diag_msg: family, state, source port, inode; of the rest nothing
_FIN_WAIT2, _TIME_WAIT, _CLOSE, _LISTEN = 5, 6, 7, 10  # include/net/tcp_states.h
_STATES = 0xFFFFFFFF & ~(1 << _TIME_WAIT)
_STREAMS = {"tcp": socket.IPPROTO_TCP}
_DATAGRAMS = {"udp": socket.IPPROTO_UDP, "udplite": socket.IPPROTO_UDPLITE}
_SCTP = {"sctp": socket.IPPROTO_SCTP}
SHOWN = 8


class HostSocket(NamedTuple):
    """A socket that holds a local port.

    :param port: the local one.
    :param protocol: tcp, udp, udplite or sctp.
    :param waits: it listens, or takes datagrams from anybody; else it belongs to a connection, or is only bound.
    :param inode: 0 if no process has it any more.
    """

    port: int
    protocol: str
    waits: bool
    inode: int

    def __str__(self) -> str:
        return f"{self.protocol} {self.port}"


def held(ports: PortSet) -> list[HostSocket]:
    """The sockets in the calling thread's network namespace that hold one of these ports, by port and protocol.

    :raises NetworkError: the kernel does not list its sockets.
    """
    with _SockDiag() as diag:
        return sorted(found for found in diag.sockets() if found.port in ports)


def ports_of(sockets: Iterable[HostSocket]) -> PortSet:
    """The ports that these sockets hold."""
    return PortSet.of(found.port for found in sockets)


def describe(sockets: Collection[HostSocket]) -> str:
    """`tcp 31005 (nginx, pid 417), udp 40000`: each port and protocol once, with its processes as far as the caller may
    know them; at most eight, and how many more."""
    inodes: dict[str, set[int]] = {}
    for found in sockets:
        inodes.setdefault(str(found), set()).add(found.inode)
    shown = dict(list(inodes.items())[:SHOWN])
    holders = _processes({inode for each in shown.values() for inode in each} - {0})
    texts = []
    for name, owned in shown.items():
        processes = sorted({process for inode in owned for process in holders.get(inode, ())})
        texts.append(name + (f" ({', '.join(processes[:2])})" if processes else ""))
    if len(inodes) > SHOWN:
        texts.append(f"and {len(inodes) - SHOWN} more")
    return ", ".join(texts)


def _processes(inodes: Collection[int]) -> dict[int, list[str]]:
    """`NAME, pid N` of the processes that have these sockets open."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, list[str]] = {}
    for path in iglob("/proc/[0-9]*/fd/*") if wanted else ():
        with suppress(OSError):  # it has ended, or is somebody else's
            if (inode := wanted.get(os.readlink(path))) is not None:
                process = Path(path).parents[1]
                found.setdefault(inode, []).append(f"{(process / 'comm').read_text().strip()}, pid {process.name}")
    return found


class _SockDiag(Netlink):
    _family = 4  # NETLINK_SOCK_DIAG

    def sockets(self) -> Iterator[HostSocket]:
        """Of every protocol with ports."""
        protocols = _STREAMS | _DATAGRAMS
        if Path("/proc/thread-self/net/sctp").exists():
            protocols |= _SCTP  # asked for otherwise, it would load a protocol that the host does without
        for name, protocol in protocols.items():
            for family in (socket.AF_INET, socket.AF_INET6):
                yield from self._dump(name, protocol, family)

    def _dump(self, name: str, protocol: int, family: int) -> Iterator[HostSocket]:
        waiting = _CLOSE if name in _DATAGRAMS else _LISTEN
        try:
            for message in self._request(_SOCK_DIAG_BY_FAMILY, DUMP, _REQUEST.pack(family, protocol, 0, _STATES)):
                _, state, port, inode = _MESSAGE.unpack_from(message)
                # What is in FIN_WAIT2 without a file is TIME_WAIT under the name of the state before.
                if port and (state != _FIN_WAIT2 or inode):
                    yield HostSocket(socket.ntohs(port), name, state == waiting, inode)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise NetworkError(f"The kernel does not list its {name} sockets: {error.strerror}") from error
            if name in ("tcp", "udp"):
                raise NetworkError(f"The kernel does not list its {name} sockets: modprobe {name}_diag") from error
