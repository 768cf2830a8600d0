"""The order in which protobuf declares the members of ResourceStatistics, and so in which /api/v1 shows them.

The numbers are those of the fields (mesos.proto of 1.11; 46 to 55 are of its successor that was never released). What
is not in the table is ours, and comes last.
"""

from collections.abc import Mapping
from typing import Any

Order = Mapping[str, "Order | None"]


def _plain(names: str) -> Order:
    return dict.fromkeys(names.split())


_RATES = _plain("min max p50 p90 p95 p99 p999 p9999 samples")
_DIRECTION = ("rate", "packet_rate", "drop_rate", "error_rate")

RESOURCE_STATISTICS: Order = {
    "timestamp": None,  # 1
    "processes": None,  # 30
    "threads": None,  # 31
    "cpus_user_time_secs": None,  # 2
    "cpus_system_time_secs": None,  # 3
    "cpus_limit": None,  # 4
    "cpus_soft_limit": None,  # 45
    "cpus_nr_periods": None,  # 7
    "cpus_nr_throttled": None,  # 8
    "cpus_throttled_time_secs": None,  # 9
    "mem_total_bytes": None,  # 36
    "mem_total_memsw_bytes": None,  # 37
    "mem_kmem_usage_bytes": None,  # 52
    "mem_kmem_tcp_usage_bytes": None,  # 53
    "mem_limit_bytes": None,  # 6
    "mem_soft_limit_bytes": None,  # 38
    "mem_file_bytes": None,  # 10
    "mem_anon_bytes": None,  # 11
    "mem_cache_bytes": None,  # 39
    "mem_rss_bytes": None,  # 5
    "mem_mapped_file_bytes": None,  # 12
    "mem_swap_bytes": None,  # 40
    "mem_unevictable_bytes": None,  # 41
    "mem_low_pressure_counter": None,  # 32
    "mem_medium_pressure_counter": None,  # 33
    "mem_critical_pressure_counter": None,  # 34
    "disk_limit_bytes": None,  # 26
    "disk_used_bytes": None,  # 27
    "disk_statistics": _plain("source persistence limit_bytes used_bytes"),  # 43
    "blkio_statistics": _plain("cfq cfq_recursive throttling"),  # 44
    "perf": _plain("timestamp duration"),  # 13
    "net_rx_packets": None,  # 14
    "net_rx_bytes": None,  # 15
    "net_rx_errors": None,  # 16
    "net_rx_dropped": None,  # 17
    "net_tx_packets": None,  # 18
    "net_tx_bytes": None,  # 19
    "net_tx_errors": None,  # 20
    "net_tx_dropped": None,  # 21
    "net_tx_rate_limit": None,  # 46
    "net_tx_burst_rate_limit": None,  # 47
    "net_tx_burst_size": None,  # 48
    "net_rx_rate_limit": None,  # 49
    "net_rx_burst_rate_limit": None,  # 50
    "net_rx_burst_size": None,  # 51
    "net_rate_statistics": {  # 54
        **{f"{way}_{what}": _RATES for way in ("tx", "rx") for what in _DIRECTION},
        **_plain("sampling_window_secs sampling_interval_secs"),
    },
    "net_ephemeral_ports": _plain("begin end"),  # 55
    "net_tcp_rtt_microsecs_p50": None,  # 22
    "net_tcp_rtt_microsecs_p90": None,  # 23
    "net_tcp_rtt_microsecs_p95": None,  # 24
    "net_tcp_rtt_microsecs_p99": None,  # 25
    "net_tcp_active_connections": None,  # 28
    "net_tcp_time_wait_connections": None,  # 29
    "net_traffic_control_statistics": _plain(  # 35
        "id backlog bytes drops overlimits packets qlen ratebps ratepps requeues"
    ),
    "net_snmp_statistics": _plain("ip_stats icmp_stats tcp_stats udp_stats"),  # 42
}


def in_order(value: Any, order: Order | None) -> Any:
    """The value with its members, and those of its members, in this order; those that have no place follow."""
    if order is None:
        return value
    if isinstance(value, list):
        return [in_order(each, order) for each in value]
    if not isinstance(value, dict):
        return value
    names = [name for name in order if name in value] + [name for name in value if name not in order]
    return {name: in_order(value[name], order.get(name)) for name in names}
