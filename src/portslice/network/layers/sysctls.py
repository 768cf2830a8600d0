"""Kernel parameters inside: the ephemeral block, what local delivery over the NIC needs, and the host's own tuning."""

from portslice.network import namespaces, sysctl
from portslice.network.attachment import Attachment
from portslice.network.host import Host


class Sysctls:
    """Kernel parameters of the namespace."""

    name = "sysctls"

    def __init__(self, host: Host) -> None:
        self._host = host

    def apply(self, attachment: Attachment) -> None:
        with namespaces.entered(attachment.namespace):
            for name, value in self._host.sysctls:
                sysctl.write_if_possible(name, value)
            for name, value in self._required(attachment).items():
                sysctl.write(name, value)
            # Ports are granted by the slice, not by their number; and ping needs no privilege.
            sysctl.write_if_possible("ipv4/ip_unprivileged_port_start", "0")
            sysctl.write_if_possible("ipv4/ping_group_range", "0 2147483647")

    def verify(self, attachment: Attachment) -> list[str]:
        with namespaces.entered(attachment.namespace):
            return [
                f"net.{name.replace('/', '.')} is '{found}', not '{value}'"
                for name, value in self._required(attachment).items()
                if (found := " ".join((sysctl.read(name) or "").split())) != value
            ]

    def revert(self, attachment: Attachment) -> None:
        """They go with the namespace."""

    def _required(self, attachment: Attachment) -> dict[str, str]:
        nic = self._host.nic
        return {
            "ipv4/ip_local_port_range": f"{attachment.ephemeral.begin} {attachment.ephemeral.end}",
            # The maximum of "all" and the interface counts.
            **{f"ipv4/conf/{name}/rp_filter": "0" for name in ("all", nic, "lo")},
            # What arrives over the NIC may come from the host's own or a loopback address.
            **{f"ipv4/conf/{name}/accept_local": "1" for name in (nic, "lo")},
            **{f"ipv4/conf/{name}/route_localnet": "1" for name in (nic, "lo")},
        }
