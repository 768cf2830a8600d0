"""The veth pair: the NIC inside has the host's MAC address and the host NIC's name, as in Mesos.

The NIC is born inside the namespace, with its name, its address and a fixed index: nothing of it ever shows on the
host, and udev has no time to rewrite a MAC address that came with the request (MESOS-10243). The host end bears our
mark from its birth, too: a link group, of which `ip link show group 20563` lists all.
"""

import errno
import os
import socket

from pyroute2.netlink.exceptions import NetlinkError

from portslice.errors import NetworkError
from portslice.network import namespaces, sysctl
from portslice.network.attachment import Attachment
from portslice.network.dataplane import CONTAINER_NIC_INDEX
from portslice.network.host import Host
from portslice.network.iproute import routes

GROUP = 0x5053  # "PS"


class Link:
    """The veth pair."""

    name = "link"

    def __init__(self, host: Host) -> None:
        self._host = host

    def apply(self, attachment: Attachment) -> None:
        host = self._host
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Asked for from the inside, with the host end as the peer: the kernel heeds no index asked for a peer.
            with namespaces.entered(attachment.namespace), routes() as iproute:
                iproute.link(
                    "add",
                    kind="veth",
                    ifname=host.nic,
                    address=host.mac,
                    mtu=host.mtu,
                    index=CONTAINER_NIC_INDEX,
                    peer={
                        "ifname": attachment.link,
                        "address": host.mac,
                        "mtu": host.mtu,
                        "group": GROUP,
                        "net_ns_fd": home,
                    },
                )
        finally:
            os.close(home)
        with routes() as iproute:
            # Router solicitations and the like: the host end speaks no protocol of its own.
            sysctl.write_if_possible(f"ipv6/conf/{attachment.link}/disable_ipv6", "1")
            # The look-up of a way out (bpf_fib_lookup) is one for a router, and wants its input to be one. Nothing is
            # ever forwarded by the stack: what comes in here ends in the program on this link.
            for family in ("ipv4", "ipv6"):
                sysctl.write_if_possible(f"{family}/conf/{attachment.link}/forwarding", "1")
            index = link_index(attachment.link)
            iproute.link("set", index=index, ifalias=f"portslice {attachment.id}")
            iproute.link("set", index=index, state="up")
        with namespaces.entered(attachment.namespace), routes() as iproute:
            for name, value in self._ipv6().items():
                sysctl.write_if_possible(f"ipv6/conf/{name}", value)
            loopback = iproute.link_lookup(ifname="lo")[0]
            # The NIC's MTU, so that TCP's segments stay small enough to be shaped; larger datagrams are fragmented.
            iproute.link("set", index=loopback, mtu=host.mtu, state="up")
            iproute.link("set", index=CONTAINER_NIC_INDEX, state="up")

    def _ipv6(self) -> dict[str, str]:
        """Before the NIC is up: it takes no address but those given to it, asks for none, and has no link-local one."""
        if not self._host.ipv6:
            return {"all/disable_ipv6": "1"}
        silent = ("accept_ra", "autoconf", "router_solicitations", "accept_dad", "dad_transmits")
        values = {**dict.fromkeys(silent, "0"), "addr_gen_mode": "1"}
        return {f"{self._host.nic}/{name}": value for name, value in values.items()}

    def verify(self, attachment: Attachment) -> list[str]:
        if link_index(attachment.link) is None:
            return [f"the link {attachment.link} is gone"]
        return []

    def revert(self, attachment: Attachment) -> None:
        # By its index: pyroute2 would look for a name in a dump of all links.
        index = link_index(attachment.link)
        if index is not None:
            remove(index)


def remove(index: int) -> None:
    """Remove a link that bears our mark. It may go by itself meanwhile: with the namespace that the other end is in."""
    try:
        with routes() as iproute:
            if iproute.link("get", index=index)[0].get("group") == GROUP:
                iproute.link("del", index=index)
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise


def index_of(attachment: Attachment) -> int:
    """Index of the host end.

    :raises NetworkError: it does not exist.
    """
    index = link_index(attachment.link)
    if index is None:
        raise NetworkError(f"The link {attachment.link} does not exist")
    return index


def link_index(name: str) -> int | None:
    """Index of a link in the calling thread's namespace."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None
