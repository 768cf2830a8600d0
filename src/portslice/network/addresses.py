"""The host's addresses, followed while they change.

The programs must know all of them, to tell this host from the world; the containers have those of the NICs themselves.
The kernel says when one comes or goes (rtnetlink(7), RTMGRP_IPV4_IFADDR and its like): the reader of `changes` then
calls `refresh`. Link-local IPv6 addresses are the host's alone: they mean something on one link only.
"""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv6Address

from portslice.network.dataplane import IPAddress
from portslice.network.iproute import routes

_GROUP_IPV4, _GROUP_IPV6 = 0x10, 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_DAD_FAILED, _TENTATIVE = 0x08, 0x40  # IFA_F_*


class HostAddresses:
    """What the host is called at the moment.

    :ivar own: all its addresses but the loopback's own networks, which the programs know by their prefixes.
    :ivar broadcast: the broadcast addresses of the IPv4 networks that it is on.
    :ivar shared: the NICs' addresses in the kernel's order, which the containers have too; an IPv4 one comes first.
    """

    def __init__(self, nics: Iterable[int], *, ipv6: bool) -> None:
        """:param nics: interface indexes."""
        self._nics = tuple(nics)
        self._ipv6 = ipv6
        self.own: frozenset[IPAddress] = frozenset()
        self.broadcast: frozenset[IPv4Address] = frozenset()
        self.shared: tuple[IPAddress, ...] = ()
        self.changes = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self.changes.bind((0, _GROUP_IPV4 | (_GROUP_IPV6 if ipv6 else 0)))
        self.refresh()

    def refresh(self) -> bool:
        """Read them anew; whether they differ from what they were."""
        before = self.own, self.broadcast, self.shared
        own: set[IPAddress] = set()
        broadcast: set[IPv4Address] = set()
        shared: dict[int, list[IPAddress]] = {nic: [] for nic in self._nics}
        with routes() as iproute:
            for entry in iproute.get_addr(family=socket.AF_INET):
                remote = IPv4Interface(f"{entry.get('address') or entry.get('local')}/{entry['prefixlen']}")
                address = IPv4Address(entry.get("local") or entry.get("address"))
                own.add(address)
                shared.get(entry["index"], []).append(address)
                # The kernel's routes know the network's last address as one, whether it is configured so or not.
                if entry["prefixlen"] < 31:
                    broadcast.add(remote.network.broadcast_address)
                if configured := entry.get("broadcast"):
                    broadcast.add(IPv4Address(configured))
            for entry in iproute.get_addr(family=socket.AF_INET6) if self._ipv6 else ():
                address6 = IPv6Address(entry.get("local") or entry.get("address"))
                if address6.is_link_local or (entry.get("flags") or 0) & (_DAD_FAILED | _TENTATIVE):
                    continue
                own.add(address6)
                shared.get(entry["index"], []).append(address6)
        self.own = frozenset(address for address in own if not address.is_loopback)
        self.broadcast = frozenset(address for address in broadcast if not address.is_loopback)
        self.shared = tuple(address for nic in self._nics for address in shared[nic])
        return before != (self.own, self.broadcast, self.shared)

    def drain(self) -> None:
        """Forget the messages that have come on `changes`: that there are some is all they say."""
        try:
            while self.changes.recv(1 << 16):
                pass
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: some were lost, which makes no difference
            return

    def close(self) -> None:
        """Stop listening."""
        self.changes.close()
