"""What the protocols of a network namespace count: TCP connections, their round-trip times, and the SNMP counters.

Everything here tells of the calling thread's own namespace: the agent enters a container's for the moment
(portslice.network.namespaces.entered), which costs microseconds, where Mesos forks a helper for every container and
request. /proc/thread-self is the thread that entered it; /proc/self would be the process' first thread.

Beyond Mesos, connections over IPv6 count, too.
"""

import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from portslice.network import sockdiag
from portslice.network.sockdiag import SockDiag

_NET = Path("/proc/thread-self/net")
_RTT = struct.Struct("=68xI")  # struct tcp_info up to tcpi_rtt
# States in which nobody has answered yet, or of which the kernel keeps no struct tcp_info any more.
_WITHOUT_RTT = {sockdiag.TIME_WAIT, sockdiag.CLOSE, sockdiag.LISTEN, sockdiag.NEW_SYN_RECV}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The members of Mesos' IpStatistics, IcmpStatistics, TcpStatistics and UdpStatistics: newer kernels have more columns.
SNMP = {
    "Ip": _names(
        "Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers "
        "OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates"
    ),
    "Icmp": _names(
        "InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos "
        "InEchoReps InTimestamps InTimestampReps InAddrMasks InAddrMaskReps "
        "OutMsgs OutErrors OutDestUnreachs OutTimeExcds OutParmProbs OutSrcQuenchs OutRedirects OutEchos "
        "OutEchoReps OutTimestamps OutTimestampReps OutAddrMasks OutAddrMaskReps"
    ),
    "Tcp": _names(
        "RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs "
        "RetransSegs InErrs OutRsts InCsumErrors"
    ),
    "Udp": _names("InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti"),
}
# Those of them that count nothing.
SNMP_GAUGES = _names("CurrEstab")
SNMP_SETTINGS = _names("Forwarding DefaultTTL ReasmTimeout RtoAlgorithm RtoMin RtoMax MaxConn")


class Connections(NamedTuple):
    """Sockets of TCP.

    :param active: those in use, which wait for connections included.
    :param time_wait: what is left of closed ones.
    """

    active: int
    time_wait: int


def connections() -> Connections:
    """The sums in /proc/net/sockstat and sockstat6."""
    lines = (_NET / "sockstat").read_text().splitlines()
    with suppress(FileNotFoundError):  # a kernel without IPv6
        lines += (_NET / "sockstat6").read_text().splitlines()
    active = time_wait = 0
    for line in lines:
        protocol, _, words = line.partition(": ")
        if protocol in ("TCP", "TCP6"):
            fields = words.split()
            values = dict(zip(fields[::2], map(int, fields[1::2]), strict=True))
            active += values["inuse"]
            time_wait += values.get("tw", 0)  # told once, for both families
    return Connections(active, time_wait)


def round_trips() -> list[int]:
    """The smoothed round-trip time of each TCP connection that knows one, in microseconds.

    :raises NetworkError: the kernel does not list its sockets.
    """
    with SockDiag() as diag:
        listed = diag.sockets(sockdiag.TCP, states=sockdiag.ALL_STATES - _WITHOUT_RTT, extension=sockdiag.INFO)
        infos = [found.extensions[sockdiag.INFO] for found in listed if sockdiag.INFO in found.extensions]
    return [rtt for (rtt,) in map(_RTT.unpack_from, infos) if rtt]


def snmp() -> dict[str, dict[str, int]]:
    """/proc/net/snmp: for each protocol of `SNMP` its counters by their names there."""
    lines = (_NET / "snmp").read_text().splitlines()
    found = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        protocol, _, columns = names.partition(": ")
        if (wanted := SNMP.get(protocol)) is not None:
            counters = zip(columns.split(), map(int, values.split()[1:]), strict=True)
            found[protocol] = {name: value for name, value in counters if name in wanted}
    return found
