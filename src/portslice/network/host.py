"""The host as its containers share it: which NIC, whose address, how fast; and what the data plane changes on it.

`discover` only reads. `prepare` puts the programs on the NIC and on the loopback and sets what they need there; all of
it stays when the agent stops, because the containers' traffic goes on. `release` takes it back when none is left.
"""

import array
import errno
import fcntl
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from portslice.errors import NetworkError
from portslice.network import bpf, sysctl
from portslice.network.addresses import HostAddresses
from portslice.network.dataplane import DataPlane, HostLinks
from portslice.network.iproute import routes
from portslice.network.qdiscs import fq_codel
from portslice.network.rtnetlink import TC_H_ROOT, Rtnetlink

_MAIN_TABLE = 254
_IFF_LOOPBACK = 0x8

# Copied into every container as Mesos does, so that tuning done on the host holds inside as well.
REPLAYED_SYSCTLS = (
    *(f"core/{name}" for name in ("somaxconn", "netdev_max_backlog", "rmem_max", "wmem_max")),
    *(f"ipv4/tcp_{name}" for name in ("ecn", "ecn_fallback", "keepalive_time", "keepalive_intvl", "keepalive_probes")),
    *(f"ipv4/tcp_{name}" for name in ("max_syn_backlog", "rmem", "retries2", "synack_retries", "wmem")),
    *(f"ipv4/neigh/default/gc_thresh{n}" for n in (1, 2, 3)),
)


@dataclass(frozen=True)
class Host:
    """What the containers take over from the host.

    :param nic: the public interface, whose name, MAC address and MTU the NIC inside every container has.
    :param nics: interface indexes of the public interfaces by name, that one first.
    :param address: its first address; the containers have all (portslice.network.addresses).
    :param ipv6: containers have IPv6, too.
    :param host_loopback: containers reach services on the host's loopback.
    """

    nic: str
    nics: dict[str, int]
    loopback: str
    loopback_index: int
    loopback_mac: bytes
    address: IPv4Interface
    mac: str
    mtu: int
    gateway: IPv4Address
    sysctls: tuple[tuple[str, str], ...]
    ipv6: bool
    host_loopback: bool


@dataclass(frozen=True)
class FairQueue:
    """One flow per container on the NIC.

    :param parent: class of the NIC's qdisc below which it hangs, or TC_H_ROOT.
    """

    parent: int

    @property
    def handle(self) -> int:
        """1:0 at the root, else the next major number after the parent's, as in Mesos."""
        return 0x10000 if self.parent == TC_H_ROOT else ((self.parent >> 16) + 1) << 16

    def priority(self, slot: int) -> int:
        """The class id that names a slot's flow."""
        return self.handle | slot


def interfaces(nics: str | None = None, loopback: str | None = None) -> tuple[list[str], str]:
    """The names of the public interfaces and of the loopback.

    :param nics: names, separated by commas; the default route's interface if None.
    :raises NetworkError: with Mesos' words for what is missing.
    """
    with routes() as iproute:
        links = {link.get("ifname"): link for link in iproute.get_links()}
        indices = [route.get("oif") for route in _default_routes(iproute)]
    if nics is None:
        names = {link["index"]: name for name, link in links.items()}
        public = [names[index] for index in indices if index in names][:1]
        if not public:
            raise NetworkError("Network Isolator failed to find a public interface: does not have a public interface")
    else:
        public = list(dict.fromkeys(name.strip() for name in nics.split(",")))
        for name in public:
            if name not in links:
                raise NetworkError(f"The public interface {name} does not exist")
    if loopback is None:
        loopback = next((name for name, link in sorted(links.items()) if link["flags"] & _IFF_LOOPBACK), None)
        if loopback is None:
            raise NetworkError(
                "Network Isolator failed to find a loopback interface: does not have a loopback interface"
            )
    elif loopback not in links:
        raise NetworkError(f"The loopback interface {loopback} does not exist")
    return public, loopback


def discover(
    nics: str | None = None, loopback: str | None = None, *, ipv6: bool = True, host_loopback: bool = True
) -> Host:
    """Find the interfaces and what the containers share of them.

    :param nics: names, separated by commas; the default route's interface if None.
    :raises NetworkError: with Mesos' words for what is missing.
    """
    public, loopback = interfaces(nics, loopback)
    nic = public[0]
    with routes() as iproute:
        links = {link.get("ifname"): link for link in iproute.get_links()}
        link = links[nic]
        address = next(
            (
                IPv4Interface(f"{entry.get('local') or entry.get('address')}/{entry['prefixlen']}")
                for entry in iproute.get_addr(family=socket.AF_INET, index=link["index"])
            ),
            None,
        )
        gateway = next((route.get("gateway") for route in _default_routes(iproute) if route.get("gateway")), None)
    if address is None:
        raise NetworkError(f"Failed to get the public IP network of {nic}: does not have an IPv4 network")
    mac = link.get("address")
    if not mac or mac == "00:00:00:00:00:00":
        raise NetworkError(f"Failed to get the MAC address of {nic}: does not have a MAC address")
    if gateway is None:
        raise NetworkError(
            "Failed to get the default gateway of the host: The default gateway of the host does not exist"
        )
    loopback_mac = bytes.fromhex((links[loopback].get("address") or "00" * 6).replace(":", ""))
    values = ((name, sysctl.read(name)) for name in REPLAYED_SYSCTLS)
    return Host(
        nic=nic,
        nics={name: links[name]["index"] for name in public},
        loopback=loopback,
        loopback_index=links[loopback]["index"],
        loopback_mac=loopback_mac,
        address=address,
        mac=mac,
        mtu=link.get("mtu"),
        gateway=IPv4Address(gateway),
        sysctls=tuple((name, value) for name, value in values if value is not None),
        ipv6=ipv6 and sysctl.read("ipv6/conf/all/disable_ipv6") == "0",
        host_loopback=host_loopback,
    )


def _default_routes(iproute: Any) -> list[Any]:
    return list(iproute.get_default_routes(family=socket.AF_INET, table=_MAIN_TABLE))


def link_speed(nic: str) -> int | None:
    """Bytes per second of a link by ethtool(8)'s ETHTOOL_GSET; None where the driver does not know.

    Virtual NICs answer with an error or -1, which Mesos took for a speed (MESOS-7074).
    """
    ethtool_gset, siocethtool = 0x1, 0x8946
    command = array.array("B", struct.pack("=I40x", ethtool_gset))
    request = struct.pack("16sP", nic.encode(), command.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, siocethtool, request)
        except OSError:
            return None
    # struct ethtool_cmd: speed at 12, speed_hi at 28; megabits per second
    low, high = struct.unpack_from("=H14xH", command, 12)
    speed = low | high << 16
    return None if speed in (0, 0xFFFF, 0xFFFFFFFF) else speed * 1_000_000 // 8


def prepare(host: Host, plane: DataPlane, addresses: HostAddresses, fair_queue: FairQueue | None) -> None:
    """Put the data plane on the host. Safe to repeat: programs are replaced in place, without a gap in the traffic.

    :raises NetworkError: with Mesos' words for what failed.
    """
    plane.configure(
        HostLinks(
            host.loopback_index,
            host.loopback_mac,
            container_mac=bytes.fromhex(host.mac.replace(":", "")),
            container_mtu=host.mtu,
            ipv6=host.ipv6,
            host_loopback=host.host_loopback,
        )
    )
    plane.set_host_addresses(addresses.own, addresses.broadcast)
    if fair_queue is not None:
        for nic, index in host.nics.items():
            _install_fair_queue(nic, index, fair_queue)
    # A container's packet to the host comes in on lo with the host's or a loopback source address.
    for name, value in (("route_localnet", "1"), ("rp_filter", "0"), ("accept_local", "1")):
        try:
            sysctl.write(f"ipv4/conf/{host.loopback}/{name}", value)
        except OSError as error:
            raise NetworkError(f"Failed to set {name} for {host.loopback}: {error.strerror}") from error
    plane.attach(host.loopback_index, bpf.INGRESS, "host_loopback")
    for index in host.nics.values():
        plane.attach(index, bpf.INGRESS, "host_ingress")


def release(host: Host, plane: DataPlane, fair_queue: FairQueue | None) -> None:
    """Take the data plane from the host."""
    for ifindex in (*host.nics.values(), host.loopback_index):
        plane.detach(ifindex, bpf.INGRESS)
    if fair_queue is not None:
        for ifindex in host.nics.values():
            with Rtnetlink() as netlink, suppress(OSError):
                fq_codel.remove(netlink, ifindex, fair_queue.parent, fair_queue.handle)


def _install_fair_queue(nic: str, ifindex: int, fair_queue: FairQueue) -> None:
    with Rtnetlink() as netlink:
        for queue in netlink.qdiscs():
            at_parent = queue.ifindex == ifindex and queue.parent == fair_queue.parent
            if at_parent and queue.handle:  # the kernel's own default qdiscs have no handle and are replaced
                if queue.kind == "fq_codel" and queue.handle == fair_queue.handle:
                    return  # ours, from before
                raise NetworkError(f"Egress qdisc already exists on {nic}")
        try:
            fq_codel.install(netlink, ifindex, fair_queue.parent, handle=fair_queue.handle, flows=fq_codel.FLOWS)
        except OSError as error:
            reason = "no such parent class" if error.errno == errno.ENOENT else os.strerror(error.errno or 0)
            raise NetworkError(f"Failed to create the egress qdisc on {nic}: {reason}") from error
