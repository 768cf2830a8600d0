"""statistics: what it costs to ask for the statistics of all containers, and for their list."""

import http.client
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

from bench.crowd import Crowd, cpu_secs, crowd
from bench.figures import Spread, percentile
from bench.report import Report, milliseconds, progress
from portslice.demo.interrupt import then_undisturbed
from portslice.network import namespaces


def run(containers: int, rounds: int) -> Report:
    """With a tenth of the containers, and with all."""
    report = Report(f"statistics: /monitor/statistics and the list of containers, with up to {containers}")
    rows = []
    with crowd() as host, then_undisturbed():
        for count in (containers // 10, containers):
            progress(f"Launching up to {count} containers")
            host.launch(count - len(host.containers))
            progress(f"Asking {rounds} times")
            requests: dict[str, Callable[[], int]] = {
                "/monitor/statistics": lambda: _get(host.bed.host, "/monitor/statistics"),
                "portslice ps": lambda: len(host.agent.client.containers()),
            }
            for name, request in requests.items():
                times, cpu = _measure(host, request, rounds, count)
                spread, p95 = Spread.of(times), percentile(times, 95)
                each = f"{cpu * 1e6 / count:.0f}"
                rows.append((name, count, *milliseconds(spread), f"{p95 * 1000:.1f}", f"{cpu * 1000:.1f}", each))
                report.figures[f"{name} of {count}"] = {**spread._asdict(), "p95": p95, "agent_cpu_secs": cpu}
        progress("Ending them all")
    header = ("request", "containers", "median ms", "quartiles", "p95", "agent's CPU ms", "µs a container")
    report.table(header, rows)
    return report


def _measure(host: Crowd, request: Callable[[], int], rounds: int, count: int) -> tuple[list[float], float]:
    """(seconds of each, seconds of CPU that each cost the agent). The first one, which opens what stays open, is left
    out."""
    assert host.agent.process is not None
    request()
    before, times = cpu_secs(host.agent.process.pid), []
    for _ in range(rounds):
        began = time.perf_counter()
        answered = request()
        times.append(time.perf_counter() - began)
        if answered != count:
            raise RuntimeError(f"{answered} containers answered for, not {count}")
    return times, (cpu_secs(host.agent.process.pid) - before) / rounds


def _get(host: Path, path: str) -> int:
    """How many elements a list of the agent's has, asked for by a process of the host's."""
    connection = http.client.HTTPConnection("127.0.0.1", 5051)
    with namespaces.entered(host):
        connection.sock = socket.create_connection(("127.0.0.1", 5051))
    try:
        connection.request("GET", path)
        return len(json.loads(connection.getresponse().read()))
    finally:
        connection.close()
