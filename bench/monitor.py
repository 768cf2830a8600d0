"""statistics: what it costs to ask for the figures of all containers, in each form in which they are served.

Besides: for their list; whether a launch notices that somebody asks; and what it would cost to fork a helper for each
container, as Mesos does.
"""

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.crowd import Crowd, cpu_secs, crowd
from bench.figures import Spread, in_turns, percentile
from bench.report import Report, milliseconds, progress
from portslice.demo.interrupt import then_undisturbed
from portslice.network import namespaces
from portslice.network.statistics import Extras, inside

_OPENMETRICS = "application/openmetrics-text;version=1.0.0"
_MAX_LAUNCHES = 20  # a launch on a host that is asked all the time takes long
_NSENTER = "/usr/bin/nsenter"
_LEAD_SECS = 0.2  # until who asks all the time is in the middle of it


def run(containers: int, rounds: int) -> Report:
    """With a tenth of the containers, and with all."""
    report = Report(f"statistics: the figures of all containers, with up to {containers}")
    rows = []
    with crowd() as host, then_undisturbed():
        for count in (containers // 10, containers):
            progress(f"Launching up to {count} containers")
            host.launch(count - len(host.containers))
            progress(f"Asking {rounds} times")
            for name, request in _requests(host).items():
                times, cpu = _measure(host, request, rounds, count)
                spread, p95 = Spread.of(times), percentile(times, 95)
                each = f"{cpu * 1e6 / count:.0f}"
                rows.append((name, count, *milliseconds(spread), f"{p95 * 1000:.1f}", f"{cpu * 1000:.1f}", each))
                report.figures[f"{name} of {count}"] = {**spread._asdict(), "p95": p95, "agent_cpu_secs": cpu}
        header = ("request", "containers", "median ms", "quartiles", "p95", "agent's CPU ms", "µs a container")
        report.table(header, rows)
        progress("Launching some more, while somebody asks and while nobody does, in turns")
        _report_launches(report, host, min(rounds, _MAX_LAUNCHES))
        progress("Reading the protocols' counters of one container, with and without a helper, in turns")
        _report_helper(report, host.namespace(0), rounds)
        progress("Ending them all")
    return report


def _requests(host: Crowd) -> dict[str, Callable[[], int]]:
    """Each answers how many containers it is about."""
    where = host.bed.host

    def metrics(accept: str) -> int:
        return _get(where, "/metrics", accept).count(b"\nportslice_container_info{")

    return {
        "/monitor/statistics": lambda: len(json.loads(_get(where, "/monitor/statistics"))),
        "/overview": lambda: len(json.loads(_get(where, "/overview"))),
        "/metrics, text": lambda: metrics("text/plain"),
        "/metrics, OpenMetrics": lambda: metrics(_OPENMETRICS),
        "portslice ps": lambda: len(host.agent.client.containers()),
    }


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


def _get(host: Path, path: str, accept: str = "*/*") -> bytes:
    """What the agent answers to a process of the host's."""
    connection = http.client.HTTPConnection("127.0.0.1", 5051)
    with namespaces.entered(host):
        connection.sock = socket.create_connection(("127.0.0.1", 5051))
    try:
        connection.request("GET", path, headers={"Accept": accept})
        return connection.getresponse().read()
    finally:
        connection.close()


def _report_launches(report: Report, host: Crowd, rounds: int) -> None:
    """How long one more container takes, while nobody asks, and while somebody asks again as soon as it is answered."""

    def launch(path: str | None) -> float:
        if path is None:
            (secs,) = host.launch(1)
        else:
            # One curl asks on and on, over one connection.
            asking = host.bed.start(host.bed.host, "curl", "-s", f"http://127.0.0.1:5051{path}?[1-1000000]")
            time.sleep(_LEAD_SECS)
            (secs,) = host.launch(1)
            if asking.poll() is not None:
                raise RuntimeError(f"curl {path} has ended with status {asking.returncode}")
            asking.kill()
            asking.wait()
        host.agent.kill(host.containers.pop()["id"])
        return secs * 1000

    found = in_turns(
        {
            "nobody": partial(launch, None),
            "nobody again": partial(launch, None),
            "/monitor/statistics": partial(launch, "/monitor/statistics"),
            "/metrics": partial(launch, "/metrics"),
        },
        rounds,
    )
    report.compare("launch while asked for", found, "nobody", "nobody again", "ms")


def _report_helper(report: Report, namespace: Path, rounds: int) -> None:
    """The agent's way to what /proc/net has of a namespace, and a forked helper's: nsenter and cat, which read the same
    files and are smaller than Mesos' own helper."""
    wanted = Extras(connections=True, snmp=True)

    def enter() -> float:
        began = time.perf_counter()
        inside(namespace, wanted)
        return (time.perf_counter() - began) * 1e6

    def fork() -> float:
        began = time.perf_counter()
        reader, writer = os.pipe()
        files = ("/proc/net/sockstat", "/proc/net/sockstat6", "/proc/net/snmp")
        arguments = (_NSENTER, f"--net={namespace}", "--", "cat", *files)
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
        helper = os.posix_spawn(_NSENTER, arguments, os.environ, file_actions=actions, setsigdef=[signal.SIGINT])
        os.close(writer)
        with os.fdopen(reader, "rb") as output:
            text = output.read()
        _, status = os.waitpid(helper, 0)
        secs = time.perf_counter() - began
        if status != 0 or b"Tcp:" not in text:
            raise RuntimeError(f"the helper has ended with status {status}")
        return secs * 1e6

    found = in_turns({"entered": enter, "entered again": enter, "a forked helper": fork}, rounds)
    report.compare("counters of one container", found, "entered", "entered again", "µs")
