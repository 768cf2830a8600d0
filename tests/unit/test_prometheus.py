"""Statistics as Prometheus' metrics: every field is one or is known not to be, and the values stay what they are."""

import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from portslice.containers.container import Container
from portslice.http.families import COUNTER, FAMILIES, NOT_SHOWN, families, leaves
from portslice.network.protocols import SNMP
from portslice.sampling import RATES, distribution
from portslice.statistics import Usage

MONITORING = Path(__file__).parents[2] / "docs/monitoring.md"
RATE = distribution([1, 2, 3])


def each_is(value: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), value)


QUEUE = {"id": "bw_limit", **each_is(7, "backlog bytes drops overlimits packets qlen ratebps ratepps requeues")}
# Every member of Mesos' ResourceStatistics that an agent on Linux can fill, and ours beyond it.
EVERYTHING: dict[str, Any] = {
    **each_is(
        3,
        "timestamp processes threads cpus_user_time_secs cpus_system_time_secs cpus_limit cpus_soft_limit "
        "cpus_nr_periods cpus_nr_throttled cpus_throttled_time_secs mem_total_bytes mem_total_memsw_bytes "
        "mem_kmem_usage_bytes mem_kmem_tcp_usage_bytes mem_limit_bytes mem_soft_limit_bytes mem_file_bytes "
        "mem_cache_bytes mem_anon_bytes mem_rss_bytes mem_mapped_file_bytes mem_swap_bytes mem_unevictable_bytes "
        "mem_low_pressure_counter mem_medium_pressure_counter mem_critical_pressure_counter disk_limit_bytes "
        "disk_used_bytes net_rx_packets net_rx_bytes net_rx_errors net_rx_dropped net_tx_packets net_tx_bytes "
        "net_tx_errors net_tx_dropped net_tx_rate_limit net_tx_burst_rate_limit net_tx_burst_size net_rx_rate_limit "
        "net_rx_burst_rate_limit net_rx_burst_size net_tcp_rtt_microsecs_p50 net_tcp_rtt_microsecs_p90 "
        "net_tcp_rtt_microsecs_p95 net_tcp_rtt_microsecs_p99 net_tcp_active_connections "
        "net_tcp_time_wait_connections net_ephemeral_ports_in_use net_last_foreign_port",
    ),
    "net_ephemeral_ports": {"begin": 32768, "end": 32799},
    "net_drops": {"foreign_port": 5},
    "net_traffic_control_statistics": [QUEUE, {**QUEUE, "id": "ingress_bw_limit"}],
    "net_snmp_statistics": {
        f"{protocol.lower()}_stats": dict.fromkeys(sorted(names), 11) for protocol, names in SNMP.items()
    },
    "net_rate_statistics": {
        **dict.fromkeys(RATES.values(), RATE),
        "sampling_window_secs": 60.0,
        "sampling_interval_secs": 1.0,
    },
    "perf": {"timestamp": 1.5, "duration": 10.0, "cycles": 9, "task_clock": 2.5},
    "psi": {"cpu": {"some": {"avg10": 0.5, "total_secs": 4.25}}},
    "blkio_statistics": {
        "throttling": [
            {"io_serviced": [{"op": "TOTAL", "value": 9}]},
            {
                "device": {"major_number": 8, "minor_number": 16},
                "io_service_bytes": [{"op": op, "value": 512} for op in ("READ", "WRITE", "SYNC", "ASYNC", "TOTAL")],
                "io_serviced": [{"op": "READ", "value": 1}],
            },
        ],
        "cfq": [],
    },
    "disk_statistics": [{"used_bytes": 1}],
}


def usage(name: str, statistics: dict[str, Any]) -> Usage:
    container = Container(
        id="8ed4d7b8", name=name, command=("true",), uid=0, gid=0, sandbox=Path("/sandbox"), created=0.0
    )
    return Usage(container, statistics)


def text(*usages: Usage) -> str:
    class View(Collector):
        def collect(self) -> list[Metric]:
            return list(families(usages))

    registry = CollectorRegistry()
    registry.register(View())
    return generate_latest(registry).decode()


def test_every_field_is_shown_or_known_not_to_be() -> None:
    known = {field for family in FAMILIES for field in family.fields} | NOT_SHOWN.keys()
    found = {field for field, _, _ in leaves(EVERYTHING)}
    assert found - known == set()
    nested = {name for name, value in EVERYTHING.items() if isinstance(value, dict | list)}
    assert [name for name in nested if not any(field.partition(".")[0] == name for field in known)] == []
    assert {field for family in FAMILIES for field in family.fields} - found == set(), "rows that nothing fills"


def test_no_two_families_show_the_same() -> None:
    fields = [(field, labels) for family in FAMILIES for field, labels in family.fields.items()]
    names = [family.name for family in FAMILIES]
    assert len({field for field, _ in fields}) == len(fields)
    assert len(set(names)) == len(names)


def test_values_in_base_units() -> None:
    shown = text(usage("web", EVERYTHING)).splitlines()
    for line in (
        'portslice_container_cpu_seconds_total{container="web",mode="system"} 3.0',
        'portslice_container_network_receive_bytes_total{container="web"} 3.0',
        'portslice_container_ephemeral_ports{container="web"} 32.0',
        'portslice_container_refused_packets_total{container="web",reason="foreign_port"} 5.0',
        'portslice_container_tcp_rtt_seconds{container="web",quantile="0.95"} 3e-06',
        'portslice_container_queue_backlog_bytes{container="web",queue="ingress_bw_limit"} 7.0',
        'portslice_container_snmp_tcp_total{container="web",counter="RetransSegs"} 11.0',
        'portslice_container_tcp_established_connections{container="web"} 11.0',
        'portslice_container_network_transmit_rate_bytes_per_second{container="web",quantile="1.0"} 3.0',
        'portslice_container_pressure_stalled_seconds_total{container="web",kind="some",resource="cpu"} 4.25',
        'portslice_container_perf_sample_events{container="web",event="task_clock"} 2.5',
        'portslice_container_block_io_bytes_total{container="web",device="8:16",operation="write"} 512.0',
        'portslice_container_block_io_operations_total{container="web",device="8:16",operation="read"} 1.0',
    ):
        assert line in shown
    assert not [line for line in shown if "sync" in line or 'operation="total"' in line], "the same bytes twice"


def test_what_has_no_samples_is_left_out() -> None:
    assert text() == ""
    assert text(usage("web", {"timestamp": 1.0, "threads": 2})).splitlines() == [
        "# HELP portslice_container_threads Threads.",
        "# TYPE portslice_container_threads gauge",
        'portslice_container_threads{container="web"} 2.0',
    ]


@given(st.dictionaries(st.text(min_size=1), st.integers(0, 2**53), min_size=1, max_size=5))
def test_any_name_and_counter_comes_back(counters: dict[str, int]) -> None:
    """Integers up to 2^53, which is what a metric's double holds."""
    (family,) = text_string_to_metric_families(
        text(*(usage(name, {"net_rx_bytes": value}) for name, value in counters.items()))
    )
    assert {sample.labels["container"]: sample.value for sample in family.samples} == counters


def test_the_documented_table_is_this_one() -> None:
    rows = re.findall(r"^\| `(portslice_container_\w+)` \| (\w+) \|([^|]*)\|([^|]*)\|", MONITORING.read_text(), re.M)
    documented = {
        name: (kind, re.findall(r"`(\w+)`", labels), re.findall(r"`([\w.]+)`", fields))
        for name, kind, labels, fields in rows
    }
    expected = {
        family.shown_name: (family.kind, list(family.labels), list(family.fields)) for family in FAMILIES
    } | {
        "portslice_container_info": ("gauge", ["id", "ports", "ephemeral_ports"], []),
        "portslice_container_start_time_seconds": ("gauge", [], []),
    }
    assert documented == expected
    assert all(name.endswith("_total") == (kind == COUNTER) for name, (kind, _, _) in documented.items())
