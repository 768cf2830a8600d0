"""The facts of Mesos' routing_tests.cpp, by name, where our network floor has a counterpart.

Mesos' routing library is general; ours does what an attachment needs. A link's name, address, MTU and state come with
its creation, so that there is nothing to set later, and what leads to a container is an element of an array instead of
a filter. The facts without a counterpart, and why:

* LinkWait: nobody waits for a link to vanish; that a container has ended its supervisor's pidfd says.
* LinkSetMAC: a MAC address is asked for at creation (LinkCreateWithTargetMAC) and never changed.
* PortRange by masks: a range costs the same whatever its size, and is never split into aligned powers of two.
* FqCodelClassifier: fq_codel reads the flow from skb->priority, without a filter: test_shaping.py.
* ARPFilter*: a container's one neighbour is permanent; no ARP reaches it or leaves it.
* ICMPFilter*: no filter chooses where ICMP goes.
* IPFilterCreate2, by destination address alone: ports alone lead to a container.
* HandleGeneration: an element of an array has no handle.
"""

import errno
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from portslice.demo.testbed import NIC, WORLD_ADDRESS, Testbed, testbed
from portslice.errors import NetworkError, ParseError
from portslice.network import bpf, namespaces, sockets
from portslice.network.attachment import Attachment
from portslice.network.dataplane import CONTAINER_NIC_INDEX, HOST, DataPlane
from portslice.network.host import Host, discover, interfaces
from portslice.network.layers.link import GROUP, Link, link_index
from portslice.network.layers.slots import Slot
from portslice.network.qdiscs import fq_codel as fq_codel_discipline
from portslice.network.qdiscs import htb
from portslice.network.rtnetlink import TC_H_ROOT, LinkCounters, Queue, QueueCounters, Rtnetlink
from portslice.ports import PortRange, PortSet
from portslice.rates import Rate

MISSING = "not-exist"
MISSING_INDEX = 9999
MAC = "12:34:56:78:9a:bc"
VETH, PEER = "veth-test", "veth-peer"
MBIT = 125_000


@pytest.fixture(scope="module")
def ground() -> Iterator[Testbed]:
    """A host and the world."""
    with testbed() as built:
        yield built


@pytest.fixture
def here(ground: Testbed) -> Iterator[Testbed]:
    """The test is on the host."""
    with namespaces.entered(ground.host):
        yield ground


@pytest.fixture
def pair(here: Testbed) -> Iterator[tuple[int, int]]:
    """Indexes of `veth-test` and `veth-peer` on the host."""
    ip(here, f"link add {VETH} type veth peer name {PEER}")
    yield socket.if_nametoindex(VETH), socket.if_nametoindex(PEER)
    ip(here, f"link delete {VETH}")


def ip(bed: Testbed, arguments: str) -> None:
    """iproute2 on the host."""
    bed.run(bed.host, "ip", *arguments.split())


def links(bed: Testbed, namespace: Path) -> dict[str, Any]:
    """All links of a namespace by name, as iproute2 shows them."""
    return {each["ifname"]: each for each in json.loads(bed.run(namespace, "ip", "-json", "link", "show").stdout)}


# Values and look-ups


@pytest.mark.parametrize(
    ("begin", "end", "text"), [(4, 11, "4-11"), (4, 7, "4-7"), (10, 10, "10-10"), (1024, 1031, "1024-1031")]
)
def test_port_range(begin: int, end: int, text: str) -> None:
    """PortRange: any range is one, 4-11 too, which Mesos refuses; but not one whose end comes first."""
    assert str(PortRange(begin, end)) == text
    with pytest.raises(ParseError):
        PortRange(1, 0)


def test_link_index_name_and_existence(here: Testbed) -> None:
    """LinkIndex, LinkName, LinkExists."""
    shown = links(here, here.host)
    assert set(shown) == {"lo", NIC}
    for name, link in shown.items():
        assert link_index(name) == link["ifindex"] != 0
        assert socket.if_indextoname(link["ifindex"]) == name
    assert link_index(MISSING) is None


def test_link_statistics(here: Testbed) -> None:
    """LinkStatistics."""
    assert LinkCounters._fields[:4] == ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, Rtnetlink() as netlink:
        lo = link_index("lo")
        assert lo
        before = netlink.link_counters(lo)
        for _ in range(3):
            sender.sendto(bytes(72), ("127.0.0.1", 9))
        after = netlink.link_counters(lo)
        assert after.tx_packets >= before.tx_packets + 3
        assert after.rx_bytes >= before.rx_bytes + 3 * 100
        assert netlink.link_counters(link_index(NIC) or 0)
        with pytest.raises(OSError, match="No such device"):
            netlink.link_counters(MISSING_INDEX)


def test_eth0_and_lo(here: Testbed) -> None:
    """Eth0, Lo: found by the default route and by the flag of a loopback; where there is none, in Mesos' words."""
    assert interfaces() == ([NIC], "lo")
    with pytest.raises(NetworkError, match="does not have a public interface"):
        namespaces.in_new(interfaces)


def test_route_table(here: Testbed) -> None:
    """RouteTable: the default gateway; a host without one is told so."""
    assert str(discover().gateway) == WORLD_ADDRESS
    ip(here, "route delete default")
    try:
        with pytest.raises(NetworkError, match="The default gateway of the host does not exist"):
            discover(NIC)
    finally:
        ip(here, f"route add default via {WORLD_ADDRESS}")


def test_inet_sockets(here: Testbed) -> None:
    """INETSockets: a dump in all states; every entry has its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = server.getsockname()
        with socket.create_connection(name) as client, server.accept()[0]:
            found = sockets.held(PortSet((PortRange(0, 65535),)))
            expected = sorted([(name[1], True), (name[1], False), (client.getsockname()[1], False)])
    assert sorted((each.port, each.waits) for each in found) == expected
    assert {each.protocol for each in found} == {"tcp"}


# Links


@contextmanager
def attached(bed: Testbed, host: Host) -> Iterator[tuple[Link, Attachment]]:
    """The layer of links, and an attachment whose namespace exists and has no link yet."""
    attachment = Attachment(
        id="test",
        slot=1,
        namespace=bed.directory / "container",
        link="ps-test",
        ephemeral=PortRange(32768, 33791),
        ports=PortSet(),
        egress=None,
    )
    namespaces.create(attachment.namespace)
    layer = Link(host)
    try:
        yield layer, attachment
    finally:
        layer.revert(attachment)
        namespaces.remove(attachment.namespace)


def test_link_create(here: Testbed) -> None:
    """ROOT_LinkCreate: both ends exist, up (LinkSetUp); a second creation is refused and changes nothing."""
    with attached(here, discover()) as (layer, attachment):
        assert layer.verify(attachment) == ["the link ps-test is gone"]
        layer.apply(attachment)
        assert layer.verify(attachment) == []
        outside = links(here, here.host)["ps-test"]
        inside = links(here, attachment.namespace)
        assert outside["ifindex"] == link_index("ps-test")
        assert outside["group"] == str(GROUP)
        assert inside[NIC]["ifindex"] == CONTAINER_NIC_INDEX
        assert all("UP" in link["flags"] for link in (outside, inside[NIC], inside["lo"]))
        with pytest.raises(NetlinkError) as twice:
            layer.apply(attachment)
        assert twice.value.code == errno.EEXIST
        assert links(here, here.host)["ps-test"]["ifindex"] == outside["ifindex"]
        assert set(links(here, attachment.namespace)) == set(inside)


def test_link_create_with_target_mac(here: Testbed) -> None:
    """ROOT_LinkCreateWithTargetMAC: exactly the one that was asked for."""
    with attached(here, replace(discover(), mac=MAC)) as (layer, attachment):
        layer.apply(attachment)
        assert links(here, attachment.namespace)[NIC]["address"] == MAC


def test_link_remove(here: Testbed) -> None:
    """ROOT_LinkRemove: both ends go; what is gone may be removed again; a link of others, whatever its name, stays."""
    with attached(here, discover()) as (layer, attachment):
        layer.apply(attachment)
        for _ in range(2):
            layer.revert(attachment)
            assert link_index("ps-test") is None
            assert NIC not in links(here, attachment.namespace)
        ip(here, f"link add ps-test type veth peer name {PEER}")
        layer.revert(attachment)
        assert link_index("ps-test") is not None
        ip(here, "link delete ps-test")


def test_link_create_pid(here: Testbed) -> None:
    """ROOT_LinkCreatePid: one end is born in another namespace, and never seen here."""
    with attached(here, discover()) as (layer, attachment):
        before = set(links(here, here.host))
        layer.apply(attachment)
        assert set(links(here, here.host)) == before | {"ps-test"}
        assert NIC in links(here, attachment.namespace)


@pytest.mark.parametrize("mtu", [1400, 10000])
def test_link_mtu(here: Testbed, mtu: int) -> None:
    """ROOT_LinkMTU: the NIC inside has the host NIC's."""
    with attached(here, replace(discover(), mtu=mtu)) as (layer, attachment):
        layer.apply(attachment)
        assert links(here, attachment.namespace)[NIC]["mtu"] == mtu


# Queueing disciplines


def found(netlink: Rtnetlink, ifindex: int, kind: str) -> Queue | None:
    """The qdisc of this kind on a link."""
    return next((queue for queue in netlink.qdiscs() if (queue.ifindex, queue.kind) == (ifindex, kind)), None)


def test_ingress_qdisc(pair: tuple[int, int]) -> None:
    """ROOT_IngressQdisc, which is clsact here: on that end alone; again is fine; it has Mesos' nine counters."""
    veth, peer = pair
    with Rtnetlink() as netlink:
        assert found(netlink, veth, "clsact") is None
        bpf.create_clsact(veth)
        queue = found(netlink, veth, "clsact")
        assert queue is not None
        assert found(netlink, peer, "clsact") is None
        names = {"packets", "bytes", "ratebps", "ratepps", "qlen", "backlog", "drops", "requeues", "overlimits"}
        assert set(queue.counters._asdict()) == names
        bpf.create_clsact(veth)
        assert found(netlink, veth, "clsact") == queue
    with pytest.raises(NetworkError, match=r"^Failed to create the clsact qdisc: "):
        bpf.create_clsact(MISSING_INDEX)
    assert bpf.attached(veth, bpf.INGRESS, 1) is None
    for ifindex in (veth, peer, MISSING_INDEX):
        bpf.detach(ifindex, bpf.INGRESS, 1)  # nothing to remove is fine


def test_htb_qdisc(pair: tuple[int, int]) -> None:
    """ROOT_HTBQdisc: on that end alone; a second creation replaces it; removed once, and no second time."""
    veth, peer = pair
    with Rtnetlink() as netlink:
        assert found(netlink, veth, "htb") is None
        for rate in (MBIT, 10 * MBIT):
            htb.install(netlink, veth, Rate(rate))
            queue = found(netlink, veth, "htb")
            assert queue is not None
            assert (queue.handle, queue.parent, queue.counters) == (htb.QDISC, TC_H_ROOT, QueueCounters())
            setting = htb.setting_of(netlink, veth)
            assert setting is not None
            assert setting.rate == rate
            assert found(netlink, peer, "htb") is None
        htb.remove(netlink, veth)
        assert found(netlink, veth, "htb") is None
        assert htb.setting_of(netlink, veth) is None
        for ifindex in (veth, peer, MISSING_INDEX):
            with pytest.raises(FileNotFoundError):
                htb.remove(netlink, ifindex)
        with pytest.raises(OSError, match="No such device"):
            htb.install(netlink, MISSING_INDEX, Rate(MBIT))


@pytest.mark.parametrize("handle", [0x10000, 0])
def test_fq_codel_qdisc(pair: tuple[int, int], fq_codel: None, handle: int) -> None:
    """ROOT_FqCodeQdisc: with a handle of ours and with one of the kernel's."""
    veth, peer = pair
    with Rtnetlink() as netlink:
        assert found(netlink, veth, "fq_codel") is None
        fq_codel_discipline.install(netlink, veth, TC_H_ROOT, handle=handle)
        queue = found(netlink, veth, "fq_codel")
        assert queue is not None
        assert queue.handle == handle or (not handle and queue.handle)
        assert queue.counters == QueueCounters()
        assert found(netlink, peer, "fq_codel") is None
        with pytest.raises(FileExistsError):
            fq_codel_discipline.install(netlink, veth, TC_H_ROOT, handle=handle)
        fq_codel_discipline.remove(netlink, veth, TC_H_ROOT, queue.handle)
        assert found(netlink, veth, "fq_codel") is None
        with pytest.raises(OSError, match=r"Invalid argument|No such file"):
            fq_codel_discipline.remove(netlink, veth, TC_H_ROOT, queue.handle)


# What leads to a container: elements of port_owner in place of filters

ONE, TWO = 1, 2
FIRST, SECOND = PortSet.parse("1024-1027,2000"), PortSet.parse("1028-1031,65535")


@pytest.fixture(scope="module")
def loaded(ground: Testbed) -> Iterator[DataPlane]:
    plane = DataPlane(ground.directory / "bpf", priority=1)
    yield plane
    plane.close(remove=True)


@pytest.fixture
def plane(loaded: DataPlane) -> Iterator[DataPlane]:
    """The maps, in which the host owns every port."""
    yield loaded
    for slot in (ONE, TWO):
        loaded.close_slot(slot)
    assert len(loaded.ports(HOST)) == 65536


def test_ip_filter_create(plane: DataPlane) -> None:
    """ROOT_IPFilterCreate: what is read back is what was given, and nothing else changed."""
    plane.give(FIRST, ONE)
    assert plane.ports(ONE) == FIRST
    assert plane.ports(HOST) == ~FIRST


def test_ip_filter_create_duplicated(plane: DataPlane) -> None:
    """ROOT_IPFilterCreateDuplicated: a port has one owner, however often it is given, and to whomever."""
    for _ in range(2):
        plane.give(FIRST, ONE)
        assert plane.ports(ONE) == FIRST
    plane.give(PortSet.parse("1026-1027"), TWO)
    assert plane.ports(ONE) == PortSet.parse("1024-1025,2000")
    assert plane.ports(TWO) == PortSet.parse("1026-1027")


def test_ip_filter_create_multiple_and_remove(plane: DataPlane) -> None:
    """ROOT_IPFilterCreateMultiple, ROOT_IPFilterRemove: each is read back, and goes without the other."""
    plane.give(FIRST, ONE)
    plane.give(SECOND, TWO)
    assert (plane.ports(ONE), plane.ports(TWO)) == (FIRST, SECOND)
    plane.close_slot(ONE)
    assert (plane.ports(ONE), plane.ports(TWO)) == (PortSet(), SECOND)
    plane.close_slot(TWO)
    plane.close_slot(TWO)
    assert plane.ports(HOST) == PortSet((PortRange(0, 65535),))


def test_filter_update(plane: DataPlane, pair: tuple[int, int], tmp_path: Path) -> None:
    """ROOT_ARPFilterUpdate, ROOT_ICMPFilterUpdate for ports: what is new is added, what is no longer wanted goes, what
    stays is untouched; and of an attachment without its link nothing is made."""
    layer = Slot(plane, fair_queue=None)
    first = Attachment(
        id="test",
        slot=ONE,
        namespace=tmp_path,
        link=VETH,
        ephemeral=PortRange(32768, 32783),
        ports=FIRST,
        egress=None,
    )
    second = replace(first, ports=SECOND)
    layer.apply(first)
    assert layer.verify(first) == []
    assert layer.verify(second) != []
    layer.apply(second)
    assert layer.verify(second) == []
    assert plane.ports(ONE) == SECOND | PortSet((PortRange(32768, 32783),))
    with pytest.raises(NetworkError, match=f"^The link {MISSING} does not exist$"):
        layer.apply(replace(first, slot=TWO, link=MISSING))
    assert plane.ports(TWO) == PortSet()
