"""The host's addresses inside, and one way out.

Each address is alone (/32, /128): every other one, on the host's own networks too, goes out by the default route,
through a link-local gateway that exists only as a permanent neighbour entry. So a container needs no ARP and no
neighbour discovery; where a packet really goes is decided on the host, by the host's routes and neighbours.

IPv6 addresses lie on the loopback inside: on the NIC each would join a multicast group, and the container would report
that to the network without having said a word itself.
"""

import socket
from ipaddress import ip_address
from typing import Any

from portslice.network import namespaces
from portslice.network.addresses import HostAddresses
from portslice.network.attachment import Attachment
from portslice.network.dataplane import CONTAINER_LOOPBACK_INDEX, CONTAINER_NIC_INDEX, IPAddress
from portslice.network.host import Host
from portslice.network.iproute import routes

GATEWAYS = {socket.AF_INET: "169.254.1.1", socket.AF_INET6: "fe80::1"}
_IFA_F_NODAD = 0x02  # usable at once: until the kernel has got round to an address, nothing can be bound to it
_NUD_PERMANENT = 0x80  # never asked for, never forgotten
_RTNH_F_ONLINK = 4  # the gateway is on no network of ours
_HOME = {socket.AF_INET: CONTAINER_NIC_INDEX, socket.AF_INET6: CONTAINER_LOOPBACK_INDEX}


class Addresses:
    """Addresses, default routes, neighbours."""

    name = "addresses"

    def __init__(self, host: Host, addresses: HostAddresses) -> None:
        self._host = host
        self._addresses = addresses

    @property
    def _families(self) -> tuple[socket.AddressFamily, ...]:
        return (socket.AF_INET, socket.AF_INET6) if self._host.ipv6 else (socket.AF_INET,)

    def apply(self, attachment: Attachment) -> None:
        with namespaces.entered(attachment.namespace), routes() as iproute:
            wanted, present = self._addresses.shared, self._present(iproute)
            for address in wanted:
                if address not in present:
                    iproute.addr("add", **_address(address), flags=_IFA_F_NODAD)
            for family in self._families:
                self._add_way_out(iproute, family)
            for address in present:
                if address not in wanted:
                    iproute.addr("del", **_address(address))

    def verify(self, attachment: Attachment) -> list[str]:
        problems = []
        with namespaces.entered(attachment.namespace), routes() as iproute:
            present = self._present(iproute)
            problems += [
                f"the container does not have the address {address}"
                for address in self._addresses.shared
                if address not in present
            ]
            problems += [
                f"the container has the address {address}, which is not the host's"
                for address in present
                if address not in self._addresses.shared
            ]
            for family in self._families:
                if not iproute.get_default_routes(family=family):
                    problems.append(f"the container has no default route for {family.name.removeprefix('AF_')}")
        return problems

    def revert(self, attachment: Attachment) -> None:
        """They go with the link."""

    def _present(self, iproute: Any) -> list[IPAddress]:
        found: list[IPAddress] = []
        for family in self._families:
            for entry in iproute.get_addr(family=family, index=_HOME[family]):
                address = ip_address(entry.get("local") or entry.get("address"))
                if not address.is_loopback:
                    found.append(address)
        return found

    def _add_way_out(self, iproute: Any, family: socket.AddressFamily) -> None:
        gateway = GATEWAYS[family]
        iproute.neigh(
            "replace",
            family=family,
            dst=gateway,
            lladdr=self._host.mac,
            ifindex=CONTAINER_NIC_INDEX,
            state=_NUD_PERMANENT,
        )
        route = {"family": family, "dst": "default", "gateway": gateway, "oif": CONTAINER_NIC_INDEX}
        iproute.route("replace", **route, flags=_RTNH_F_ONLINK)


def _address(address: IPAddress) -> dict[str, object]:
    """pyroute2's words for an address inside."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return {"index": _HOME[family], "address": str(address), "prefixlen": address.max_prefixlen}
