"""From two readings of counters to rates.

A counter that went back began anew (its queue was replaced, its container started again): what it counted in between
is not known, so there is no rate, rather than a negative or a made-up one.
"""

from collections.abc import Mapping
from typing import Any

from portslice.network.protocols import SNMP_GAUGES, SNMP_SETTINGS

_LABELS = ("id", "device", "op")
_QUEUE_COUNTERS = ("bytes", "packets", "drops", "overlimits", "requeues")
_LINK_COUNTERS = ("bytes", "packets", "errors", "dropped")


def per_second(before: Mapping[str, float], after: Mapping[str, float], secs: float) -> dict[str, float]:
    """Increase per second of every counter that both readings have.

    :param secs: between the readings; without time between them there are no rates.
    """
    if secs <= 0:
        return {}
    return {
        name: (value - before[name]) / secs for name, value in after.items() if name in before and value >= before[name]
    }


def flattened(statistics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Members of a ResourceStatistics by dotted name, sorted."""
    flat: dict[str, Any] = {}
    for name, value in sorted(statistics.items()):
        if isinstance(value, list):
            value = {_label(element, number): _unlabelled(element) for number, element in enumerate(value)}
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _label(element: Any, number: int) -> str:
    """What tells an element of a list from the others: the queue's id, the device, the operation; else its number."""
    if not isinstance(element, dict):
        return str(number)
    if "major_number" in (device := element.get("device", {})):
        return f"{device['major_number']}:{device.get('minor_number', 0)}"
    return str(element.get("id", element.get("op", number)))


def _unlabelled(element: Any) -> Any:
    if not isinstance(element, dict):
        return element
    return {name: value for name, value in element.items() if name not in _LABELS}


def counters(flat: Mapping[str, Any]) -> dict[str, float]:
    """Those of the flattened members that count since the container's start; the others tell of the moment."""
    return {name: value for name, value in flat.items() if isinstance(value, int | float) and _counts(name)}


def _counts(name: str) -> bool:
    group, last = name.partition(".")[0], name.rpartition(".")[2]
    if group == "net_drops":
        return True
    if group == "net_snmp_statistics":
        return last not in SNMP_GAUGES | SNMP_SETTINGS
    if group == "net_traffic_control_statistics":
        return last in _QUEUE_COUNTERS
    if group == "blkio_statistics":
        return ".io_queued." not in name
    if group == "psi":
        return last == "total_secs"
    if name.startswith(("net_rx_", "net_tx_")):
        return name.endswith(_LINK_COUNTERS)
    return name.endswith(("_time_secs", "_pressure_counter")) or name in ("cpus_nr_periods", "cpus_nr_throttled")
