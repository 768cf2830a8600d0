"""Ethernet frames by hand, right in everything but what a test asks to be wrong."""

import struct
from dataclasses import dataclass
from ipaddress import ip_address

ICMP, TCP, UDP, GRE, ICMPV6 = 1, 6, 17, 47, 58
ETH_P_IP, ETH_P_ARP, ETH_P_8021Q, ETH_P_IPV6, ETH_P_EXPERIMENTAL = 0x0800, 0x0806, 0x8100, 0x86DD, 0x88B5
BROADCAST = b"\xff" * 6
MORE_FRAGMENTS = 0x2000
RECORD_ROUTE = bytes((7, 7, 4, 0, 0, 0, 0, 0))  # RFC 791: an option of seven bytes, and the end of the list
ECHO_REQUEST, ECHO_REPLY, UNREACHABLE, TIME_EXCEEDED = 8, 0, 3, 11
ECHO_REQUEST_6, ECHO_REPLY_6, UNREACHABLE_6, TOO_BIG_6 = 128, 129, 1, 2

_ETHERNET = struct.Struct("!6s6sH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_UDP = struct.Struct("!HHHH")
_TCP = struct.Struct("!HHIIBBHHH")
_ICMP = struct.Struct("!BBHHH")
_DESTINATION_OPTIONS, _FRAGMENT = 60, 44


@dataclass(frozen=True)
class Frame:
    """An IP packet on Ethernet, of the family that its source has.

    :param fragment: flags and offset (in units of 8 bytes) as IPv4's header has them; with an offset the frame has no
        transport header.
    :param options: IPv4 options; in IPv6 any put a header of destination options before the transport's.
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
    ethertype: int | None = None
    options: bytes = b""
    header_words: int | None = None
    fragment: int = 0
    identification: int = 1
    cut: int = 0

    def __bytes__(self) -> bytes:
        ethertype = self.ethertype or (ETH_P_IP if self.version == 4 else ETH_P_IPV6)
        frame = _ETHERNET.pack(self.mac, self.mac_source, ethertype) + self.packet
        return frame[: len(frame) - self.cut]

    @property
    def version(self) -> int:
        """4 or 6."""
        return ip_address(self.source).version

    @property
    def packet(self) -> bytes:
        """The frame behind its Ethernet header, without the cut."""
        body = self.payload if self.fragment & 0x1FFF else self._transport() + self.payload
        return self._ipv4(body) if self.version == 4 else self._ipv6(body)

    def _ipv4(self, body: bytes) -> bytes:
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
            ip_address(self.source).packed,
            ip_address(self.destination).packed,
        )
        sum_ = checksum(header + self.options)
        return header[:10] + struct.pack("!H", sum_) + header[12:] + self.options + body

    def _ipv6(self, body: bytes) -> bytes:
        following = self.protocol
        if self.options:
            body = struct.pack("!BBBB4x", following, 0, 1, 4) + body  # PadN
            following = _DESTINATION_OPTIONS
        if self.fragment:
            field = (self.fragment & 0x1FFF) << 3 | bool(self.fragment & MORE_FRAGMENTS)
            body = struct.pack("!BBHI", following, 0, field, self.identification) + body
            following = _FRAGMENT
        addresses = ip_address(self.source).packed, ip_address(self.destination).packed
        return _IPV6.pack(6 << 28, len(body), following, 64, *addresses) + body

    def _transport(self) -> bytes:
        if self.protocol == TCP:
            return _TCP.pack(self.source_port, self.destination_port, 1, 0, 5 << 4, 0x02, 65535, 0, 0)
        if self.protocol == UDP:  # checksum 0: none (RFC 768)
            return _UDP.pack(self.source_port, self.destination_port, _UDP.size + len(self.payload), 0)
        return b""


def icmp(kind: int, code: int = 0, identifier: int = 0, sequence: int = 0, data: bytes = b"") -> bytes:
    """An ICMP message (RFC 792) as a frame's payload; the checksum is ICMPv4's."""
    message = _ICMP.pack(kind, code, 0, identifier, sequence) + data
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def tagged(frame: bytes, vlan: int = 7) -> bytes:
    """The frame with an 802.1Q tag."""
    return frame[:12] + struct.pack("!HH", ETH_P_8021Q, vlan) + frame[12:]


def checksum(data: bytes) -> int:
    """RFC 1071; 0 over what contains its own."""
    total = sum(int(word) for (word,) in struct.iter_unpack("!H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
