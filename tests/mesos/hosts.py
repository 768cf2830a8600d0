"""Hosts on one switch, as a small cluster has them, in network namespaces.

    host 1  10.78.0.1 ──┐
    host 2  10.78.0.2 ──┼── switch 10.78.0.254, which is their way out
    host 3  10.78.0.3 ──┘
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from portslice.demo.testbed import HOST_PORTS, NIC, Testbed
from portslice.network import namespaces

NETWORK = "10.78.0.0/24"
_OUT = "10.78.0.254"
_SWITCH = "switch"


class Host(Testbed):
    """One of them; its world is the switch."""

    def __init__(self, cluster: Path, number: int) -> None:
        super().__init__(cluster / f"{cluster.name}-{number}")  # a name that cgroups can have, too
        self.name = f"host-{number}"
        self.ip = f"10.78.0.{number}"

    @property
    def world(self) -> Path:
        return self.directory.parent / _SWITCH

    def build(self) -> None:
        """Make its namespace and plug it in."""
        self.directory.mkdir()
        namespaces.create(self.host)
        self.run(self.host, "ip", "link", "set", "lo", "up")
        self.run(self.host, *f"ip link add {NIC} type veth peer name {self.name} netns".split(), str(self.world))
        self.run(self.world, "ip", "link", "set", self.name, "up")
        self.plug()
        self.run(self.host, *f"ip address add {self.ip}/24 dev {NIC}".split())
        self.run(self.host, *f"ip link set {NIC} up".split())
        self.run(self.host, *f"ip route add default via {_OUT}".split())
        self.run(self.host, "sysctl", "-qw", f"net.ipv4.ip_local_port_range={HOST_PORTS}")

    def plug(self) -> None:
        """Connect it with the others."""
        self.run(self.world, "ip", "link", "set", self.name, "master", _SWITCH)

    def unplug(self) -> None:
        """What it sends is lost from now on, and what is sent to it; nobody is told."""
        self.run(self.world, "ip", "link", "set", self.name, "nomaster")


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Build hosts and their switch; all ends with the block."""
    directory = Path(tempfile.mkdtemp(prefix="portslice-hosts-"))
    built = [Host(directory, number) for number in range(1, count + 1)]
    switch = Testbed(directory)
    try:
        namespaces.create(built[0].world)
        switch.run(built[0].world, "ip", "link", "add", _SWITCH, "type", "bridge")
        switch.run(built[0].world, "ip", "address", "add", f"{_OUT}/24", "dev", _SWITCH)
        switch.run(built[0].world, "ip", "link", "set", _SWITCH, "up")
        for host in built:
            host.build()
        yield built
    finally:
        for host in built:
            host.stop()
            namespaces.remove(host.host)
        namespaces.remove(built[0].world)
        shutil.rmtree(directory)
