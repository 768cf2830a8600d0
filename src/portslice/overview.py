"""A container at a glance: what `portslice top` and the dashboard show of each, made from the snapshot.

An overview is flat and small (a few hundred bytes), so that a thousand of them can be sent every second. Counters count
since the container's start; a reader makes rates of two overviews and their timestamps.
"""

from typing import Any

from portslice.statistics import Usage

_AS_THEY_ARE = {
    "timestamp": "timestamp",
    "cpus_soft_limit": "cpus_limit",  # where it is a share only, no hard limit is there to be shown
    "cpus_limit": "cpus_limit",
    "mem_limit_bytes": "mem_limit_bytes",
    "net_rx_bytes": "rx_bytes",
    "net_rx_packets": "rx_packets",
    "net_tx_bytes": "tx_bytes",
    "net_tx_packets": "tx_packets",
    "net_rx_rate_limit": "rx_limit",
    "net_tx_rate_limit": "tx_limit",
    "net_ephemeral_ports_in_use": "ephemeral_ports_in_use",
    "net_tcp_rtt_microsecs_p50": "rtt_microsecs_p50",
    "net_tcp_rtt_microsecs_p90": "rtt_microsecs_p90",
    "net_tcp_rtt_microsecs_p99": "rtt_microsecs_p99",
    "net_drops": "refused",
}
# Which queue tells of how much waits (HTB's own count is of its children's, too), and of how much was dropped.
_QUEUES = {"tx": ("bw_limit", "bloat_reduction"), "rx": ("ingress_bw_limit", "ingress_bloat_reduction")}


def overview(usage: Usage) -> dict[str, Any]:
    """One container. What is not known is not a member.

    Seconds, bytes, bytes per second, packets; `ports` are [begin, end] pairs, both inclusive, `refused` are packets by
    reason, `rx_queue` and `tx_queue` what the queueing disciplines hold and have dropped: {bytes, packets, drops}.
    """
    container, statistics = usage.container, usage.statistics
    shown: dict[str, Any] = {
        "name": container.name,
        "id": container.id,
        "created": container.created,
        "command": " ".join(container.command)[:80],
    }
    if (network := container.network) is not None:
        shown["ports"] = [[each.begin, each.end] for each in network.ports.ranges]
        shown["ephemeral_ports"] = [network.ephemeral.begin, network.ephemeral.end]
    shown |= {ours: statistics[theirs] for theirs, ours in _AS_THEY_ARE.items() if theirs in statistics}
    cpu = [statistics.get(f"cpus_{kind}_time_secs") for kind in ("user", "system")]
    if None not in cpu:
        shown["cpu_secs"] = sum(each for each in cpu if each is not None)
    if (memory := statistics.get("mem_total_bytes", statistics.get("mem_rss_bytes"))) is not None:
        shown["mem_bytes"] = memory
    entries = {entry["id"]: entry for entry in statistics.get("net_traffic_control_statistics", [])}
    for way, names in _QUEUES.items():
        if found := [entries[name] for name in names if name in entries]:
            shown[f"{way}_queue"] = {
                "bytes": max(entry["backlog"] for entry in found),
                "packets": max(entry["qlen"] for entry in found),
                "drops": max(entry["drops"] for entry in found),
            }
    return shown
