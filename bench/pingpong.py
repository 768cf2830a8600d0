"""Round trips: a few bytes there and back, with both ends in this one thread.

A socket belongs to the network namespace in which it was opened, so one thread can be both the world and a container.
On veth and loopback the kernel delivers a packet while its sender is still in the system call; so a round trip is four
system calls, the way of the packet there and back, and nothing else: no process is waited for, and no scheduler is in
the figure. The system calls and Python's share are in it; `floor` measures them alone.

Where its sockets happen to lie in memory makes one pair a percent or two faster than another, always. So every
measurement has a pair of its own, and the spread of many shows that, too.
"""

import socket
import statistics
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from portslice.network import namespaces

_TIMEOUT_SECS = 10.0
_PAYLOAD = b"ping" * 8
_WARM_UP = 20
_TRIPS = 100
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: no TIME-WAIT, which would use up a container's ports


class PingPong:
    """A connected pair of sockets. A context manager."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._client, self._server = client, server
        for each in (client, server):
            each.settimeout(_TIMEOUT_SECS)

    def __enter__(self) -> "PingPong":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both."""
        self._client.close()
        self._server.close()

    def trip(self) -> None:
        """There and back.

        :raises TimeoutError: something did not arrive.
        """
        self._client.send(_PAYLOAD)
        self._server.recv(64)
        self._server.send(_PAYLOAD)
        self._client.recv(64)

    def measure(self) -> float:
        """The median of some round trips, in microseconds."""
        for _ in range(_WARM_UP):
            self.trip()
        times = []
        for _ in range(_TRIPS):
            began = time.perf_counter_ns()
            self.trip()
            times.append(time.perf_counter_ns() - began)
        return statistics.median(times) / 1000


def udp(client: Path, server: Path, address: str, port: int) -> PingPong:
    """From one namespace to UDP `port` of `address`, which leads to the other."""
    with ExitStack() as opened:
        here = opened.enter_context(_opened(client, socket.SOCK_DGRAM))
        there = opened.enter_context(_opened(server, socket.SOCK_DGRAM))
        there.bind(("", port))
        there.settimeout(_TIMEOUT_SECS)
        here.connect((address, port))
        here.send(_PAYLOAD)
        _data, source = there.recvfrom(64)
        there.connect(source)
        opened.pop_all()
    return PingPong(here, there)


def tcp(client: Path, server: Path, address: str, port: int) -> PingPong:
    """The same over one TCP connection."""
    with ExitStack() as opened:
        here = opened.enter_context(_opened(client, socket.SOCK_STREAM))
        listener = opened.enter_context(_opened(server, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))
        listener.listen()
        listener.settimeout(_TIMEOUT_SECS)
        here.settimeout(_TIMEOUT_SECS)
        here.connect((address, port))
        there, _ = listener.accept()
        for each in (here, there):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        opened.pop_all()
        listener.close()
    return PingPong(here, there)


PROTOCOLS: dict[str, Callable[[Path, Path, str, int], PingPong]] = {"UDP": udp, "TCP": tcp}


def subject(protocol: str, client: Path, server: Path, address: str, port: int) -> Callable[[], float]:
    """What measures round trips, over sockets that are new each time."""

    def measure() -> float:
        with PROTOCOLS[protocol](client, server, address, port) as pair:
            return pair.measure()

    return measure


def floor() -> PingPong:
    """Without a network in between: what of a round trip is system calls and Python."""
    return PingPong(*socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))


def _opened(namespace: Path, kind: int) -> socket.socket:
    with namespaces.entered(namespace):
        return socket.socket(socket.AF_INET, kind)
