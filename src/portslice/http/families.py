"""A container's statistics as families of Prometheus' metrics: a table, and how what is nested unfolds into it.

Mesos' fields come as *leaves*: a path of names, labels that only the answer knows (which queue, which reason), and a
number. `FAMILIES` says for each path which metric it is, in base units; several paths may be one metric that a label
tells apart. A leaf that is in no family is not shown: `NOT_SHOWN` says why. `docs/monitoring.md` lists the table.

Every series has the label `container`, the container's name, and no other that tells containers apart: what is graphed,
joined and alerted on is the name, and a container that is started again under its name goes on with its series. Its id,
which would make them new ones, is a label of portslice_container_info alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

from portslice.network.protocols import SNMP_GAUGES, SNMP_SETTINGS
from portslice.statistics import Usage

PREFIX = "portslice_container_"
COUNTER, GAUGE, SUMMARY = "counter", "gauge", "summary"

Labels = tuple[str, ...]
Leaf = tuple[str, Labels, float]

_UNITS = ("seconds", "bytes")


@dataclass(frozen=True)
class Family:
    """One metric.

    :param name: without `PREFIX`, and without the `_total` that a counter ends with.
    :param fields: paths of the leaves, each with the values of the first of the labels.
    :param labels: besides `container`; what `fields` leaves open, the leaves have.
    :param factor: from the leaves' unit to the metric's.
    """

    name: str
    kind: str
    help: str
    fields: Mapping[str, Labels]
    labels: Labels = ()
    factor: float = 1

    @property
    def shown_name(self) -> str:
        """As a query has it."""
        return PREFIX + self.name + ("_total" if self.kind == COUNTER else "")

    def empty(self) -> Metric:
        """The metric without samples."""
        unit = next((unit for unit in _UNITS if self.name.endswith("_" + unit)), "")
        labels = ("container", *self.labels)
        if self.kind == COUNTER:
            return CounterMetricFamily(PREFIX + self.name, self.help, labels=labels, unit=unit)
        if self.kind == GAUGE:
            return GaugeMetricFamily(PREFIX + self.name, self.help, labels=labels, unit=unit)
        return Metric(PREFIX + self.name, self.help, SUMMARY, unit)  # without _count and _sum, which there are none of


def _one(name: str, kind: str, help_: str, field: str, factor: float = 1) -> Family:
    return Family(name, kind, help_, {field: ()}, factor=factor)


_WAYS = (("receive", "rx", "received"), ("transmit", "tx", "sent"))
_QUANTILES = {
    "min": "0.0",
    "p50": "0.5",
    "p90": "0.9",
    "p95": "0.95",
    "p99": "0.99",
    "p999": "0.999",
    "p9999": "0.9999",
    "max": "1.0",
}

_CPU = (
    Family(
        "cpu_seconds",
        COUNTER,
        "CPU time used.",
        {f"cpus_{mode}_time_secs": (mode,) for mode in ("user", "system")},
        ("mode",),
    ),
    _one("cpu_limit_cores", GAUGE, "CPUs that it may use.", "cpus_limit"),
    _one("cpu_soft_limit_cores", GAUGE, "CPUs that it asked for.", "cpus_soft_limit"),
    _one("cpu_periods", COUNTER, "Periods of the CPU quota in which it ran.", "cpus_nr_periods"),
    _one("cpu_throttled_periods", COUNTER, "Periods in which it used up its CPU quota.", "cpus_nr_throttled"),
    _one("cpu_throttled_seconds", COUNTER, "Time for which its CPU quota made it wait.", "cpus_throttled_time_secs"),
    _one("processes", GAUGE, "Processes.", "processes"),
    _one("threads", GAUGE, "Threads.", "threads"),
)
_MEMORY = (
    _one("memory_usage_bytes", GAUGE, "Memory in use, page cache included.", "mem_total_bytes"),
    _one("memory_usage_with_swap_bytes", GAUGE, "Memory and swap in use.", "mem_total_memsw_bytes"),
    _one("memory_limit_bytes", GAUGE, "Memory that it may use.", "mem_limit_bytes"),
    _one("memory_soft_limit_bytes", GAUGE, "Memory that it asked for.", "mem_soft_limit_bytes"),
    _one("memory_rss_bytes", GAUGE, "Anonymous memory.", "mem_rss_bytes"),
    _one("memory_cache_bytes", GAUGE, "Page cache.", "mem_cache_bytes"),
    _one("memory_mapped_file_bytes", GAUGE, "Mapped files.", "mem_mapped_file_bytes"),
    _one("memory_swap_bytes", GAUGE, "Swap in use.", "mem_swap_bytes"),
    _one("memory_unevictable_bytes", GAUGE, "Memory that cannot be reclaimed.", "mem_unevictable_bytes"),
    _one("memory_kernel_bytes", GAUGE, "Memory that the kernel uses for it.", "mem_kmem_usage_bytes"),
    _one("memory_kernel_tcp_bytes", GAUGE, "Buffers of its TCP sockets.", "mem_kmem_tcp_usage_bytes"),
    Family(
        "memory_pressure_events",
        COUNTER,
        "Times that its memory came under pressure, since the agent's start.",
        {f"mem_{level}_pressure_counter": (level,) for level in ("low", "medium", "critical")},
        ("level",),
    ),
)
_PRESSURE = (
    Family(
        "pressure_stalled_seconds",
        COUNTER,
        "Time for which some of its tasks waited for a resource, or all at once (full).",
        {"psi.total_secs": ()},
        ("resource", "kind"),
    ),
)
_DISK = (
    _one("disk_limit_bytes", GAUGE, "Disk space that it may use.", "disk_limit_bytes"),
    _one("disk_usage_bytes", GAUGE, "Disk space that its sandbox uses.", "disk_used_bytes"),
    Family(
        "block_io_bytes",
        COUNTER,
        "Bytes read from and written to block devices.",
        {"blkio_statistics.throttling.io_service_bytes": ()},
        ("device", "operation"),
    ),
    Family(
        "block_io_operations",
        COUNTER,
        "Requests to block devices.",
        {"blkio_statistics.throttling.io_serviced": ()},
        ("device", "operation"),
    ),
)
_NETWORK = tuple(
    family
    for way, short, done in _WAYS
    for family in (
        _one(f"network_{way}_bytes", COUNTER, f"Bytes {done}.", f"net_{short}_bytes"),
        _one(f"network_{way}_packets", COUNTER, f"Packets {done}.", f"net_{short}_packets"),
        _one(f"network_{way}_errors", COUNTER, f"Errors of its NIC on what is {done}.", f"net_{short}_errors"),
        _one(f"network_{way}_packets_dropped", COUNTER, f"Packets to be {done} that its NIC dropped.",
             f"net_{short}_dropped"),
        _one(f"network_{way}_limit_bytes_per_second", GAUGE, f"Limit of what is {done}.", f"net_{short}_rate_limit"),
        _one(f"network_{way}_burst_limit_bytes_per_second", GAUGE, f"Limit of what is {done} in a burst.",
             f"net_{short}_burst_rate_limit"),
        _one(f"network_{way}_burst_size_bytes", GAUGE, "Size of such a burst.", f"net_{short}_burst_size"),
        *(
            Family(
                f"network_{way}_{rate}_per_second",
                SUMMARY,
                f"{what} {done} per second, over the window of the agent's flag.",
                {f"net_rate_statistics.{short}_{field}": ()},
                ("quantile",),
            )
            for rate, field, what in (
                ("rate_bytes", "rate", "Bytes"),
                ("rate_packets", "packet_rate", "Packets"),
                ("rate_packets_dropped", "drop_rate", "Dropped packets to be"),
                ("rate_errors", "error_rate", "Errors of what is"),
            )
        ),
    )
)
_PORTS = (
    _one("ephemeral_ports", GAUGE, "Size of its block of ephemeral ports.", "net_ephemeral_ports"),
    _one("ephemeral_ports_in_use", GAUGE, "Ephemeral ports in use.", "net_ephemeral_ports_in_use"),
    Family("refused_packets", COUNTER, "Packets that Portslice refused it.", {"net_drops": ()}, ("reason",)),
)
_TCP = (
    Family(
        "tcp_connections",
        GAUGE,
        "TCP sockets in use (active), and what is left of closed ones (time_wait).",
        {"net_tcp_active_connections": ("active",), "net_tcp_time_wait_connections": ("time_wait",)},
        ("state",),
    ),
    Family(
        "tcp_rtt_seconds",
        SUMMARY,
        "Smoothed round-trip times of its TCP connections.",
        {f"net_tcp_rtt_microsecs_{name}": (_QUANTILES[name],) for name in ("p50", "p90", "p95", "p99")},
        ("quantile",),
        factor=1e-6,
    ),
)
_QUEUES = tuple(
    Family(name, kind, help_, {f"net_traffic_control_statistics.{field}": ()}, ("queue",))
    for name, kind, help_, field in (
        ("queue_bytes", COUNTER, "Bytes that left a queue.", "bytes"),
        ("queue_packets", COUNTER, "Packets that left a queue.", "packets"),
        ("queue_packets_dropped", COUNTER, "Packets that a queue dropped.", "drops"),
        ("queue_overlimits", COUNTER, "Times that a queue had to wait for its limit.", "overlimits"),
        ("queue_requeues", COUNTER, "Packets that the NIC gave back to a queue.", "requeues"),
        ("queue_backlog_bytes", GAUGE, "Bytes that wait in a queue.", "backlog"),
        ("queue_length_packets", GAUGE, "Packets that wait in a queue.", "qlen"),
    )
)
_SNMP = (
    *(
        Family(
            f"snmp_{protocol}",
            COUNTER,
            f"The kernel's counters of {protocol.upper()} in /proc/net/snmp.",
            {f"net_snmp_statistics.{protocol}_stats": ()},
            ("counter",),
        )
        for protocol in ("ip", "icmp", "tcp", "udp")
    ),
    _one("tcp_established_connections", GAUGE, "Established TCP connections.",
         "net_snmp_statistics.tcp_stats.CurrEstab"),
)
_PERF = (
    Family("perf_sample_events", GAUGE, "What perf counted in its last sample.", {"perf.events": ()}, ("event",)),
    _one("perf_sample_duration_seconds", GAUGE, "How long that sample took.", "perf.duration"),
    _one("perf_sample_timestamp_seconds", GAUGE, "When that sample began, in Unix time.", "perf.timestamp"),
)
FAMILIES = (*_CPU, *_MEMORY, *_PRESSURE, *_DISK, *_NETWORK, *_PORTS, *_TCP, *_QUEUES, *_SNMP, *_PERF)
_BY_FIELD = {
    field: (number, labels) for number, family in enumerate(FAMILIES) for field, labels in family.fields.items()
}

NOT_SHOWN = {
    "timestamp": "Prometheus has a time of its own for each sample",
    "mem_anon_bytes": "mem_rss_bytes by another name",
    "mem_file_bytes": "mem_cache_bytes by another name",
    "psi.avg10": "a rate of the seconds says it, of any stretch of time",
    "disk_statistics": "the sandbox once more, which is all that there is here",
    "net_last_foreign_port": "a port's number is no measurement: see `portslice drops`",
    "net_traffic_control_statistics.ratebps": "always 0",
    "net_traffic_control_statistics.ratepps": "always 0",
    "net_rate_statistics.sampling_window_secs": "a flag of the agent's",
    "net_rate_statistics.sampling_interval_secs": "a flag of the agent's",
    "blkio_statistics.cfq": "no kernel since 5.0 has it",
    "blkio_statistics.cfq_recursive": "no kernel since 5.0 has it",
    "net_snmp_statistics.settings": "settings of the kernel, not counters",
}
# SYNC and ASYNC part the same requests once more, and TOTAL is their sum.
_OPERATIONS = frozenset({"READ", "WRITE", "DISCARD"})


def families(usages: Iterable[Usage]) -> Iterator[Metric]:
    """Every family with its samples; those that have none are left out."""
    metrics = [family.empty() for family in FAMILIES]
    names = [PREFIX + family.name for family in FAMILIES]
    for usage in usages:
        container = usage.container.name
        for field, values, value in leaves(usage.statistics):
            if (found := _BY_FIELD.get(field)) is None:
                continue
            number, fixed = found
            metric, family = metrics[number], FAMILIES[number]
            if isinstance(metric, CounterMetricFamily | GaugeMetricFamily):
                metric.add_metric((container, *fixed, *values), value * family.factor)
            else:
                labels = dict(zip(family.labels, (*fixed, *values), strict=True))
                metric.add_sample(names[number], {"container": container, **labels}, value * family.factor)
    return (metric for metric in metrics if metric.samples)


def leaves(statistics: Mapping[str, Any]) -> Iterator[Leaf]:
    """The numbers in ResourceStatistics: (path, labels, value)."""
    for name, value in statistics.items():
        unfold = _NESTED.get(name)
        if unfold is not None:
            yield from unfold(name, value)
        elif isinstance(value, int | float):
            yield name, (), value


def _ephemeral_ports(name: str, block: Mapping[str, int]) -> Iterator[Leaf]:
    yield name, (), block["end"] - block["begin"] + 1


def _by_name(name: str, counts: Mapping[str, int]) -> Iterator[Leaf]:
    return ((name, (key,), count) for key, count in counts.items())


def _queues(name: str, entries: Iterable[Mapping[str, Any]]) -> Iterator[Leaf]:
    for entry in entries:
        labels = (entry["id"],)
        yield from ((f"{name}.{field}", labels, value) for field, value in entry.items() if field != "id")


def _snmp(name: str, protocols: Mapping[str, Mapping[str, int]]) -> Iterator[Leaf]:
    for protocol, counters in protocols.items():
        for counter, value in counters.items():
            if counter in SNMP_GAUGES:
                yield f"{name}.{protocol}.{counter}", (), value
            elif counter in SNMP_SETTINGS:
                yield f"{name}.settings", (counter,), value
            else:
                yield f"{name}.{protocol}", (counter,), value


def _rates(name: str, rates: Mapping[str, Any]) -> Iterator[Leaf]:
    for field, value in rates.items():
        if isinstance(value, Mapping):
            path = f"{name}.{field}"
            yield from ((path, (quantile,), value[key]) for key, quantile in _QUANTILES.items() if key in value)
        else:
            yield f"{name}.{field}", (), value


def _perf(name: str, sample: Mapping[str, float]) -> Iterator[Leaf]:
    for field, value in sample.items():
        if field in ("duration", "timestamp"):
            yield f"{name}.{field}", (), value
        else:
            yield f"{name}.events", (field,), value


def _pressure(name: str, resources: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[Leaf]:
    for resource, kinds in resources.items():
        for kind, stall in kinds.items():
            yield from ((f"{name}.{field}", (resource, kind), value) for field, value in stall.items())


def _block_io(name: str, groups: Mapping[str, Iterable[Mapping[str, Any]]]) -> Iterator[Leaf]:
    for group, entries in groups.items():
        for entry in entries:
            if (device := entry.get("device")) is None:
                continue  # the sums over all devices
            number = f"{device['major_number']}:{device['minor_number']}"
            for field in ("io_service_bytes", "io_serviced"):
                for each in entry.get(field, ()):
                    if each["op"] in _OPERATIONS:
                        yield f"{name}.{group}.{field}", (number, each["op"].lower()), each["value"]


_NESTED: Mapping[str, Callable[[str, Any], Iterator[Leaf]]] = {
    "net_ephemeral_ports": _ephemeral_ports,
    "net_drops": _by_name,
    "net_traffic_control_statistics": _queues,
    "net_snmp_statistics": _snmp,
    "net_rate_statistics": _rates,
    "perf": _perf,
    "psi": _pressure,
    "blkio_statistics": _block_io,
}
