"""Both ends of a conversation, in namespaces of the test's choice.

A socket belongs for good to the namespace in which it was made (socket(7)), so the test process itself speaks for the
world, the host and the containers at once, and no party needs a process of its own.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from portslice.network import namespaces

TIMEOUT_SECS = 60.0  # an emulated machine is slow
ETH_P_ALL = 3
_PACKET_OUTGOING = 4
_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}

Address = tuple[str, int]


def open_socket(
    namespace: Path, protocol: str, bind: Address | None = None, connect: Address | None = None
) -> socket.socket:
    """A "tcp", "udp" or "sctp" socket in `namespace`; for IPv6 if an address is of it."""
    six = any(":" in address[0] for address in (bind, connect) if address is not None)
    with namespaces.entered(namespace):
        opened = socket.socket(socket.AF_INET6 if six else socket.AF_INET, *_KINDS[protocol])
    try:
        opened.settimeout(TIMEOUT_SECS)
        if bind is not None:
            if protocol != "udp":
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(bind)
        if connect is not None:
            opened.connect(connect)
    except BaseException:
        opened.close()
        raise
    return opened


def listen(namespace: Path, protocol: str, address: Address) -> socket.socket:
    """A socket that waits for `protocol` on `address` ("" is every one)."""
    opened = open_socket(namespace, protocol, bind=address)
    if protocol != "udp":
        opened.listen(1024)
    return opened


def open_link(namespace: Path, interface: str) -> socket.socket:
    """A socket for raw frames on an interface (packet(7)): it sends any and sees all."""
    with namespaces.entered(namespace):
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        opened.bind((interface, 0))
    opened.settimeout(TIMEOUT_SECS)
    return opened


def sniff_until(link: socket.socket, marker: bytes) -> list[bytes]:
    """The frames that arrived on a link, up to the one that contains `marker`."""
    frames: list[bytes] = []
    while not frames or marker not in frames[-1]:
        frame, (_, _, kind, *_) = link.recvfrom(65535)
        if kind != _PACKET_OUTGOING:
            frames.append(frame)
    return frames


def is_silent(waiting: socket.socket) -> bool:
    """Whether nothing has arrived at a socket, no connection either."""
    waiting.setblocking(False)
    try:
        if waiting.type == socket.SOCK_STREAM:
            waiting.accept()[0].close()
        else:
            waiting.recv(1)
    except BlockingIOError:
        return True
    finally:
        waiting.settimeout(TIMEOUT_SECS)
    return False


@contextmanager
def accepted(listener: socket.socket) -> Iterator[tuple[socket.socket, Address]]:
    """The next connection of a TCP listener, and who it is from."""
    connection, address = listener.accept()
    with connection:
        connection.settimeout(TIMEOUT_SECS)
        yield connection, address


def talk_tcp(listener: socket.socket, client: socket.socket, target: Address, bulk: int) -> Address:
    """Connect; a few bytes and then `bulk` ones both ways at once, all of which must arrive.

    :return: the client's address as its server saw it.
    """
    client.connect(target)
    with accepted(listener) as (server, (host, port, *_)):
        for sender, receiver in ((client, server), (server, client)):
            sender.sendall(b"hello")
            assert _receive(receiver, 5) == b"hello"
        data = os.urandom(bulk)
        received: dict[str, bytes] = {}
        work = (
            Thread(target=client.sendall, args=(data,)),
            Thread(target=server.sendall, args=(data,)),
            Thread(target=lambda: received.update(server=_receive(server, bulk))),
        )
        for thread in work:
            thread.start()
        received["client"] = _receive(client, bulk)
        for thread in work:
            thread.join()
        assert received == {"server": data, "client": data}
    return host, port


def talk_udp(server: socket.socket, client: socket.socket, target: Address, size: int) -> Address:
    """A datagram of `size` bytes there and back.

    :return: the client's address as its server saw it.
    """
    data = os.urandom(size)
    client.sendto(data, target)
    received, seen = server.recvfrom(65535)
    assert received == data
    server.sendto(data, seen)
    received, answered = client.recvfrom(65535)
    assert received == data
    assert answered[:2] == target
    return str(seen[0]), int(seen[1])


def _receive(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(1 << 18)
        if not part:
            break
        data += part
    return bytes(data)
