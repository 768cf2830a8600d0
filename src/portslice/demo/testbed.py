"""A host and the world around it, in network namespaces: the machine's own network is never touched.

    world 10.77.0.1, fd77::1 ── eth0 10.77.0.2/24, fd77::2/64 host

The demo shows the product on it, and the tests run on it. Everything lives below one temporary directory and ends
with the `with` block, whatever happened inside.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from portslice.network import namespaces

WORLD_ADDRESS = "10.77.0.1"
HOST_ADDRESS = "10.77.0.2"
WORLD_ADDRESS_6, HOST_ADDRESS_6 = "fd77::1", "fd77::2"
NIC = "eth0"
HOST_PORTS = "57345 61000"  # the host's own ephemeral ports, apart from the containers'


@dataclass
class Testbed:
    """Two namespaces and the processes started in them."""

    directory: Path
    processes: list[subprocess.Popen[Any]] = field(default_factory=list)

    __test__ = False  # not a test, whatever its name looks like to pytest

    @property
    def host(self) -> Path:
        """The host's namespace."""
        return self.directory / "host"

    @property
    def world(self) -> Path:
        """The outside's."""
        return self.directory / "world"

    def command(self, namespace: Path, arguments: Sequence[str]) -> list[str]:
        """The command line that runs `arguments` in a namespace, and only the network is another there."""
        return ["nsenter", f"--net={namespace}", "--", *arguments]

    def run(
        self, namespace: Path, *arguments: str, check: bool = True, timeout: float = 60, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        command = self.command(namespace, arguments)
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, input=input, check=False)
        if check and result.returncode != 0:
            output = result.stdout + result.stderr
            raise RuntimeError(f"{' '.join(arguments)}: exit status {result.returncode}\n{output}")
        return result

    def start(self, namespace: Path, *arguments: str, stdout: IO[Any] | int | None = None, **options: Any) -> Any:
        """Start a command that the testbed ends."""
        output = subprocess.DEVNULL if stdout is None else stdout
        process = subprocess.Popen(
            self.command(namespace, arguments), stdin=subprocess.DEVNULL, stdout=output, **options
        )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """End the processes started here."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


@contextmanager
def testbed() -> Iterator[Testbed]:
    """Build the host and the world."""
    bed = Testbed(Path(tempfile.mkdtemp(prefix="portslice-testbed-")))
    try:
        for namespace in (bed.host, bed.world):
            namespaces.create(namespace)
            bed.run(namespace, "ip", "link", "set", "lo", "up")
        bed.run(
            bed.host, *f"ip link add {NIC} type veth peer name world netns".split(), str(bed.world)
        )
        for namespace, link, address, address_6 in (
            (bed.world, "world", WORLD_ADDRESS, WORLD_ADDRESS_6),
            (bed.host, NIC, HOST_ADDRESS, HOST_ADDRESS_6),
        ):
            bed.run(namespace, *f"ip address add {address}/24 dev {link}".split())
            bed.run(namespace, *f"ip address add {address_6}/64 dev {link} nodad".split())
            bed.run(namespace, *f"ip link set {link} up".split())
        for address in (WORLD_ADDRESS, WORLD_ADDRESS_6):
            bed.run(bed.host, *f"ip route add default via {address}".split())
        bed.run(bed.host, "sysctl", "-qw", f"net.ipv4.ip_local_port_range={HOST_PORTS}")
        yield bed
    finally:
        bed.stop()
        for namespace in (bed.host, bed.world):
            namespaces.remove(namespace)
        shutil.rmtree(bed.directory)


testbed.__test__ = False  # type: ignore[attr-defined]
