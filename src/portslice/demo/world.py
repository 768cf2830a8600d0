"""The outside world: what measures the host's services from there.

A socket stays in the network namespace it was opened in, so all this runs in the demo's own process.
"""

import json
import socket
import statistics
import subprocess
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from portslice.demo.testbed import Testbed
from portslice.network import namespaces

_READY_SECS = 180.0  # until a container's service answers: an emulated machine is slow
_PAUSE_SECS = 0.002
_REPLY_SECS = 1.0


class Latency(NamedTuple):
    """Round trips of one datagram at a time."""

    sent: int
    answered: int
    p50_ms: float
    p99_ms: float


def wait_for_echo(world: Path, address: str, port: int) -> None:
    """Wait until an echo service answers.

    :raises RuntimeError: it does not.
    """
    deadline = time.monotonic() + _READY_SECS
    with _udp(world) as client:
        client.settimeout(0.1)
        while time.monotonic() < deadline:
            client.sendto(b"there?", (address, port))
            try:
                client.recv(2048)
                return
            except (TimeoutError, ConnectionRefusedError):
                continue
    raise RuntimeError(f"Nothing answers on UDP port {port} of {address}")


def latency(world: Path, address: str, port: int, seconds: float) -> Latency:
    """Ask an echo service for so long.

    :raises RuntimeError: it answers hardly at all.
    """
    trips = []
    sent = 0
    end = time.monotonic() + seconds
    with _udp(world) as client:
        client.settimeout(_REPLY_SECS)
        while time.monotonic() < end or sent < 2:
            question = f"request {sent}".encode()
            began = time.perf_counter()
            client.sendto(question, (address, port))
            sent += 1
            try:
                while client.recv(2048) != question:
                    pass  # the late answer to an earlier one
            except TimeoutError:
                continue
            trips.append(time.perf_counter() - began)
            time.sleep(_PAUSE_SECS)
    if len(trips) < 2:
        raise RuntimeError(f"Only {len(trips)} of {sent} datagrams to port {port} of {address} were answered")
    percentiles = statistics.quantiles(trips, n=100, method="inclusive")
    return Latency(sent, len(trips), percentiles[49] * 1000, percentiles[98] * 1000)


def ask(world: Path, address: str, port: int) -> dict[str, Any]:
    """Connect, and read JSON to the end of the connection.

    :raises RuntimeError: nothing listens there.
    """
    deadline = time.monotonic() + _READY_SECS
    while time.monotonic() < deadline:
        with namespaces.entered(world):
            client = socket.socket()
        with client:
            client.settimeout(_READY_SECS)
            try:
                client.connect((address, port))
            except ConnectionRefusedError:
                time.sleep(0.05)
                continue
            with client.makefile("rb") as stream:
                return dict(json.loads(stream.read()))
    raise RuntimeError(f"Nothing listens on TCP port {port} of {address}")


class Sink:
    """Takes datagrams in the background and counts them by the sender's port."""

    def __init__(self, world: Path, address: str) -> None:
        self.received: Counter[int] = Counter()
        self._socket = _udp(world)
        self._socket.bind((address, 0))
        self._socket.settimeout(0.1)
        self.port: int = self._socket.getsockname()[1]
        self._closing = False
        self._thread = threading.Thread(target=self._take, name="sink", daemon=True)
        self._thread.start()

    def settle(self, expected: int) -> None:
        """Wait until so many datagrams came, and a moment for more."""
        deadline = time.monotonic() + _REPLY_SECS
        while self.received.total() < expected and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)

    def close(self) -> None:
        """Stop."""
        self._closing = True
        self._thread.join()
        self._socket.close()

    def _take(self) -> None:
        while not self._closing:
            with suppress(TimeoutError):
                _data, (_address, port) = self._socket.recvfrom(2048)
                self.received[port] += 1


class Iperf:
    """iperf3 in the world, receiving from a server on the host."""

    def __init__(self, bed: Testbed, address: str, port: int, seconds: float, connections: int = 4) -> None:
        arguments = f"iperf3 --json --client {address} --port {port} --reverse --time {seconds:.0f}"
        self.command = f"{arguments} --parallel {connections}".split()
        self._process = bed.start(bed.world, *self.command, stdout=subprocess.PIPE)

    def result(self) -> dict[str, Any]:
        """Its report, when it has ended.

        :raises RuntimeError: it failed.
        """
        output, _ = self._process.communicate()
        report: dict[str, Any] = json.loads(output or "{}")
        if self._process.returncode != 0 or "error" in report:
            raise RuntimeError(f"{' '.join(self.command)}: {report.get('error', 'failed')}")
        return report

    def goodput(self) -> float:
        """Received payload, in bytes per second."""
        return float(self.result()["end"]["sum_received"]["bits_per_second"]) / 8


def bytes_from_host(bed: Testbed) -> int:
    """All that the world has received from the host so far."""
    links = json.loads(bed.run(bed.world, *["ip", "-s", "-j", "link", "show", "dev", "world"]).stdout)
    return int(links[0]["stats64"]["rx"]["bytes"])


def _udp(world: Path) -> socket.socket:
    with namespaces.entered(world):
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
