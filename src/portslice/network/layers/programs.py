"""The container's programs: on the host end of its veth, on its loopback, and for IPv6 on its NIC."""

from portslice.errors import NetworkError
from portslice.network import bpf, namespaces
from portslice.network.attachment import Attachment
from portslice.network.dataplane import CONTAINER_NIC_INDEX, DataPlane
from portslice.network.host import Host
from portslice.network.layers.link import link_index


class Programs:
    """container_egress, container_loopback and container_ingress."""

    name = "programs"

    def __init__(self, host: Host, plane: DataPlane) -> None:
        self._host = host
        self._plane = plane

    def apply(self, attachment: Attachment) -> None:
        index = link_index(attachment.link)
        if index is None:
            raise NetworkError(f"The link {attachment.link} does not exist")
        self._plane.attach(index, bpf.INGRESS, "container_egress")
        with namespaces.entered(attachment.namespace):
            self._plane.attach(_loopback(), bpf.EGRESS, "container_loopback")
            if self._host.ipv6:
                self._plane.attach(CONTAINER_NIC_INDEX, bpf.INGRESS, "container_ingress")

    def verify(self, attachment: Attachment) -> list[str]:
        problems = []
        index = link_index(attachment.link)
        if index is None or not self._plane.attached(index, bpf.INGRESS):
            problems.append(f"no program checks what leaves through {attachment.link}")
        with namespaces.entered(attachment.namespace):
            if not self._plane.attached(_loopback(), bpf.EGRESS):
                problems.append("no program serves the container's loopback")
            if self._host.ipv6 and not self._plane.attached(CONTAINER_NIC_INDEX, bpf.INGRESS):
                problems.append("no program serves the container's NIC")
        return problems

    def revert(self, attachment: Attachment) -> None:
        """They go with their links."""


def _loopback() -> int:
    return link_index("lo") or 1
