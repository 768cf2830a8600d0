"""The host's address inside, and one way out.

The address is a /32: every other one, on the host's own network too, goes out by the default route, through a
link-local gateway that exists only as a permanent neighbour entry. So a container needs no ARP; where the packet
really goes is decided on the host, by the host's routes and neighbours.
"""

import socket

from portslice.network import namespaces
from portslice.network.attachment import Attachment
from portslice.network.dataplane import CONTAINER_NIC_INDEX
from portslice.network.host import Host, routes

GATEWAY = "169.254.1.1"


class Addresses:
    """Address, default route, neighbour."""

    name = "addresses"

    def __init__(self, host: Host) -> None:
        self._host = host

    def apply(self, attachment: Attachment) -> None:
        host = self._host
        with namespaces.entered(attachment.namespace), routes() as iproute:
            iproute.addr("replace", index=CONTAINER_NIC_INDEX, address=str(host.address.ip), prefixlen=32)
            # 0x80, NUD_PERMANENT: never asked for, never forgotten.
            iproute.neigh("replace", dst=GATEWAY, lladdr=host.mac, ifindex=CONTAINER_NIC_INDEX, state=0x80)
            # 4, RTNH_F_ONLINK: the gateway is on no network of ours.
            iproute.route("replace", dst="default", gateway=GATEWAY, oif=CONTAINER_NIC_INDEX, flags=4)

    def verify(self, attachment: Attachment) -> list[str]:
        problems = []
        with namespaces.entered(attachment.namespace), routes() as iproute:
            entries = iproute.get_addr(family=socket.AF_INET, index=CONTAINER_NIC_INDEX)
            if str(self._host.address.ip) not in [entry.get("local") for entry in entries]:
                problems.append(f"the container does not have the address {self._host.address.ip}")
            if not iproute.get_default_routes(family=socket.AF_INET):
                problems.append("the container has no default route")
        return problems

    def revert(self, attachment: Attachment) -> None:
        """They go with the link."""
