"""Ethernet frames by hand, right in everything but what a test asks to be wrong."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

TCP, UDP, GRE = 6, 17, 47
ETH_P_IP, ETH_P_ARP, ETH_P_8021Q, ETH_P_IPV6, ETH_P_EXPERIMENTAL = 0x0800, 0x0806, 0x8100, 0x86DD, 0x88B5
BROADCAST = b"\xff" * 6
MORE_FRAGMENTS = 0x2000
RECORD_ROUTE = bytes((7, 7, 4, 0, 0, 0, 0, 0))  # RFC 791: an option of seven bytes, and the end of the list

_ETHERNET = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_TCP = struct.Struct("!HHIIBBHHH")


@dataclass(frozen=True)
class Frame:
    """An IPv4 packet on Ethernet.

    :param fragment: flags and offset (in units of 8 bytes) as the header has them; with an offset the frame has no
        transport header.
    :param cut: bytes cut off at the end, though the headers still promise them.
    """

    source: str
    destination: str
    source_port: int
    destination_port: int
    payload: bytes = b""
    protocol: int = UDP
    mac: bytes = bytes(6)
    mac_source: bytes = bytes.fromhex("0200000000fe")
    ethertype: int = ETH_P_IP
    options: bytes = b""
    header_words: int | None = None
    fragment: int = 0
    identification: int = 1
    cut: int = 0

    def __bytes__(self) -> bytes:
        body = self.payload if self.fragment & 0x1FFF else self._transport() + self.payload
        words = self.header_words if self.header_words is not None else 5 + len(self.options) // 4
        header = _IPV4.pack(
            0x40 | words,
            0,
            _IPV4.size + len(self.options) + len(body),
            self.identification,
            self.fragment,
            64,
            self.protocol,
            0,
            IPv4Address(self.source).packed,
            IPv4Address(self.destination).packed,
        )
        checksum = _checksum(header + self.options)
        header = header[:10] + struct.pack("!H", checksum) + header[12:]
        frame = _ETHERNET.pack(self.mac, self.mac_source, self.ethertype) + header + self.options + body
        return frame[: len(frame) - self.cut]

    def _transport(self) -> bytes:
        if self.protocol == TCP:
            return _TCP.pack(self.source_port, self.destination_port, 1, 0, 5 << 4, 0x02, 65535, 0, 0)
        if self.protocol == UDP:  # checksum 0: none (RFC 768)
            return _UDP.pack(self.source_port, self.destination_port, _UDP.size + len(self.payload), 0)
        return b""


def tagged(frame: bytes, vlan: int = 7) -> bytes:
    """The frame with an 802.1Q tag."""
    return frame[:12] + struct.pack("!HH", ETH_P_8021Q, vlan) + frame[12:]


def _checksum(data: bytes) -> int:
    total = sum(int(word) for (word,) in struct.iter_unpack("!H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
