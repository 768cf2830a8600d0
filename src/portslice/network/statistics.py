"""What the kernel counts for an attachment, as members of Mesos' ResourceStatistics.

Of each container one rtnetlink socket stays open in its namespace: it reads the counters of the NIC inside and of its
queues. They are the container's own view of both directions, and on the inside alone every packet is counted: what is
redirected into a container (bpf_redirect_peer) passes the host end of the veth by. So a sample of the rates is a short
request for each container, not a dump of the host's links.

What only /proc and sock_diag know is read on entering the namespace (portslice.network.protocols).
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portslice.network import namespaces, protocols
from portslice.network.attachment import Attachment
from portslice.network.dataplane import CONTAINER_NIC_INDEX, DataPlane
from portslice.network.qdiscs import chain
from portslice.network.rtnetlink import Queue, Rtnetlink
from portslice.rates import Rate
from portslice.sampling import RateSampler, Sampling, nearest_rank

Statistics = dict[str, Any]

_RTT_PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Extras:
    """Groups of statistics that the operator wants besides those that are always there.

    :param connections: how many TCP connections there are.
    :param round_trips: percentiles of their round-trip times.
    :param snmp: the protocols' counters.
    :param rates: rates of the NIC's counters, of samples taken so.
    """

    connections: bool = False
    round_trips: bool = False
    snmp: bool = False
    rates: Sampling | None = None


@dataclass
class _Watched:
    netlink: Rtnetlink
    rates: RateSampler | None


class NetworkStatistics:
    """Of the attachments of one agent. Not for several threads at once."""

    def __init__(self, plane: DataPlane, extras: Extras) -> None:
        self._plane = plane
        self._extras = extras
        self._host = Rtnetlink()  # where the other ends of the veths are
        self._watched: dict[str, _Watched] = {}

    def usage(self, attachment: Attachment) -> Statistics:
        """Everything, now.

        :raises OSError, NetworkError: the namespace, or the NIC in it, does not answer.
        """
        watched = self._watch(attachment)
        counters = watched.netlink.link_counters(CONTAINER_NIC_INDEX)
        statistics: Statistics = {f"net_{name}": value for name, value in counters._asdict().items()}
        statistics["net_ephemeral_ports"] = {"begin": attachment.ephemeral.begin, "end": attachment.ephemeral.end}
        statistics |= _limit("tx", attachment.egress) | _limit("rx", attachment.ingress)
        if entries := self._queues(attachment, watched.netlink):
            statistics["net_traffic_control_statistics"] = entries
        statistics |= inside(attachment.namespace, self._extras)
        if watched.rates is not None:
            statistics["net_rate_statistics"] = watched.rates.statistics()
        # Beyond Mesos: what was refused, and the port that the container last tried to use without owning it.
        statistics["net_drops"] = self._plane.drops(attachment.slot)
        if (sample := self._plane.drop_sample(attachment.slot, "foreign_port")) is not None:
            statistics["net_last_foreign_port"] = sample.source_port
        return statistics

    def sample(self, attachment: Attachment) -> None:
        """One more sample of the rates. Where the NIC has gone, there is none; `usage` says why."""
        with suppress(OSError):
            watched = self._watch(attachment)
            if watched.rates is not None:
                counters = watched.netlink.link_counters(CONTAINER_NIC_INDEX)
                watched.rates.sample(time.monotonic(), counters._asdict())

    def forget(self, attachment: Attachment) -> None:
        """The container ends: let go of its namespace."""
        if watched := self._watched.pop(attachment.id, None):
            watched.netlink.close()

    def close(self) -> None:
        """Let go of everything."""
        for watched in self._watched.values():
            watched.netlink.close()
        self._watched.clear()
        self._host.close()

    def _watch(self, attachment: Attachment) -> _Watched:
        watched = self._watched.get(attachment.id)
        if watched is None:
            sampling = self._extras.rates
            watched = _Watched(Rtnetlink(attachment.namespace), RateSampler(sampling) if sampling else None)
            self._watched[attachment.id] = watched
        return watched

    def _queues(self, attachment: Attachment, netlink: Rtnetlink) -> list[Statistics]:
        entries = []
        if attachment.ingress is not None and (slot := self._plane.slot(attachment.slot)) is not None:
            entries += _traffic_control("ingress_", chain.queues(self._host, slot.ifindex))
        if attachment.egress is not None:
            entries += _traffic_control("", chain.queues(netlink, CONTAINER_NIC_INDEX))
        return entries


def inside(namespace: Path, extras: Extras) -> Statistics:
    """What the protocols of a namespace count, as far as it is wanted.

    :raises OSError, NetworkError: it does not tell.
    """
    statistics: Statistics = {}
    if not (extras.connections or extras.round_trips or extras.snmp):
        return statistics
    with namespaces.entered(namespace):
        if extras.connections:
            found = protocols.connections()
            statistics["net_tcp_active_connections"] = float(found.active)
            statistics["net_tcp_time_wait_connections"] = float(found.time_wait)
        if extras.round_trips and (times := sorted(protocols.round_trips())):
            for percent in _RTT_PERCENTILES:
                statistics[f"net_tcp_rtt_microsecs_p{percent}"] = float(nearest_rank(times, percent))
        if extras.snmp:
            counters = protocols.snmp()
            statistics["net_snmp_statistics"] = {f"{name.lower()}_stats": each for name, each in counters.items()}
    return statistics


def _limit(direction: str, limit: Rate | None) -> Statistics:
    """The limit in effect; the burst's members only where a ceiling is."""
    if limit is None:
        return {}
    values = {"rate_limit": limit.rate, "burst_rate_limit": limit.ceil, "burst_size": limit.burst}
    return {f"net_{direction}_{name}": value for name, value in values.items() if value is not None}


def _traffic_control(prefix: str, queues: tuple[Queue | None, Queue | None]) -> list[Statistics]:
    """Mesos' TrafficControlStatistics of those queues that there are."""
    return [
        {"id": f"{prefix}{name}", **queue.counters._asdict()}
        for name, queue in zip(("bw_limit", "bloat_reduction"), queues, strict=True)
        if queue is not None
    ]
