"""The desired network of one container."""

from dataclasses import dataclass
from pathlib import Path

from portslice.ports import PortRange, PortSet
from portslice.rates import Rate


@dataclass(frozen=True)
class Attachment:
    """A value: the layers make the kernel agree with it, or take away what it describes.

    :param id: the container's.
    :param slot: its number in the BPF maps.
    :param namespace: file at which its network namespace is kept.
    :param link: name of the host end of its veth pair.
    :param ephemeral: block from which the kernel chooses ports.
    :param ports: assigned ports (Mesos' `ports` resource).
    :param egress: limit of what it sends.
    :param ingress: limit of what it receives.
    """

    id: str
    slot: int
    namespace: Path
    link: str
    ephemeral: PortRange
    ports: PortSet
    egress: Rate | None
    ingress: Rate | None = None

    @property
    def slice(self) -> PortSet:
        """All ports that the container owns."""
        return self.ports | PortSet((self.ephemeral,))
