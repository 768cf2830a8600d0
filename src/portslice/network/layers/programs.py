"""The container's programs: on the host end of its veth, on its loopback, and for IPv6 on its NIC.

After an update of the agent those of its predecessor are replaced, in place and without a gap in the traffic.
"""

from collections.abc import Iterator

from portslice.network import bpf, namespaces
from portslice.network.attachment import Attachment
from portslice.network.dataplane import CONTAINER_LOOPBACK_INDEX, CONTAINER_NIC_INDEX, DataPlane
from portslice.network.host import Host
from portslice.network.layers.link import index_of, link_index


class Programs:
    """container_egress, container_loopback and container_ingress."""

    name = "programs"

    def __init__(self, host: Host, plane: DataPlane) -> None:
        self._host = host
        self._plane = plane

    def apply(self, attachment: Attachment) -> None:
        self._plane.attach(index_of(attachment), bpf.INGRESS, "container_egress")
        with namespaces.entered(attachment.namespace):
            for inside, point, program in self._inside():
                self._plane.attach(inside, point, program)

    def verify(self, attachment: Attachment) -> list[str]:
        problems = []
        index = link_index(attachment.link)
        if index is None or not self._plane.attached(index, bpf.INGRESS, "container_egress"):
            problems.append(f"container_egress of this agent's version is not on {attachment.link}")
        with namespaces.entered(attachment.namespace):
            for inside, point, program in self._inside():
                if not self._plane.attached(inside, point, program):
                    problems.append(f"{program} of this agent's version is not inside")
        return problems

    def revert(self, attachment: Attachment) -> None:
        """They go with their links."""

    def _inside(self) -> Iterator[tuple[int, int, str]]:
        """(interface, hook, program) in the container's namespace."""
        yield CONTAINER_LOOPBACK_INDEX, bpf.EGRESS, "container_loopback"
        if self._host.ipv6:
            yield CONTAINER_NIC_INDEX, bpf.INGRESS, "container_ingress"
