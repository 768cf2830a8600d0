"""docs/statistics.md tells of every field of Mesos' ResourceStatistics, where it comes from or why it is not served."""

import re
from collections import Counter

import pytest

from portslice.cli.counters import counters
from tests.statistics_table import Row, expanded, not_served, served

# Mesos' HEAD, mesos.proto; the numbers of ResourceStatistics
FIELDS = {
    "timestamp": 1, "processes": 30, "threads": 31, "cpus_user_time_secs": 2, "cpus_system_time_secs": 3,
    "cpus_limit": 4, "cpus_soft_limit": 45, "cpus_nr_periods": 7, "cpus_nr_throttled": 8,
    "cpus_throttled_time_secs": 9, "mem_total_bytes": 36, "mem_total_memsw_bytes": 37, "mem_kmem_usage_bytes": 52,
    "mem_kmem_tcp_usage_bytes": 53, "mem_limit_bytes": 6, "mem_soft_limit_bytes": 38, "mem_file_bytes": 10,
    "mem_anon_bytes": 11, "mem_cache_bytes": 39, "mem_rss_bytes": 5, "mem_mapped_file_bytes": 12,
    "mem_swap_bytes": 40, "mem_unevictable_bytes": 41, "mem_low_pressure_counter": 32,
    "mem_medium_pressure_counter": 33, "mem_critical_pressure_counter": 34, "disk_limit_bytes": 26,
    "disk_used_bytes": 27, "disk_statistics": 43, "blkio_statistics": 44, "perf": 13, "net_rx_packets": 14,
    "net_rx_bytes": 15, "net_rx_errors": 16, "net_rx_dropped": 17, "net_tx_packets": 18, "net_tx_bytes": 19,
    "net_tx_errors": 20, "net_tx_dropped": 21, "net_tx_rate_limit": 46, "net_tx_burst_rate_limit": 47,
    "net_tx_burst_size": 48, "net_rx_rate_limit": 49, "net_rx_burst_rate_limit": 50, "net_rx_burst_size": 51,
    "net_rate_statistics": 54, "net_ephemeral_ports": 55, "net_tcp_rtt_microsecs_p50": 22,
    "net_tcp_rtt_microsecs_p90": 23, "net_tcp_rtt_microsecs_p95": 24, "net_tcp_rtt_microsecs_p99": 25,
    "net_tcp_active_connections": 28, "net_tcp_time_wait_connections": 29, "net_traffic_control_statistics": 35,
    "net_snmp_statistics": 42,
}  # fmt: skip

_RATE = "min max p50 p90 p95 p99 p999 p9999 samples"
_VALUES = "op value"
_DEVICE = "major_number minor_number"
_CFQ = ("io_serviced", "io_service_bytes", "io_service_time", "io_wait_time", "io_merged", "io_queued")

# The members of those that are messages; each in the order of its numbers, which begin at 1.
MEMBERS = {
    "disk_statistics[]": "source persistence limit_bytes used_bytes",
    **{f"blkio_statistics.{kind}[].device": _DEVICE for kind in ("cfq", "cfq_recursive", "throttling")},
    **{f"blkio_statistics.{kind}[]": "sectors time" for kind in ("cfq", "cfq_recursive")},
    **{f"blkio_statistics.{kind}[].{name}[]": _VALUES for kind in ("cfq", "cfq_recursive") for name in _CFQ},
    **{f"blkio_statistics.throttling[].{name}[]": _VALUES for name in ("io_serviced", "io_service_bytes")},
    "perf": (
        "timestamp duration cycles stalled_cycles_frontend stalled_cycles_backend instructions cache_references "
        "cache_misses branches branch_misses bus_cycles ref_cycles cpu_clock task_clock page_faults minor_faults "
        "major_faults context_switches cpu_migrations alignment_faults emulation_faults l1_dcache_loads "
        "l1_dcache_load_misses l1_dcache_stores l1_dcache_store_misses l1_dcache_prefetches l1_dcache_prefetch_misses "
        "l1_icache_loads l1_icache_load_misses l1_icache_prefetches l1_icache_prefetch_misses llc_loads "
        "llc_load_misses llc_stores llc_store_misses llc_prefetches llc_prefetch_misses dtlb_loads dtlb_load_misses "
        "dtlb_stores dtlb_store_misses dtlb_prefetches dtlb_prefetch_misses itlb_loads itlb_load_misses branch_loads "
        "branch_load_misses node_loads node_load_misses node_stores node_store_misses node_prefetches "
        "node_prefetch_misses"
    ),
    "net_rate_statistics": "sampling_window_secs sampling_interval_secs",
    **{
        f"net_rate_statistics.{way}_{kind}": _RATE
        for way in ("tx", "rx")
        for kind in ("rate", "packet_rate", "drop_rate", "error_rate")
    },
    "net_ephemeral_ports": "begin end",
    "net_traffic_control_statistics[]": (
        "id backlog bytes drops overlimits packets qlen ratebps ratepps requeues"
    ),
    "net_snmp_statistics.ip_stats": (
        "Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers "
        "OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates"
    ),
    "net_snmp_statistics.icmp_stats": (
        "InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos "
        "InEchoReps InTimestamps InTimestampReps InAddrMasks InAddrMaskReps OutMsgs OutErrors OutDestUnreachs "
        "OutTimeExcds OutParmProbs OutSrcQuenchs OutRedirects OutEchos OutEchoReps OutTimestamps OutTimestampReps "
        "OutAddrMasks OutAddrMaskReps"
    ),
    "net_snmp_statistics.tcp_stats": (
        "RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs "
        "RetransSegs InErrs OutRsts InCsumErrors"
    ),
    "net_snmp_statistics.udp_stats": (
        "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti"
    ),
}


def fields_of_mesos() -> dict[str, int]:
    """Every field that holds a value, as the table writes it, with the number of its outermost one."""
    messages = {_outermost(message) for message in MEMBERS}
    found = {name: number for name, number in FIELDS.items() if name not in messages}
    for message, members in MEMBERS.items():
        found |= {f"{message}.{name}": FIELDS[_outermost(message)] for name in members.split()}
    return found


def _outermost(field: str) -> str:
    return re.split(r"\.|\[", field)[0]


def test_every_field_of_mesos_is_told_of_once() -> None:
    rows = [*served(), *not_served()]
    told = {field: number for row in rows for field, number in row.numbers.items()}
    assert [name for name, count in Counter(field for row in rows for field in row.numbers).items() if count > 1] == []
    ours = {field for field, number in told.items() if number is None}
    assert {field: number for field, number in told.items() if field not in ours} == fields_of_mesos()
    assert {_outermost(field) for field in ours} == {
        *("psi", "net_drops", "net_ephemeral_ports_in_use", "net_last_foreign_port")
    }


def test_what_is_not_served_has_a_reason() -> None:
    assert not_served()
    assert [row for row in not_served() if not row.cells[-1]] == []


@pytest.mark.parametrize("row", served(), ids=lambda row: next(iter(row.numbers)))
def test_rows_are_complete(row: Row) -> None:
    assert re.match(r"(integer|double|text)\b", row.type)
    assert re.match(r"(counter|gauge)\b", row.cells[3])
    assert all(row.cells[4:6]), "v1 and v2: where it comes from, or absent"
    assert re.search(r"\btest_\w+\.py\b", row.cells[7])  # which exists, if it is a path (test_docs.py)


def test_braces_are_the_shells() -> None:
    assert expanded("a") == ["a"]
    assert expanded("a.{b,c}_{d,e}") == ["a.b_d", "a.b_e", "a.c_d", "a.c_e"]


def test_rates_are_made_of_the_counters() -> None:
    """What `portslice stats --watch` takes for counters is what the table calls so."""
    kinds = {
        field.replace("[]", ".1"): row.cells[3].partition(";")[0]
        for row in served()
        for field in row.numbers
        if row.type != "text" and ".device." not in field  # which become part of the others' names
    }
    assert counters(dict.fromkeys(kinds, 1)).keys() == {field for field, kind in kinds.items() if kind == "counter"}
