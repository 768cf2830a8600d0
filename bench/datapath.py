"""datapath: what a packet pays for going to a container instead of to the host itself.

Beside the host with an agent stands one without anything of ours on it: what the programs cost traffic that is no
container's shows between these two.
"""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import pingpong
from bench.crowd import Crowd, crowd
from bench.figures import Spread, in_turns
from bench.report import Report, progress
from portslice.demo.interrupt import then_undisturbed
from portslice.demo.testbed import HOST_ADDRESS, Testbed, testbed
from portslice.demo.world import Iperf

_HOST_PORT = 5000
_IPERF_SECS = 1


def run(_containers: int, rounds: int) -> Report:
    """Two containers are enough here."""
    report = Report("datapath: a container's traffic beside the host's own")
    with testbed() as plain, crowd() as host, then_undisturbed():
        host.launch(2)
        for protocol in pingpong.PROTOCOLS:
            progress(f"{protocol} round trips")
            found = _round_trips(plain, host, protocol, rounds)
            report.compare(f"{protocol} round trip", found, "world - plain host", "world - plain host again", "µs")
        progress("TCP throughput")
        found = _throughput(plain, host, max(4, rounds // 10))
        report.compare("TCP throughput", found, "plain host", "plain host again", "Gbit/s")
    with pingpong.floor() as pair:
        floor = Spread.of([pair.measure() for _ in range(rounds)]).median
    report.say(f"Of a round trip {floor:.2f} µs are system calls and Python (as much as over a pair of local sockets).")
    report.figures["floor_us"] = floor
    return report


def _round_trips(plain: Testbed, host: Crowd, protocol: str, rounds: int) -> dict[str, list[float]]:
    one, two, bed = host.namespace(0), host.namespace(1), host.bed

    def subject(client: Path, server: Path, port: int = _HOST_PORT) -> Callable[[], float]:
        return pingpong.subject(protocol, client, server, HOST_ADDRESS, port)

    base = subject(plain.world, plain.host)
    subjects = {
        "world - plain host": base,
        "world - plain host again": base,
        "world - host": subject(bed.world, bed.host),
        "world - container": subject(bed.world, one, host.port(0)),
        "host - container": subject(bed.host, one, host.port(0)),
        "container - host": subject(one, bed.host),
        "container - container": subject(one, two, host.port(1)),
        "host - host": subject(bed.host, bed.host),
        "plain host - plain host": subject(plain.host, plain.host),
    }
    return in_turns(subjects, rounds)


def _throughput(plain: Testbed, host: Crowd, rounds: int) -> dict[str, list[float]]:
    """What the world receives over one connection, in Gbit/s."""
    def subject(bed: Testbed, port: int) -> Callable[[], float]:
        return lambda: Iperf(bed, HOST_ADDRESS, port, _IPERF_SECS, connections=1).goodput() * 8 / 1e9

    base = subject(plain, _HOST_PORT)
    subjects = {
        "plain host": base,
        "plain host again": base,
        "host": subject(host.bed, _HOST_PORT),
        "container": subject(host.bed, host.port(0)),
    }
    with (
        _server(plain, plain.host, _HOST_PORT),
        _server(host.bed, host.bed.host, _HOST_PORT),
        _server(host.bed, host.namespace(0), host.port(0)),
    ):
        return in_turns(subjects, rounds)


@contextmanager
def _server(bed: Testbed, namespace: Path, port: int) -> Iterator[None]:
    """An iperf3 server that is ready."""
    command = bed.command(namespace, ["iperf3", "--server", "--forceflush", "--port", str(port)])
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "listening" in line:
                    break
            yield
        finally:
            process.terminate()

