"""A lean netlink socket: requests are packed by hand, and of an answer only the frame and attributes are decoded here.

It stays in the network namespace in which it was opened. Layouts: netlink(7), linux/netlink.h.
"""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from portslice.network import namespaces

ACK, ECHO, DUMP = 0x4, 0x8, 0x300
_REQUEST = 0x1
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of every attribute in `data`."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[at + _ATTRIBUTE.size : at + length]
        at += -(-length // 4) * 4


class Netlink:
    """A socket to one netlink family of one network namespace. Not for several threads at once."""

    _family: int

    def __init__(self, namespace: Path | None = None) -> None:
        """Open it in `namespace`, or in the calling thread's own."""
        if namespace is None:
            self._socket = self._open()
        else:
            with namespaces.entered(namespace):
                self._socket = self._open()
        self._socket.bind((0, 0))
        self._sequence = 0

    def _open(self) -> socket.socket:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self._family)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _request(self, message: int, flags: int, body: bytes) -> Iterator[bytes]:
        """The payload of every message of the answer.

        :raises OSError: what the kernel answered, or why it could not finish a dump.
        """
        self._sequence += 1
        sequence = self._sequence
        header = _HEADER.pack(_HEADER.size + len(body), message, flags | _REQUEST, sequence, 0)
        self._socket.send(header + body)
        while True:
            data = self._socket.recv(1 << 16)
            at = 0
            while at < len(data):
                length, kind, _flags, answered, _port = _HEADER.unpack_from(data, at)
                payload = data[at + _HEADER.size : at + length]
                at += -(-length // 4) * 4
                if answered != sequence:
                    continue  # left over from a request whose reader gave up
                if kind in (_DONE, _ERROR):
                    (code,) = struct.unpack_from("=i", payload)
                    if code < 0:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield payload
                if not flags & (DUMP | ACK):
                    return
