"""The slot: from here on the container's ports lead to it."""

from portslice.errors import NetworkError
from portslice.network.attachment import Attachment
from portslice.network.dataplane import DataPlane
from portslice.network.host import FairQueue
from portslice.network.layers.link import link_index


class Slot:
    """The slot and its ports in the BPF maps."""

    name = "slot"

    def __init__(self, plane: DataPlane, fair_queue: FairQueue | None) -> None:
        self._plane = plane
        self._fair_queue = fair_queue

    def apply(self, attachment: Attachment) -> None:
        index = link_index(attachment.link)
        if index is None:
            raise NetworkError(f"The link {attachment.link} does not exist")
        self._plane.open_slot(attachment.slot, index, self._priority(attachment))
        self._plane.give(attachment.slice, attachment.slot)

    def verify(self, attachment: Attachment) -> list[str]:
        problems = []
        expected = link_index(attachment.link), self._priority(attachment)
        present = self._plane.slot(attachment.slot)
        if present != expected:
            problems.append(f"slot {attachment.slot} is (link, flow) {present}, not {expected}")
        ports = self._plane.ports(attachment.slot)
        if ports != attachment.slice:
            problems.append(f"slot {attachment.slot} owns the ports {ports}, not {attachment.slice}")
        return problems

    def revert(self, attachment: Attachment) -> None:
        self._plane.close_slot(attachment.slot)

    def _priority(self, attachment: Attachment) -> int:
        return self._fair_queue.priority(attachment.slot) if self._fair_queue else 0
