"""The classifiers' verdicts on golden packets (BPF_PROG_TEST_RUN): a table for each program.

The kernel runs a program on a packet, writes to the maps and returns the verdict, but redirects nothing. Where a
packet would have gone shows in what the program did to it: a `priority` for the world, the loopback's MAC address for
the host. skb->pkt_type follows from the MAC addresses of the frame and of the device, as on the wire.
"""

import ctypes
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from portslice.network import bpf, namespaces
from portslice.network.dataplane import HOST, OBJECT, DataPlane, HostLinks, Slot
from portslice.network.host import routes
from portslice.ports import PortSet
from tests.kernel import peer
from tests.kernel.frames import (
    BROADCAST,
    ETH_P_ARP,
    ETH_P_IPV6,
    GRE,
    MORE_FRAGMENTS,
    RECORD_ROUTE,
    TCP,
    UDP,
    Frame,
    tagged,
)

PASS, DROP, REDIRECT = 0xFFFFFFFF, 2, 7  # TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_REDIRECT

WORLD_ADDRESS, HOST_ADDRESS, OTHER_ADDRESS, SUBNET_BROADCAST = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.255"
NIC, ONE_LINK, TWO_LINK = 11, 12, 13
ONE, TWO = 1, 2
PORT, PORT_OF_TWO, UNOWNED = 31001, 31011, 7000
PRIORITY = 0x10001
NIC_MAC = bytes.fromhex("020000000001")
# No loopback has such an address: it shows that the program wrote it.
LOOPBACK_MAC = bytes.fromhex("02000000000a")
CONTAINER_MAC, CONTAINER_MTU = bytes.fromhex("02000000000b"), 1500
DATAGRAM_SIZE = 24  # struct datagram in bpf/fragments.h
LATER = 185  # fragment offset in units of 8 bytes
# A later fragment's payload where the first one has its ports
LOOKS_LIKE_PORTS = struct.pack("!HH", PORT, PORT_OF_TWO) + bytes(28)


class _Skb(ctypes.Structure):
    """struct __sk_buff of linux/bpf.h."""

    _fields_ = (
        ("before", ctypes.c_uint32 * 8),
        ("priority", ctypes.c_uint32),
        ("ingress_ifindex", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("after", ctypes.c_uint32 * 37),
    )


class _Options(ctypes.Structure):
    """struct bpf_test_run_opts of bpf/bpf.h."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_char_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


@dataclass(frozen=True)
class Outcome:
    """What a program did."""

    verdict: int
    mac: bytes
    """Destination of the frame afterwards."""
    priority: int


@dataclass(frozen=True)
class Laboratory:
    """A data plane of two slots in an empty namespace: "one" owns PORT, "two" PORT_OF_TWO."""

    plane: DataPlane
    programs: bpf.Object
    namespace: Path

    def run(self, program: str, packet: Frame | bytes, ifindex: int) -> Outcome:
        """Run a program on a packet that an interface received (container_loopback: sends)."""
        data = bytes(packet)
        out = ctypes.create_string_buffer(4096)
        skb, skb_out = _Skb(ifindex=ifindex), _Skb()
        options = _Options(
            sz=ctypes.sizeof(_Options),
            data_in=data,
            data_out=ctypes.addressof(out),
            data_size_in=len(data),
            data_size_out=len(out),
            ctx_in=ctypes.addressof(skb),
            ctx_out=ctypes.addressof(skb_out),
            ctx_size_in=ctypes.sizeof(skb),
            ctx_size_out=ctypes.sizeof(skb_out),
            repeat=1,
        )
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
        with namespaces.entered(self.namespace):
            result = library.bpf_prog_test_run_opts(self.programs.program(program), ctypes.byref(options))
        if result < 0:
            raise OSError(-result, f"BPF_PROG_TEST_RUN of {program}")
        return Outcome(options.retval, out.raw[:6], skb_out.priority)

    def refused(self) -> Counter[tuple[int, str]]:
        """Refused packets by slot and reason."""
        slots = (HOST, ONE, TWO)
        return Counter({(slot, reason): count for slot in slots for reason, count in self.plane.drops(slot).items()})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A namespace with a NIC, the host ends of two containers' veths, and a loopback."""
    directory = tmp_path_factory.mktemp("programs")
    namespace = directory / "host"
    namespaces.create(namespace)
    try:
        _add_links(namespace)
        yield namespace
    finally:
        namespaces.remove(namespace)


def _add_links(namespace: Path) -> None:
    with namespaces.entered(namespace), routes() as iproute:
        iproute.link("set", index=1, state="up")
        for name, index in (("nic", NIC), ("one", ONE_LINK), ("two", TWO_LINK)):
            iproute.link(
                "add", kind="veth", ifname=name, index=index, address=NIC_MAC.hex(":"), peer={"ifname": f"{name}-peer"}
            )


@pytest.fixture(scope="module")
def loaded(home: Path) -> Iterator[Laboratory]:
    """A data plane without slots."""
    plane = DataPlane(home.parent / "pins", priority=1)
    try:
        programs = bpf.Object(OBJECT, plane.pins)
        plane.configure(HostLinks(NIC, 1, LOOPBACK_MAC, CONTAINER_MAC, CONTAINER_MTU))
        plane.set_local_addresses([IPv4Address(HOST_ADDRESS)], [IPv4Address(SUBNET_BROADCAST)])
        yield Laboratory(plane, programs, home)
        programs.close()
    finally:
        plane.close(remove=True)


@pytest.fixture
def laboratory(loaded: Laboratory) -> Iterator[Laboratory]:
    """The data plane with its slots, and no memory of other tests."""
    for slot, link, ports in ((ONE, ONE_LINK, "31000-31009"), (TWO, TWO_LINK, "31010-31019")):
        loaded.plane.open_slot(slot, Slot(link, PRIORITY if slot == ONE else 0))
        loaded.plane.give(PortSet.parse(ports), slot)
    yield loaded
    for slot in (ONE, TWO):
        loaded.plane.close_slot(slot)
    fragments = loaded.programs.map("fragments")
    for key in bpf.keys(fragments, DATAGRAM_SIZE):
        bpf.delete(fragments, key)


@dataclass(frozen=True)
class Row:
    """A packet and what becomes of it.

    :param refused: slot and reason under which it is counted.
    :param after: packets that come before.
    """

    name: str
    packet: Frame | bytes
    verdict: int
    refused: tuple[int, str] | None = None
    after: tuple[Frame, ...] = ()
    to_host: bool = False
    priority: int = 0

    def __str__(self) -> str:
        return self.name


def _check(laboratory: Laboratory, program: str, ifindex: int, row: Row) -> None:
    for packet in row.after:
        laboratory.run(program, packet, ifindex)
    before = laboratory.refused()
    outcome = laboratory.run(program, row.packet, ifindex)
    mac = LOOPBACK_MAC if row.to_host else bytes(row.packet)[:6]
    assert outcome == Outcome(row.verdict, mac, row.priority)
    assert laboratory.refused() - before == Counter([row.refused] if row.refused else [])


IN = Frame(WORLD_ADDRESS, HOST_ADDRESS, UNOWNED, PORT, bytes(32), mac=NIC_MAC)
IN_FIRST = replace(IN, fragment=MORE_FRAGMENTS)
IN_LATER = replace(IN, fragment=LATER, payload=LOOKS_LIKE_PORTS)
ARP = replace(IN, ethertype=ETH_P_ARP)


@pytest.mark.parametrize(
    "row",
    [
        Row("UDP to an owned port", IN, REDIRECT),
        Row("TCP to an owned port", replace(IN, protocol=TCP), REDIRECT),
        Row("first port of a slice", replace(IN, destination_port=31000), REDIRECT),
        Row("last port of a slice", replace(IN, destination_port=31019), REDIRECT),
        Row("port before the slices", replace(IN, destination_port=30999), PASS),
        Row("port behind the slices", replace(IN, destination_port=31020), PASS),
        Row("port 0", replace(IN, destination_port=0), PASS),
        Row("port 65535", replace(IN, destination_port=65535), PASS),
        Row("from an owned port", replace(IN, source_port=PORT, destination_port=UNOWNED), PASS),
        Row("IP options", replace(IN, options=RECORD_ROUTE), REDIRECT),
        Row("IP options, port of nobody's", replace(IN, options=RECORD_ROUTE, destination_port=UNOWNED), PASS),
        Row("first fragment", IN_FIRST, REDIRECT),
        Row("later fragment of a known datagram", IN_LATER, REDIRECT, after=(IN_FIRST,)),
        Row("later fragment of nothing known", IN_LATER, PASS),
        Row("later fragment of another datagram", replace(IN_LATER, identification=2), PASS, after=(IN_FIRST,)),
        Row("later fragment of another protocol", replace(IN_LATER, protocol=TCP), PASS, after=(IN_FIRST,)),
        Row("later fragment from elsewhere", replace(IN_LATER, source=OTHER_ADDRESS), PASS, after=(IN_FIRST,)),
        Row("a protocol without ports", replace(IN, protocol=GRE, payload=LOOKS_LIKE_PORTS), PASS),
        Row("shorter than its ports", replace(IN, cut=32 + 6), PASS),
        Row("header length below five", replace(IN, header_words=4), PASS),
        Row("VLAN", tagged(bytes(IN)), PASS),
        Row("ARP", ARP, PASS),
        Row("IPv6", replace(IN, ethertype=ETH_P_IPV6), PASS),
        Row("to another host", replace(IN, destination=OTHER_ADDRESS), PASS),
        Row("frame to another host", replace(IN, mac=bytes.fromhex("0200000000fd")), PASS),
        Row("loopback source", replace(IN, source="127.0.0.1"), DROP, (ONE, "martian_source")),
        Row(
            "loopback source, nobody's port",
            replace(IN, source="127.0.0.1", destination_port=UNOWNED),
            DROP,
            (HOST, "martian_source"),
        ),
        Row("own source", replace(IN, source=HOST_ADDRESS), DROP, (ONE, "martian_source")),
        Row("multicast source", replace(IN, source="224.0.0.1"), DROP, (ONE, "martian_source")),
        Row("broadcast source", replace(IN, source=SUBNET_BROADCAST), DROP, (ONE, "martian_source")),
        Row("loopback destination", replace(IN, destination="127.9.9.9"), DROP, (HOST, "martian_destination")),
        Row("broadcast frame", replace(IN, mac=BROADCAST), DROP, (ONE, "not_unicast")),
        Row("limited broadcast", replace(IN, destination="255.255.255.255"), DROP, (ONE, "not_unicast")),
        Row("subnet broadcast", replace(IN, destination=SUBNET_BROADCAST), DROP, (ONE, "not_unicast")),
        Row(
            "broadcast to a port of nobody's",
            replace(IN, destination=SUBNET_BROADCAST, destination_port=UNOWNED, mac=BROADCAST),
            PASS,
        ),
        Row("no source, as in DHCP", replace(IN, source="0.0.0.0", destination_port=67, mac=BROADCAST), PASS),
    ],
    ids=str,
)
def test_host_ingress(laboratory: Laboratory, row: Row) -> None:
    _check(laboratory, "host_ingress", NIC, row)


LOCAL = Frame("127.0.0.1", "127.0.0.1", UNOWNED, PORT, bytes(32))
LOCAL_FIRST = replace(LOCAL, fragment=MORE_FRAGMENTS)
LOCAL_LATER = replace(LOCAL, fragment=LATER, payload=LOOKS_LIKE_PORTS)


@pytest.mark.parametrize(
    "row",
    [
        Row("UDP to an owned port", LOCAL, REDIRECT),
        Row("TCP to an owned port", replace(LOCAL, protocol=TCP), REDIRECT),
        Row("over another loopback address", replace(LOCAL, destination="127.0.0.5"), REDIRECT),
        Row("over the host's address", replace(LOCAL, source=HOST_ADDRESS, destination=HOST_ADDRESS), REDIRECT),
        Row("to a port of nobody's", replace(LOCAL, destination_port=UNOWNED), PASS),
        Row("to no address of the host's", replace(LOCAL, destination=OTHER_ADDRESS), PASS),
        Row("IP options", replace(LOCAL, options=RECORD_ROUTE), REDIRECT),
        Row("first fragment", LOCAL_FIRST, REDIRECT),
        Row("later fragment of a known datagram", LOCAL_LATER, REDIRECT, after=(LOCAL_FIRST,)),
        Row("later fragment of nothing known", LOCAL_LATER, PASS),
        Row("shorter than its ports", replace(LOCAL, cut=32 + 6), PASS),
        Row("IPv6", replace(LOCAL, ethertype=ETH_P_IPV6), PASS),
    ],
    ids=str,
)
def test_host_loopback(laboratory: Laboratory, row: Row) -> None:
    _check(laboratory, "host_loopback", 1, row)


OUT = Frame(HOST_ADDRESS, WORLD_ADDRESS, PORT, UNOWNED, bytes(32), mac=NIC_MAC)
OUT_FIRST = replace(OUT, fragment=MORE_FRAGMENTS)
OUT_LATER = replace(OUT, fragment=LATER, payload=LOOKS_LIKE_PORTS)
TO_TWO = replace(OUT, destination=HOST_ADDRESS, destination_port=PORT_OF_TWO)
TO_HOST = replace(OUT, destination=HOST_ADDRESS)


@pytest.mark.parametrize(
    "row",
    [
        Row("UDP to the world", OUT, REDIRECT, priority=PRIORITY),
        Row("TCP to the world", replace(OUT, protocol=TCP), REDIRECT, priority=PRIORITY),
        Row("a port of two's in the world", replace(OUT, destination_port=PORT_OF_TWO), REDIRECT, priority=PRIORITY),
        Row("to two", TO_TWO, REDIRECT),
        Row("to two over the loopback", replace(TO_TWO, source="127.0.0.1", destination="127.0.0.1"), REDIRECT),
        Row("to the host", TO_HOST, REDIRECT, to_host=True),
        Row(
            "to a resolver on the host",
            replace(TO_HOST, source="127.0.0.1", destination="127.0.0.53", destination_port=53),
            REDIRECT,
            to_host=True,
        ),
        Row("to itself", replace(TO_TWO, destination_port=PORT), REDIRECT),
        Row("IP options", replace(OUT, options=RECORD_ROUTE), REDIRECT, priority=PRIORITY),
        Row("nobody's port", replace(OUT, source_port=UNOWNED), DROP, (ONE, "foreign_port")),
        Row("two's port", replace(OUT, source_port=PORT_OF_TWO), DROP, (ONE, "foreign_port")),
        Row("two's port to two", replace(TO_TWO, source_port=PORT_OF_TWO), DROP, (ONE, "foreign_port")),
        Row("nobody's port to the host", replace(TO_HOST, source_port=UNOWNED), DROP, (ONE, "foreign_port")),
        Row(
            "nobody's port behind options",
            replace(OUT, source_port=UNOWNED, options=RECORD_ROUTE),
            DROP,
            (ONE, "foreign_port"),
        ),
        Row("first fragment", OUT_FIRST, REDIRECT, priority=PRIORITY),
        Row("later fragment to the world", OUT_LATER, REDIRECT, after=(OUT_FIRST,), priority=PRIORITY),
        Row(
            "later fragment to the host",
            replace(OUT_LATER, destination=HOST_ADDRESS),
            REDIRECT,
            after=(replace(TO_HOST, fragment=MORE_FRAGMENTS),),
            to_host=True,
        ),
        Row(
            "later fragment to two",
            replace(OUT_LATER, destination=HOST_ADDRESS),
            REDIRECT,
            after=(replace(TO_TWO, fragment=MORE_FRAGMENTS),),
        ),
        Row("later fragment of nothing known", OUT_LATER, DROP, (ONE, "unknown_fragment")),
        Row(
            "later fragment of a whole datagram",
            OUT_LATER,
            DROP,
            (ONE, "unknown_fragment"),
            after=(OUT,),
        ),
        Row("foreign source", replace(OUT, source="8.8.8.8"), DROP, (ONE, "foreign_source")),
        Row("loopback source to the world", replace(OUT, source="127.0.0.1"), DROP, (ONE, "foreign_source")),
        Row("broadcast source", replace(OUT, source=SUBNET_BROADCAST), DROP, (ONE, "foreign_source")),
        Row("multicast", replace(OUT, destination="224.0.0.251"), DROP, (ONE, "not_unicast")),
        Row("limited broadcast", replace(OUT, destination="255.255.255.255"), DROP, (ONE, "not_unicast")),
        Row("subnet broadcast", replace(OUT, destination=SUBNET_BROADCAST), DROP, (ONE, "not_unicast")),
        Row("broadcast frame", replace(OUT, mac=BROADCAST), DROP, (ONE, "not_unicast")),
        Row("a protocol without ports", replace(OUT, protocol=GRE), DROP, (ONE, "protocol")),
        Row("shorter than its ports", replace(OUT, cut=32 + 6), DROP, (ONE, "malformed")),
        Row("header length below five", replace(OUT, header_words=4), DROP, (ONE, "malformed")),
        Row("ARP", replace(OUT, ethertype=ETH_P_ARP), DROP, (ONE, "not_ipv4")),
        Row("IPv6", replace(OUT, ethertype=ETH_P_IPV6), DROP, (ONE, "not_ipv4")),
        Row("VLAN", tagged(bytes(OUT)), DROP, (ONE, "not_ipv4")),
    ],
    ids=str,
)
def test_container_egress(laboratory: Laboratory, row: Row) -> None:
    _check(laboratory, "container_egress", ONE_LINK, row)


def test_fragments_of_containers_are_not_confused(laboratory: Laboratory) -> None:
    """Both have one address and number their datagrams independently."""
    first = replace(OUT_FIRST, destination=HOST_ADDRESS)
    assert laboratory.run("container_egress", first, ONE_LINK).mac == LOOPBACK_MAC
    laboratory.run("container_egress", replace(first, source_port=PORT_OF_TWO, destination_port=PORT), TWO_LINK)
    later = replace(OUT_LATER, destination=HOST_ADDRESS)
    assert laboratory.run("container_egress", later, ONE_LINK).mac == LOOPBACK_MAC
    assert laboratory.run("container_egress", later, TWO_LINK).mac == NIC_MAC


def test_a_limit_on_what_comes_in_leads_through_the_queues(laboratory: Laboratory) -> None:
    """The host end takes only what is addressed to the container's NIC, and no whole datagram above its MTU."""
    laboratory.plane.open_slot(ONE, Slot(ONE_LINK, PRIORITY, shaped=True))
    assert laboratory.run("host_ingress", IN, NIC) == Outcome(REDIRECT, CONTAINER_MAC, 0)
    assert laboratory.run("host_loopback", LOCAL, 1) == Outcome(REDIRECT, CONTAINER_MAC, 0)
    long = replace(LOCAL, payload=bytes(1600))
    assert laboratory.run("host_loopback", long, 1) == Outcome(REDIRECT, bytes(6), 0)


def test_a_link_without_a_slot_leads_nowhere(laboratory: Laboratory) -> None:
    assert laboratory.run("container_egress", OUT, NIC).verdict == DROP


def test_a_closed_slot_is_forgotten(laboratory: Laboratory) -> None:
    laboratory.run("container_egress", replace(OUT, source_port=UNOWNED), ONE_LINK)
    laboratory.plane.close_slot(ONE)
    assert laboratory.plane.drops(ONE) == {}
    assert laboratory.run("host_ingress", IN, NIC).verdict == PASS
    assert laboratory.run("container_egress", OUT, ONE_LINK).verdict == DROP


def test_a_refusal_leaves_a_sample(laboratory: Laboratory) -> None:
    laboratory.run("container_egress", replace(OUT, source_port=UNOWNED, destination_port=123), ONE_LINK)
    (sample,) = laboratory.plane.drop_samples(ONE)
    assert sample._replace(age_secs=0) == ("foreign_port", 0, HOST_ADDRESS, UNOWNED, WORLD_ADDRESS, 123, UDP)
    assert 0 <= sample.age_secs < 60


INSIDE = Frame("127.0.0.1", "127.0.0.1", PORT, UNOWNED, bytes(32))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_container_loopback(laboratory: Laboratory, protocol: str) -> None:
    """What a socket inside waits for stays; the rest leaves through the NIC. The namespace stands for a container's."""
    packet = replace(INSIDE, protocol=TCP if protocol == "tcp" else UDP)
    first, later = replace(packet, fragment=MORE_FRAGMENTS), replace(packet, fragment=LATER)

    before = laboratory.refused()

    def verdict(packet: Frame | bytes) -> int:
        return laboratory.run("container_loopback", packet, 1).verdict

    assert verdict(packet) == REDIRECT
    assert verdict(replace(packet, options=RECORD_ROUTE)) == REDIRECT
    assert verdict(replace(packet, protocol=GRE)) == PASS
    assert verdict(replace(packet, ethertype=ETH_P_IPV6)) == PASS
    assert verdict(replace(packet, cut=32 + 6 if protocol == "udp" else 32 + 18)) == PASS
    assert verdict(later) == PASS
    assert verdict(first) == REDIRECT
    with peer.listen(laboratory.namespace, protocol, ("127.0.0.1", UNOWNED)):
        assert verdict(packet) == PASS
        assert verdict(first) == PASS
        assert verdict(replace(packet, options=RECORD_ROUTE)) == PASS
        assert verdict(replace(packet, destination="127.0.0.2")) == REDIRECT
        assert verdict(replace(packet, destination_port=UNOWNED + 1)) == REDIRECT
    assert verdict(packet) == REDIRECT
    assert laboratory.refused() == before
