"""Kernel parameters inside: the ephemeral block, what local delivery over the NIC needs, and the host's own tuning."""

from portslice.network import namespaces, sysctl
from portslice.network.attachment import Attachment
from portslice.network.host import Host

_RANGE = "ipv4/ip_local_port_range"


class Sysctls:
    """Kernel parameters of the namespace."""

    name = "sysctls"

    def __init__(self, host: Host) -> None:
        self._host = host

    def apply(self, attachment: Attachment) -> None:
        nic = self._host.nic
        with namespaces.entered(attachment.namespace):
            for name, value in self._host.sysctls:
                sysctl.write_if_possible(name, value)
            sysctl.write(_RANGE, _range(attachment))
            # The maximum of "all" and the interface counts.
            for name in ("all", nic, "lo"):
                sysctl.write(f"ipv4/conf/{name}/rp_filter", "0")
            # What arrives over the NIC may come from the host's own or a loopback address.
            for name in (nic, "lo"):
                sysctl.write(f"ipv4/conf/{name}/accept_local", "1")
                sysctl.write(f"ipv4/conf/{name}/route_localnet", "1")
            # Ports are granted by the slice, not by their number; and ping needs no privilege.
            sysctl.write_if_possible("ipv4/ip_unprivileged_port_start", "0")
            sysctl.write_if_possible("ipv4/ping_group_range", "0 2147483647")

    def verify(self, attachment: Attachment) -> list[str]:
        with namespaces.entered(attachment.namespace):
            value = " ".join((sysctl.read(_RANGE) or "").split())
        if value == _range(attachment):
            return []
        return [f"ip_local_port_range is '{value}', not '{_range(attachment)}'"]

    def revert(self, attachment: Attachment) -> None:
        """They go with the namespace."""


def _range(attachment: Attachment) -> str:
    return f"{attachment.ephemeral.begin} {attachment.ephemeral.end}"
