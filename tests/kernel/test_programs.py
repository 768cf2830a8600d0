"""The classifiers' verdicts on golden packets (BPF_PROG_TEST_RUN): a table for each program.

The kernel runs a program on a packet, writes to the maps and returns the verdict, but redirects nothing. Where a
packet would have gone shows in what the program did to it: a `priority` for the world, the loopback's MAC address for
the host. skb->pkt_type follows from the MAC addresses of the frame and of the device, as on the wire.
"""

import ctypes
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from portslice.network import bpf, namespaces, sysctl
from portslice.network.dataplane import HOST, OBJECT, DataPlane, HostLinks, Slot
from portslice.network.iproute import routes
from portslice.ports import PortSet
from tests.kernel import peer
from tests.kernel.frames import (
    BROADCAST,
    ECHO_REPLY,
    ECHO_REPLY_6,
    ECHO_REQUEST,
    ECHO_REQUEST_6,
    ETH_P_ARP,
    ETH_P_IPV6,
    GRE,
    ICMP,
    ICMPV6,
    MORE_FRAGMENTS,
    RECORD_ROUTE,
    TCP,
    TOO_BIG_6,
    UDP,
    UNREACHABLE,
    UNREACHABLE_6,
    Frame,
    checksum,
    icmp,
    tagged,
)

PASS, DROP, REDIRECT = 0xFFFFFFFF, 2, 7  # TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_REDIRECT

WORLD_ADDRESS, HOST_ADDRESS, OTHER_ADDRESS, SUBNET_BROADCAST = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.255"
WORLD_6, HOST_6, OTHER_6 = "2001:db8::1", "2001:db8::2", "2001:db8::3"
SIXTH = {WORLD_ADDRESS: WORLD_6, HOST_ADDRESS: HOST_6, OTHER_ADDRESS: OTHER_6, "127.0.0.1": "::1"}
NOWHERE, NOWHERE_6 = "198.51.100.1", "2001:db8:ffff::1"  # no route leads there
NARROW, NARROW_6, NARROW_MTU = "203.0.113.1", "2001:db8:1::1", 1300  # behind a route of that MTU
_LOCK_MTU = 1 << 2  # a router heeds a route's MTU only if it is locked (ip_mtu_from_fib_result)
NIC, ONE_LINK, TWO_LINK = 11, 12, 13
ONE, TWO = 1, 2
PORT, PORT_OF_TWO, UNOWNED = 31001, 31011, 7000
PRIORITY = 0x10001
NIC_MAC = bytes.fromhex("020000000001")
# No loopback has such an address: it shows that the program wrote it.
LOOPBACK_MAC = bytes.fromhex("02000000000a")
CONTAINER_MAC, CONTAINER_MTU = bytes.fromhex("02000000000b"), 1500
DATAGRAM_SIZE = 44  # struct datagram in bpf/fragments.h
ECHO_KEY_SIZE = 20  # struct echo_key in bpf/echo.h
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
    frame: bytes = field(default=b"", compare=False)


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
        return Outcome(options.retval, out.raw[:6], skb_out.priority, out.raw[: options.data_size_out])

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
            for family in ("ipv4", "ipv6"):
                sysctl.write(f"{family}/conf/{name}/forwarding", "1")
        for link in (NIC, iproute.link_lookup(ifname="nic-peer")[0]):
            iproute.link("set", index=link, state="up")
        for address, prefix, gateway, narrow in (
            (HOST_ADDRESS, 24, WORLD_ADDRESS, NARROW),
            (HOST_6, 64, WORLD_6, NARROW_6),
        ):
            iproute.addr("add", index=NIC, address=address, prefixlen=prefix, flags=2)  # IFA_F_NODAD
            iproute.neigh("add", dst=gateway, lladdr="02:00:00:00:00:fc", ifindex=NIC, state=0x80)
            iproute.route("add", dst=narrow, gateway=gateway, oif=NIC, metrics={"mtu": NARROW_MTU, "lock": _LOCK_MTU})


@pytest.fixture(scope="module")
def loaded(home: Path) -> Iterator[Laboratory]:
    """A data plane without slots."""
    plane = DataPlane(home.parent / "pins", priority=1)
    try:
        programs = bpf.Object(OBJECT, plane.pins)
        plane.configure(HostLinks(1, LOOPBACK_MAC, CONTAINER_MAC, CONTAINER_MTU))
        plane.set_host_addresses(map(ip_address, (HOST_ADDRESS, HOST_6)), [IPv4Address(SUBNET_BROADCAST)])
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
    for name, size in (("datagrams", DATAGRAM_SIZE), ("echo_askers", ECHO_KEY_SIZE)):
        memory = loaded.programs.map(name)
        for key in bpf.keys(memory, size):
            bpf.delete(memory, key)


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


def sixth(row: Row) -> Row:
    """The same with IPv6 addresses."""

    def frame(packet: Frame | bytes) -> Frame:
        assert isinstance(packet, Frame)
        return replace(packet, source=SIXTH[packet.source], destination=SIXTH[packet.destination])

    after = tuple(frame(packet) for packet in row.after)
    return replace(row, name=f"IPv6: {row.name}", packet=frame(row.packet), after=after)


def both(*rows: Row) -> tuple[Row, ...]:
    """For both families."""
    return (*rows, *map(sixth, rows))


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
        Row("IPv4 in a frame for IPv6", replace(IN, ethertype=ETH_P_IPV6), PASS),
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
        Row("IPv4 in a frame for IPv6", replace(LOCAL, ethertype=ETH_P_IPV6), PASS),
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
        Row("ARP", replace(OUT, ethertype=ETH_P_ARP), DROP, (ONE, "neighbour")),
        Row("IPv4 in a frame for IPv6", replace(OUT, ethertype=ETH_P_IPV6), DROP, (ONE, "malformed")),
        Row("VLAN", tagged(bytes(OUT)), DROP, (ONE, "not_ip")),
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


# Both families alike


@pytest.mark.parametrize(
    "row",
    [
        Row("UDP to an owned port", IN, REDIRECT),
        Row("TCP to an owned port", replace(IN, protocol=TCP), REDIRECT),
        Row("to a port of nobody's", replace(IN, destination_port=UNOWNED), PASS),
        Row("options", replace(IN, options=RECORD_ROUTE), REDIRECT),
        Row("options, port of nobody's", replace(IN, options=RECORD_ROUTE, destination_port=UNOWNED), PASS),
        Row("first fragment", IN_FIRST, REDIRECT),
        Row("later fragment of a known datagram", IN_LATER, REDIRECT, after=(IN_FIRST,)),
        Row("later fragment of nothing known", IN_LATER, PASS),
        Row("first fragment after a later one", IN_FIRST, REDIRECT, (ONE, "unknown_fragment"), after=(IN_LATER,)),
        Row("to another host", replace(IN, destination=OTHER_ADDRESS), PASS),
        Row("loopback source", replace(IN, source="127.0.0.1"), DROP, (ONE, "martian_source")),
        Row("own source", replace(IN, source=HOST_ADDRESS), DROP, (ONE, "martian_source")),
        Row("loopback destination", replace(IN, destination="127.0.0.1"), DROP, (HOST, "martian_destination")),
        Row("shorter than its ports", replace(IN, cut=32 + 6), PASS),
    ],
    ids=str,
)
def test_host_ingress_of_ipv6(laboratory: Laboratory, row: Row) -> None:
    _check(laboratory, "host_ingress", NIC, sixth(row))


@pytest.mark.parametrize(
    "row",
    [
        Row("to the world", OUT, REDIRECT, priority=PRIORITY),
        Row("to two", TO_TWO, REDIRECT),
        Row("to two over the loopback", replace(TO_TWO, source="127.0.0.1", destination="127.0.0.1"), REDIRECT),
        Row("to the host", TO_HOST, REDIRECT, to_host=True),
        Row("options", replace(OUT, options=RECORD_ROUTE), REDIRECT, priority=PRIORITY),
        Row("nobody's port", replace(OUT, source_port=UNOWNED), DROP, (ONE, "foreign_port")),
        Row("two's port behind options", replace(OUT, source_port=PORT_OF_TWO, options=RECORD_ROUTE), DROP,
            (ONE, "foreign_port")),
        Row("first fragment", OUT_FIRST, REDIRECT, priority=PRIORITY),
        Row("later fragment", OUT_LATER, REDIRECT, after=(OUT_FIRST,), priority=PRIORITY),
        Row("later fragment of nothing known", OUT_LATER, DROP, (ONE, "unknown_fragment")),
        Row("foreign source", replace(OUT, source=OTHER_ADDRESS), DROP, (ONE, "foreign_source")),
        Row("loopback source to the world", replace(OUT, source="127.0.0.1"), DROP, (ONE, "foreign_source")),
        Row("a protocol without ports", replace(OUT, protocol=GRE), DROP, (ONE, "protocol")),
        Row("shorter than its ports", replace(OUT, cut=32 + 6), DROP, (ONE, "malformed")),
    ],
    ids=str,
)  # fmt: skip
def test_container_egress_of_ipv6(laboratory: Laboratory, row: Row) -> None:
    _check(laboratory, "container_egress", ONE_LINK, sixth(row))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("ff02::1", "not_unicast"),  # all nodes
        ("ff0e::1", "not_unicast"),
        ("::ffff:10.0.0.1", "malformed"),  # IPv4 in disguise
    ],
)
def test_ipv6_that_leads_nowhere(laboratory: Laboratory, address: str, reason: str) -> None:
    packet = replace(OUT, source=HOST_6, destination=address)
    _check(laboratory, "container_egress", ONE_LINK, Row(address, packet, DROP, (ONE, reason)))


def test_ipv6_switched_off_is_the_hosts(laboratory: Laboratory) -> None:
    laboratory.plane.configure(HostLinks(1, LOOPBACK_MAC, CONTAINER_MAC, CONTAINER_MTU, ipv6=False))
    try:
        assert laboratory.run("host_ingress", sixth(Row("", IN, PASS)).packet, NIC).verdict == PASS
        assert laboratory.run("host_loopback", sixth(Row("", LOCAL, PASS)).packet, 1).verdict == PASS
        assert laboratory.run("host_ingress", IN, NIC).verdict == REDIRECT
    finally:
        laboratory.plane.configure(HostLinks(1, LOOPBACK_MAC, CONTAINER_MAC, CONTAINER_MTU))


# ICMP


@dataclass(frozen=True)
class Family:
    """The words of one IP version."""

    world: str
    host: str
    protocol: int
    request: int
    reply: int
    error: int

    def message(
        self, source: str, destination: str, kind: int, code: int = 0, *echo: int, quoted: Frame | None = None
    ) -> Frame:
        """An ICMP message; `echo` is identifier and sequence number."""
        data = quoted.packet[: 40 + 8 + 8] if quoted else b"ping"
        identifier, sequence = echo or (0, 0)
        message = icmp(kind, code, identifier, sequence, data)
        return Frame(source, destination, 0, 0, message, protocol=self.protocol, mac=NIC_MAC)


FAMILIES = {
    "IPv4": Family(WORLD_ADDRESS, HOST_ADDRESS, ICMP, ECHO_REQUEST, ECHO_REPLY, UNREACHABLE),
    "IPv6": Family(WORLD_6, HOST_6, ICMPV6, ECHO_REQUEST_6, ECHO_REPLY_6, UNREACHABLE_6),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_errors_belong_to_who_sent_what_they_quote(laboratory: Laboratory, family: Family, protocol: int) -> None:
    def from_wire(quoted_port: int, quoted_source: str = family.host) -> int:
        quoted = Frame(quoted_source, family.world, quoted_port, UNOWNED, bytes(32), protocol=protocol)
        error = family.message(family.world, family.host, family.error, 3, quoted=quoted)
        return laboratory.run("host_ingress", error, NIC).verdict

    before = laboratory.refused()
    assert from_wire(PORT) == from_wire(PORT_OF_TWO) == REDIRECT
    assert from_wire(UNOWNED) == PASS
    assert from_wire(PORT, SIXTH[OTHER_ADDRESS] if ":" in family.host else OTHER_ADDRESS) == PASS
    assert laboratory.refused() == before


def test_a_container_may_report_what_was_sent_to_its_ports(laboratory: Laboratory, family: Family) -> None:
    def from_one(to: str, port: int, source: str | None = None, source_port: int = UNOWNED) -> tuple[int, bool]:
        """(verdict, refused as foreign_icmp) of an error about a packet to `port`."""
        quoted = Frame(source or to, family.host, source_port, port, bytes(32))
        before = laboratory.refused()
        error = family.message(family.host, to, family.error, 3, quoted=quoted)
        verdict = laboratory.run("container_egress", error, ONE_LINK).verdict
        return verdict, laboratory.refused() - before == Counter([(ONE, "foreign_icmp")])

    assert from_one(family.world, PORT) == (REDIRECT, False)
    assert from_one(family.host, PORT) == (REDIRECT, False)
    assert from_one(family.host, PORT, source_port=PORT_OF_TWO) == (REDIRECT, False)
    assert from_one(family.world, PORT_OF_TWO) == (DROP, True)
    assert from_one(family.world, UNOWNED) == (DROP, True)
    assert from_one(family.world, PORT, source=SIXTH[OTHER_ADDRESS] if ":" in family.host else OTHER_ADDRESS) == (
        DROP,
        True,
    )


def test_echo_replies_belong_to_who_asked(laboratory: Laboratory, family: Family) -> None:
    def ask(link: int, sequence: int) -> int:
        request = family.message(family.host, family.world, family.request, 0, 77, sequence)
        return laboratory.run("container_egress", request, link).verdict

    def answered(sequence: int, peer_address: str = family.world) -> int:
        reply = family.message(peer_address, family.host, family.reply, 0, 77, sequence)
        return laboratory.run("host_ingress", reply, NIC).verdict

    assert ask(ONE_LINK, 1) == REDIRECT
    assert answered(1) == REDIRECT
    assert answered(2) == PASS  # the host's own
    assert answered(1, SIXTH[OTHER_ADDRESS] if ":" in family.host else OTHER_ADDRESS) == PASS
    before = laboratory.refused()
    assert ask(TWO_LINK, 1) == DROP  # one still waits for an answer to the same
    assert laboratory.refused() - before == Counter([(TWO, "echo_clash")])
    assert ask(TWO_LINK, 2) == answered(2) == REDIRECT
    laboratory.plane.close_slot(ONE)
    assert answered(1) == PASS  # who asked is gone


def test_echo_requests_are_the_hosts_to_answer(laboratory: Laboratory, family: Family) -> None:
    request = family.message(family.world, family.host, family.request, 0, 1, 1)
    assert laboratory.run("host_ingress", request, NIC).verdict == PASS


def test_an_answer_that_nobody_asked_for_does_not_leave(laboratory: Laboratory, family: Family) -> None:
    reply = family.message(family.host, family.world, family.reply, 0, 1, 1)
    _check(laboratory, "container_egress", ONE_LINK, Row("reply", reply, DROP, (ONE, "foreign_icmp")))


@pytest.mark.parametrize("kind", [130, 133, 134, 135, 136, 137, 143])
def test_neighbour_discovery_stays_inside(laboratory: Laboratory, kind: int) -> None:
    packet = FAMILIES["IPv6"].message(HOST_6, "ff02::1", kind)
    _check(laboratory, "container_egress", ONE_LINK, Row("discovery", packet, DROP, (ONE, "neighbour")))


@pytest.mark.parametrize(
    ("destination", "size", "reason", "error"),
    [
        (NOWHERE, 32, "unroutable", (UNREACHABLE, 0, 0)),
        (NOWHERE_6, 32, "unroutable", (UNREACHABLE_6, 0, 0)),
        (NARROW, 1400, "too_big", (UNREACHABLE, 4, NARROW_MTU)),
        (NARROW_6, 1400, "too_big", (TOO_BIG_6, 0, NARROW_MTU)),
    ],
)
def test_the_sender_is_told(
    laboratory: Laboratory, destination: str, size: int, reason: str, error: tuple[int, int, int]
) -> None:
    """As a router would, with checksums that hold and the packet's beginning."""
    six = ":" in destination
    own = HOST_6 if six else HOST_ADDRESS
    packet = replace(OUT, source=own, destination=destination, payload=bytes(size))
    before = laboratory.refused()
    outcome = laboratory.run("container_egress", packet, ONE_LINK)
    assert outcome.verdict == REDIRECT
    assert laboratory.refused() - before == Counter([(ONE, reason)])
    ip = outcome.frame[14:]
    source, target, start = (ip[8:24], ip[24:40], 40) if six else (ip[12:16], ip[16:20], 20)
    assert source == target == ip_address(own).packed
    message = ip[start:]
    assert struct.unpack("!BB2xI", message[:8]) == error
    assert message[8:] == packet.packet[: len(message) - 8]
    assert len(message) >= 8 + start + 8
    if six:
        assert checksum(source + target + struct.pack("!II", len(message), ICMPV6) + message) == 0
    else:
        assert checksum(ip[:20]) == checksum(message) == 0


def test_no_error_answers_an_error(laboratory: Laboratory, family: Family) -> None:
    nowhere = NOWHERE_6 if ":" in family.host else NOWHERE
    quoted = Frame(nowhere, family.host, UNOWNED, PORT, bytes(32))
    error = family.message(family.host, nowhere, family.error, 3, quoted=quoted)
    _check(laboratory, "container_egress", ONE_LINK, Row("error", error, DROP, (ONE, "unroutable")))


def test_arp_is_answered_by_the_host(laboratory: Laboratory) -> None:
    def request(sender: str, target: str, operation: int = 1) -> bytes:
        addresses = NIC_MAC + ip_address(sender).packed + bytes(6) + ip_address(target).packed
        return BROADCAST + NIC_MAC + struct.pack("!HHHBBH", ETH_P_ARP, 1, 0x0800, 6, 4, operation) + addresses

    outcome = laboratory.run("container_egress", request(HOST_ADDRESS, OTHER_ADDRESS), ONE_LINK)
    assert (outcome.verdict, outcome.mac) == (REDIRECT, NIC_MAC)
    answer = struct.unpack("!6x6sHHHBBH6s4s6s4s", outcome.frame[:42])
    assert answer == (
        CONTAINER_MAC, ETH_P_ARP, 1, 0x0800, 6, 4, 2,
        CONTAINER_MAC, ip_address(OTHER_ADDRESS).packed, NIC_MAC, ip_address(HOST_ADDRESS).packed,
    )  # fmt: skip
    for forged in (
        request(OTHER_ADDRESS, WORLD_ADDRESS),  # a foreign sender
        request(HOST_ADDRESS, HOST_ADDRESS),  # an announcement
        request(HOST_ADDRESS, OTHER_ADDRESS, operation=2),  # an answer
        request("0.0.0.0", OTHER_ADDRESS),  # a probe
    ):
        _check(laboratory, "container_egress", ONE_LINK, Row("ARP", forged, DROP, (ONE, "neighbour")))


@pytest.mark.parametrize(
    "row",
    [
        Row("::1 from outside", Frame("::1", "::1", UNOWNED, PORT, bytes(32), mac=NIC_MAC), REDIRECT),
        Row("::1 as the source alone", Frame("::1", HOST_6, UNOWNED, PORT, bytes(32), mac=NIC_MAC), REDIRECT),
        Row("IPv6 from the world", Frame(WORLD_6, HOST_6, UNOWNED, PORT, bytes(32), mac=NIC_MAC), PASS),
        Row("127.0.0.1", Frame("127.0.0.1", "127.0.0.1", UNOWNED, PORT, bytes(32), mac=NIC_MAC), PASS),
        Row("IPv4 from the world", IN, PASS),
        Row("ARP", ARP, PASS),
    ],
    ids=str,
)
def test_container_ingress(laboratory: Laboratory, row: Row) -> None:
    """What came over ::1 is handed to the loopback inside, as one of its own."""
    outcome = laboratory.run("container_ingress", row.packet, NIC)
    mac = bytes(6) if row.verdict == REDIRECT else bytes(row.packet)[:6]
    assert outcome == Outcome(row.verdict, mac, 0)


# What is everybody's


def test_a_closed_loopback_lets_answers_in(laboratory: Laboratory) -> None:
    def verdict(protocol: int, port: int) -> int:
        packet = Frame("127.0.0.1", "127.0.0.1", PORT, port, bytes(32), protocol=protocol)
        return laboratory.run("container_egress", packet, ONE_LINK).verdict

    laboratory.plane.configure(HostLinks(1, LOOPBACK_MAC, CONTAINER_MAC, CONTAINER_MTU, host_loopback=False))
    try:
        before = laboratory.refused()
        with (
            peer.listen(laboratory.namespace, "tcp", ("127.0.0.1", 7001)),
            peer.listen(laboratory.namespace, "udp", ("127.0.0.1", 7001)),
            peer.open_socket(laboratory.namespace, "udp", connect=("127.0.0.1", PORT)) as client,
        ):
            assert verdict(TCP, 7001) == verdict(UDP, 7001) == verdict(UDP, 7002) == DROP
            assert verdict(UDP, client.getsockname()[1]) == REDIRECT
        assert laboratory.refused() - before == Counter({(ONE, "host_loopback"): 3})
        assert verdict(UDP, PORT_OF_TWO) == REDIRECT
    finally:
        laboratory.plane.configure(HostLinks(1, LOOPBACK_MAC, CONTAINER_MAC, CONTAINER_MTU))
    assert verdict(TCP, 7001) == REDIRECT


def test_unfinished_datagrams_are_bounded(laboratory: Laboratory) -> None:
    """One container's first fragments fill nobody else's memory; finished ones do not count."""
    first = replace(TO_HOST, fragment=MORE_FRAGMENTS, payload=bytes(8 * LATER - 8))
    last = replace(TO_HOST, fragment=LATER, payload=bytes(16))
    for number in range(1000):
        assert laboratory.run("container_egress", replace(first, identification=number), ONE_LINK).verdict == REDIRECT
        assert laboratory.run("container_egress", replace(last, identification=number), ONE_LINK).verdict == REDIRECT
    before = laboratory.refused()
    verdicts = Counter(
        laboratory.run("container_egress", replace(first, identification=number), ONE_LINK).verdict
        for number in range(1000)
    )
    assert verdicts == {REDIRECT: 512, DROP: 488}
    assert laboratory.refused() - before == Counter({(ONE, "incomplete_datagrams"): 488})
    mine = replace(first, source_port=PORT_OF_TWO)
    assert laboratory.run("container_egress", mine, TWO_LINK).verdict == REDIRECT


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
