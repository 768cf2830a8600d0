"""The BPF maps in the words of the house: who owns a port, where a slot leads, what was refused and why.

The maps are memory shared with the programs (bpf/maps.h has the same layouts), so that handing out a block of a
thousand ports is one slice assignment and reading the drops of all containers costs no system call. They are pinned
below the agent's runtime directory, on a BPF file system of their own: an agent that starts again finds the maps that
the attached programs still use, and traffic never notices.
"""

import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

from portslice.errors import NetworkError
from portslice.network import bpf, namespaces
from portslice.ports import PortRange, PortSet

OBJECT = Path(__file__).with_name("portslice.bpf.o")
SLOTS = 4096
HOST = 0
CONTAINER_NIC_INDEX, CONTAINER_LOOPBACK_INDEX = 2, 1  # CONTAINER_NIC and CONTAINER_LOOPBACK in bpf/maps.h

REASONS = (
    "foreign_port",
    "foreign_source",
    "not_unicast",
    "unknown_fragment",
    "protocol",
    "not_ip",
    "malformed",
    "martian_source",
    "martian_destination",
    "neighbour",
    "foreign_icmp",
    "echo_clash",
    "echo_rate",
    "neighbour_rate",
    "incomplete_datagrams",
    "too_big",
    "unroutable",
    "host_loopback",
)

_OWN, _BROADCAST = b"\1", b"\2"  # enum address_kind in bpf/maps.h
_WITH_IPV6, _HOST_LOOPBACK_CLOSED = 1, 2  # struct config.flags
_CONFIG = struct.Struct("=II6s6sI6s2x")
_SLOT_WORDS = 4  # struct slot: ifindex, priority, shaped, unused
_REASONS_MAX = 32
_SAMPLE = struct.Struct("=Q16s16sHHB3x")
_DROPS_SIZE = _REASONS_MAX * (8 + _SAMPLE.size)

IPAddress = IPv4Address | IPv6Address


class DropSample(NamedTuple):
    """The last packet refused for a reason."""

    reason: str
    age_secs: float
    source: str
    source_port: int
    destination: str
    destination_port: int
    protocol: int


@dataclass(frozen=True)
class HostLinks:
    """The host's side of the data plane.

    :param loopback: interface index of the host's loopback.
    :param container_mac: of the NIC inside every container, as is `container_mtu`.
    :param ipv6: serve IPv6, too.
    :param host_loopback: let containers use services on the host's loopback.
    """

    loopback: int
    loopback_mac: bytes
    container_mac: bytes
    container_mtu: int
    ipv6: bool = True
    host_loopback: bool = True


class Slot(NamedTuple):
    """Where a slot leads.

    :param ifindex: host end of the container's veth.
    :param priority: skb->priority of its packets on the NIC (tc class id of its flow), or 0.
    :param shaped: what it receives passes the queues of the host end.
    """

    ifindex: int
    priority: int = 0
    shaped: bool = False


class DataPlane:
    """The loaded programs and their maps."""

    def __init__(self, pins: Path, priority: int) -> None:
        """Load the programs, reusing the maps pinned in `pins`.

        :param priority: traffic-control priority of this agent's filters; another agent on the host uses another.
        """
        if not OBJECT.exists():
            raise NetworkError(f"The BPF programs are not compiled ('{OBJECT}' is missing): run script/setup")
        self.is_new = _mount_pins(pins)
        self.pins = pins
        self.priority = priority
        self._object = bpf.Object(OBJECT, pins)
        self._owners = self._object.memory("port_owner", 65536 * 8).cast("Q")
        self._slots = self._object.memory("slots", SLOTS * 4 * _SLOT_WORDS).cast("I")
        self._drops = self._object.memory("drops", SLOTS * _DROPS_SIZE)
        self._config = self._object.memory("config", _CONFIG.size)

    def configure(self, links: HostLinks) -> None:
        """Tell the programs the host's interfaces."""
        examined = b"\x02PS\0" + self.priority.to_bytes(2, "big")  # another agent's data plane has another one
        flags = (_WITH_IPV6 if links.ipv6 else 0) | (0 if links.host_loopback else _HOST_LOOPBACK_CLOSED)
        self._config[:] = _CONFIG.pack(
            flags, links.loopback, links.loopback_mac, links.container_mac, links.container_mtu, examined
        )

    def set_host_addresses(self, own: Iterable[IPAddress], broadcast: Iterable[IPv4Address]) -> None:
        """Tell the programs the host's addresses; additions first, so that none is missing meanwhile.

        :param broadcast: the broadcast addresses of the networks that the host is on.
        """
        table = self._object.map("host_addresses")
        kinds = {_mapped(address): _BROADCAST for address in broadcast} | {_mapped(address): _OWN for address in own}
        for address, kind in kinds.items():
            bpf.update(table, address, kind)
        for address in set(bpf.keys(table, 16)) - set(kinds):
            bpf.delete(table, address)

    # Slots

    def open_slot(self, slot: int, entry: Slot) -> None:
        """Let a slot lead to a container; its ports are given apart."""
        at = _SLOT_WORDS * slot
        # The link last: from then on the slot is open.
        self._slots[at + 1], self._slots[at + 2] = entry.priority, entry.shaped
        self._slots[at] = entry.ifindex
        bpf.update(self._object.map("slot_by_ifindex"), struct.pack("=I", entry.ifindex), struct.pack("=I", slot))

    def slot(self, slot: int) -> Slot | None:
        """Where a slot leads; None if it is free."""
        ifindex, priority, shaped, _ = self._slots[_SLOT_WORDS * slot : _SLOT_WORDS * (slot + 1)]
        return Slot(ifindex, priority, bool(shaped)) if ifindex else None

    def close_slot(self, slot: int) -> None:
        """Take the slot's ports and way back; for the next container, its counters and memories start anew."""
        self.give(self.ports(slot), HOST)
        bpf.delete(self._object.map("slot_by_ifindex"), struct.pack("=I", self._slots[_SLOT_WORDS * slot]))
        for word in range(_SLOT_WORDS):
            self._slots[_SLOT_WORDS * slot + word] = 0
        self._drops[slot * _DROPS_SIZE : (slot + 1) * _DROPS_SIZE] = bytes(_DROPS_SIZE)
        for memory in ("sent_datagrams", "spending"):
            self._object.zero(memory, slot)

    # Ports

    def ports(self, slot: int) -> PortSet:
        """The ports that belong to a slot."""
        # A search in the bytes, not a loop over all ports: it takes a fifth of the time.
        wanted, owners = struct.pack("=Q", slot), self._owners.tobytes()
        ranges = []
        at = owners.find(wanted)
        while at >= 0:
            begin, misaligned = divmod(at, 8)
            if misaligned:
                at = owners.find(wanted, at + 1)
                continue
            while owners.startswith(wanted, at):
                at += 8
            ranges.append(PortRange(begin, at // 8 - 1))
            at = owners.find(wanted, at)
        return PortSet(ranges)

    def give(self, ports: PortSet, slot: int) -> None:
        """Make `slot` (or HOST) the owner of `ports`."""
        for ports_range in ports.ranges:
            size = ports_range.end - ports_range.begin + 1
            owned = memoryview(struct.pack("=Q", slot) * size).cast("Q")
            self._owners[ports_range.begin : ports_range.end + 1] = owned

    # Drops

    def drops(self, slot: int) -> dict[str, int]:
        """Refused packets by reason since the slot was opened; only reasons that occurred."""
        at = slot * _DROPS_SIZE
        counts = self._drops[at : at + 8 * _REASONS_MAX].cast("Q")
        return {reason: count for reason, count in zip(REASONS, counts, strict=False) if count}

    def drop_samples(self, slot: int) -> list[DropSample]:
        """The last refused packet of each reason."""
        samples = (self.drop_sample(slot, reason) for reason in REASONS)
        return [sample for sample in samples if sample is not None]

    def drop_sample(self, slot: int, reason: str) -> DropSample | None:
        """The last packet refused for a reason; None if there is none."""
        at = slot * _DROPS_SIZE + 8 * _REASONS_MAX + REASONS.index(reason) * _SAMPLE.size
        when, saddr, daddr, sport, dport, protocol = _SAMPLE.unpack(self._drops[at : at + _SAMPLE.size])
        if not when:
            return None
        age = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - when) / 1e9
        return DropSample(reason, age, _text(saddr), sport, _text(daddr), dport, protocol)

    # Programs

    def attach(self, ifindex: int, point: int, program: str) -> None:
        """Put a program on a clsact hook of an interface in the calling thread's network namespace."""
        bpf.create_clsact(ifindex)
        bpf.attach(ifindex, point, self._object.program(program), self.priority)

    def attached(self, ifindex: int, point: int, program: str) -> bool:
        """Whether this program sits on the hook, as it is in this version of the agent."""
        return bpf.attached(ifindex, point, self.priority) == bpf.tag(self._object.program(program))

    def detach(self, ifindex: int, point: int) -> None:
        """Take our program from the hook. The clsact qdisc stays: others may use it."""
        bpf.detach(ifindex, point, self.priority)

    def close(self, *, remove: bool = False) -> None:
        """Let go of the programs and maps; with `remove` unpin them as well: the data plane is gone."""
        for view in (self._owners, self._slots, self._drops, self._config):
            view.release()
        self._object.close()
        if remove:
            namespaces.unmount(self.pins)
            self.pins.rmdir()


def _mapped(address: IPAddress) -> bytes:
    """struct address of bpf/maps.h."""
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def _text(address: bytes) -> str:
    found = IPv6Address(address)
    return str(found.ipv4_mapped or found)


def _mount_pins(pins: Path) -> bool:
    """Whether the BPF file system was not there before."""
    pins.mkdir(parents=True, exist_ok=True)
    if pins.is_mount():
        return False
    namespaces.mount("bpf", pins, "bpf")
    return True
