"""The host's own sockets on local ports: who else takes the packets that a container's port is to get.

The data plane looks at ports alone. A socket of the host on a port that it gives to a container, on whatever address,
hears nothing more from then on, and what it sends comes back to the container. So sockets are looked for before a port
is given out (portslice.network.sockdiag). Which process holds a socket only /proc/PID/fd tells; that is looked up for
messages alone.

What lingers without a process, in TIME_WAIT or the FIN_WAIT2 before it, holds no port: it answers nobody who matters.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from glob import iglob
from pathlib import Path
from typing import NamedTuple

from portslice.network import sockdiag
from portslice.network.sockdiag import SockDiag
from portslice.ports import PortSet

_DATAGRAMS = (sockdiag.UDP, sockdiag.UDPLITE)
_STATES = sockdiag.ALL_STATES - {sockdiag.TIME_WAIT}
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
    with SockDiag() as diag:
        return sorted(found for found in _all(diag) if found.port in ports)


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


def _all(diag: SockDiag) -> Iterator[HostSocket]:
    """Of every protocol with ports."""
    for protocol in sockdiag.protocols():
        waiting = sockdiag.CLOSE if protocol in _DATAGRAMS else sockdiag.LISTEN
        try:
            for found in diag.sockets(protocol, states=_STATES):
                # What is in FIN_WAIT2 without a file is TIME_WAIT under the name of the state before.
                if found.port and (found.state != sockdiag.FIN_WAIT2 or found.inode):
                    yield HostSocket(found.port, protocol, found.state == waiting, found.inode)
        except sockdiag.NotListed:
            if protocol in sockdiag.ESSENTIAL:
                raise
