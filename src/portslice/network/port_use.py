"""How many ports of its ephemeral block a container holds: when all are taken, it cannot connect any more.

Every local port counts that a socket of the container has, of any protocol with ports, over IPv4 or IPv6; also what
lingers in TIME_WAIT, which is what a container that makes many short connections runs out of ports by. A port counts
once, to however many destinations it is used. Before Linux 6.8 the kernel does not list a socket of TCP that is bound
but neither listens nor connects.

The kernel goes through the table of all the host's connections for each container (portslice.network.sockdiag), so this
is nothing for a request: the caller decides how much of it the host can bear.
"""

from pathlib import Path

from portslice.network import namespaces, sockdiag
from portslice.network.sockdiag import NotListed, SockDiag
from portslice.ports import PortRange


def in_use(namespace: Path, block: PortRange) -> int:
    """How many ports of the block sockets in the namespace hold.

    :raises OSError, NetworkError: the namespace has gone; the kernel does not list its sockets.
    """
    with namespaces.entered(namespace):
        return held(block)


def held(block: PortRange) -> int:
    """The same for the calling thread's own namespace."""
    found: set[int] = set()
    with SockDiag() as diag:
        for protocol in sockdiag.protocols():
            try:
                for port in diag.ports(protocol, block):
                    found.add(port)
                    if len(found) == len(block):
                        return len(found)
            except NotListed:
                if protocol in sockdiag.ESSENTIAL:
                    raise
    return len(found)
