"""A lean rtnetlink socket for what is asked again and again: counters of links and queues, and the queues themselves.

pyroute2 makes the links and routes (once a container); decoding every attribute of every object makes it some hundred
times too slow for statistics. Here a request is packed by hand, and of the answer only what is asked for is decoded.
A socket stays in the network namespace in which it was opened: one per container, opened once, reads its queues
without entering the namespace again. Layouts: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h, linux/gen_stats.h.
"""

import errno
import os
import socket
import struct
from typing import NamedTuple

from portslice.network.netlink import ACK, DUMP, ECHO, Netlink, attribute, attributes

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTCLASS, RTM_DELTCLASS, RTM_GETTCLASS = 40, 41, 42
_RTM_GETSTATS = 94

REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400

TC_H_ROOT = 0xFFFFFFFF
TCA_KIND, TCA_OPTIONS, _TCA_STATS2 = 1, 2, 7
_TCA_STATS_BASIC, _TCA_STATS_RATE_EST, _TCA_STATS_QUEUE, _TCA_STATS_RATE_EST64, _TCA_STATS_PKT64 = 1, 2, 3, 5, 8
_IFLA_STATS_LINK_64 = 1

_TCMSG = struct.Struct("=BxxxiIII")
_IF_STATS_MSG = struct.Struct("=BxxxII")


class LinkCounters(NamedTuple):
    """struct rtnl_link_stats64, its first eight members."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


class QueueCounters(NamedTuple):
    """struct gnet_stats_{basic,rate_est,queue}; bytes, packets and their rates per second."""

    bytes: int = 0
    packets: int = 0
    ratebps: int = 0
    ratepps: int = 0
    qlen: int = 0
    backlog: int = 0
    drops: int = 0
    requeues: int = 0
    overlimits: int = 0


class Queue(NamedTuple):
    """A qdisc or class. `handle` and `parent` are major << 16 | minor."""

    ifindex: int
    handle: int
    parent: int
    kind: str
    options: bytes
    counters: QueueCounters


class Rtnetlink(Netlink):
    """A socket to the rtnetlink of one network namespace. Not for several threads at once."""

    _family = socket.NETLINK_ROUTE

    def link_counters(self, ifindex: int) -> LinkCounters:
        """The counters of a link, as `ip -s link` shows them.

        :raises OSError: ENODEV if there is no such link.
        """
        body = _IF_STATS_MSG.pack(0, ifindex, 1 << (_IFLA_STATS_LINK_64 - 1))
        for answer in self._request(_RTM_GETSTATS, 0, body):
            for kind, value in attributes(answer[_IF_STATS_MSG.size :]):
                if kind == _IFLA_STATS_LINK_64:
                    return LinkCounters(*struct.unpack_from("=8Q", value))
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    def qdiscs(self) -> list[Queue]:
        """All qdiscs of the namespace, with their counters."""
        return [_queue(answer) for answer in self._request(RTM_GETQDISC, DUMP, _TCMSG.pack(0, 0, 0, 0, 0))]

    def qdisc(self, ifindex: int, parent: int) -> Queue | None:
        """The qdisc at a parent of one link, with its counters: on a host with many links a dump of all is long.

        None if there is none but the kernel's own default. The kernel answers only who wants an echo, and of a default
        one nothing: so an acknowledgement is asked for, too.
        """
        try:
            answers = list(self._request(RTM_GETQDISC, ACK | ECHO, _TCMSG.pack(0, ifindex, 0, parent, 0)))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):
                return None
            raise
        return _queue(answers[0]) if answers else None

    def classes(self, ifindex: int) -> list[Queue]:
        """All classes of a link."""
        return [_queue(answer) for answer in self._request(RTM_GETTCLASS, DUMP, _TCMSG.pack(0, ifindex, 0, 0, 0))]

    def change(
        self,
        message: int,
        flags: int,
        ifindex: int,
        *,
        handle: int = 0,
        parent: int = TC_H_ROOT,
        kind: str = "",
        options: bytes = b"",
    ) -> None:
        """Make, change or remove a qdisc or class (RTM_NEWQDISC …).

        :raises OSError: what the kernel answered.
        """
        body = _TCMSG.pack(0, ifindex, handle, parent, 0)
        if kind:
            body += attribute(TCA_KIND, kind.encode() + b"\0")
        if options:
            body += attribute(TCA_OPTIONS, options)
        for _ in self._request(message, flags | ACK, body):
            pass


def _queue(message: bytes) -> Queue:
    _family, ifindex, handle, parent, _info = _TCMSG.unpack_from(message)
    kind, options, counters = "", b"", QueueCounters()
    for attribute_kind, value in attributes(message[_TCMSG.size :]):
        if attribute_kind == TCA_KIND:
            kind = value.rstrip(b"\0").decode()
        elif attribute_kind == TCA_OPTIONS:
            options = value
        elif attribute_kind == _TCA_STATS2:
            counters = _counters(value)
    return Queue(ifindex, handle, parent, kind, options, counters)


def _counters(stats: bytes) -> QueueCounters:
    octets = packets = ratebps = ratepps = qlen = backlog = drops = requeues = overlimits = 0
    for kind, value in attributes(stats):
        if kind == _TCA_STATS_BASIC:
            octets, packets32 = struct.unpack_from("=QI", value)
            packets = packets or packets32
        elif kind == _TCA_STATS_PKT64:
            (packets,) = struct.unpack_from("=Q", value)
        elif kind == _TCA_STATS_RATE_EST:
            ratebps, ratepps = struct.unpack_from("=II", value)
        elif kind == _TCA_STATS_RATE_EST64:
            ratebps, ratepps = struct.unpack_from("=QQ", value)
        elif kind == _TCA_STATS_QUEUE:
            qlen, backlog, drops, requeues, overlimits = struct.unpack_from("=IIIII", value)
    return QueueCounters(octets, packets, ratebps, ratepps, qlen, backlog, drops, requeues, overlimits)
