"""The slot: from here on the container's ports lead to it."""

from portslice.network import dataplane
from portslice.network.attachment import Attachment
from portslice.network.dataplane import HOST, DataPlane
from portslice.network.host import FairQueue
from portslice.network.layers.link import index_of, link_index


class Slot:
    """The slot and its ports in the BPF maps."""

    name = "slot"

    def __init__(self, plane: DataPlane, fair_queue: FairQueue | None) -> None:
        self._plane = plane
        self._fair_queue = fair_queue

    def apply(self, attachment: Attachment) -> None:
        self._plane.open_slot(attachment.slot, self._entry(attachment, index_of(attachment)))
        self._plane.give(attachment.slice, attachment.slot)
        # What it owned beside these, if it is re-applied: the ports that stay are never without their owner.
        self._plane.give(self._plane.ports(attachment.slot) - attachment.slice, HOST)

    def verify(self, attachment: Attachment) -> list[str]:
        problems = []
        expected = self._entry(attachment, link_index(attachment.link) or 0)
        present = self._plane.slot(attachment.slot)
        if present != expected:
            problems.append(f"slot {attachment.slot} leads to {present}, not to {expected}")
        ports = self._plane.ports(attachment.slot)
        if ports != attachment.slice:
            problems.append(f"slot {attachment.slot} owns the ports {ports}, not {attachment.slice}")
        return problems

    def revert(self, attachment: Attachment) -> None:
        self._plane.close_slot(attachment.slot)

    def _entry(self, attachment: Attachment, ifindex: int) -> dataplane.Slot:
        priority = self._fair_queue.priority(attachment.slot) if self._fair_queue else 0
        return dataplane.Slot(ifindex, priority, shaped=attachment.ingress is not None)
