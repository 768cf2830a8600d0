"""Walks over a container's stack of layers: attach, detach, update, repair."""

import logging
from collections.abc import Sequence

from portslice.errors import NetworkError
from portslice.network.addresses import HostAddresses
from portslice.network.attachment import Attachment
from portslice.network.dataplane import DataPlane
from portslice.network.host import FairQueue, Host
from portslice.network.layers import Layer
from portslice.network.layers.addresses import Addresses
from portslice.network.layers.egress import Egress
from portslice.network.layers.ingress import Ingress
from portslice.network.layers.link import Link
from portslice.network.layers.namespace import Namespace
from portslice.network.layers.programs import Programs
from portslice.network.layers.slots import Slot
from portslice.network.layers.sysctls import Sysctls

log = logging.getLogger(__name__)


class Stack:
    """The layers of every attachment on this host."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)

    @classmethod
    def of(
        cls,
        host: Host,
        addresses: HostAddresses,
        plane: DataPlane,
        fair_queue: FairQueue | None,
        *,
        with_fq_codel: bool,
    ) -> "Stack":
        """The stack as it stands on a host."""
        return cls(
            (
                Namespace(),
                Link(host),
                Addresses(host, addresses),
                Sysctls(host),
                Ingress(host, with_fq_codel=with_fq_codel),
                Slot(plane, fair_queue),
                Programs(host, plane),
                Egress(host, with_fq_codel=with_fq_codel),
            )
        )

    def attach(self, attachment: Attachment) -> None:
        """Apply all layers; on a failure revert what was applied, so that nothing stays half-done.

        :raises NetworkError: which layer failed, and why.
        """
        for position, layer in enumerate(self._layers):
            try:
                layer.apply(attachment)
            except Exception as error:
                self._revert(self._layers[: position + 1], attachment)
                what = f"the {layer.name} of container {attachment.id}"
                raise NetworkError(f"Failed to set up {what}: {error}") from error

    def detach(self, attachment: Attachment) -> list[str]:
        """Revert all layers, the last first, to the end whatever fails; what failed, in words."""
        return self._revert(self._layers, attachment)

    def update(self, old: Attachment, new: Attachment) -> None:
        """Re-apply the layers that differ, while traffic flows; on a failure `old` is put back.

        The queues of an ingress limit are there before the slot leads through them, and are opened up after it no
        longer does: the walk goes up if there is to be one, and else down.

        :raises NetworkError: which layer failed, and why.
        """
        layers = self._layers if new.ingress is not None else self._layers[::-1]
        for position, layer in enumerate(layers):
            try:
                if layer.verify(new):
                    layer.apply(new)
            except Exception as error:
                for undone in reversed(layers[: position + 1]):
                    try:
                        if undone.verify(old):
                            undone.apply(old)
                    except Exception as problem:
                        log.error("Failed to put back the %s of container %s: %s", undone.name, old.id, problem)
                what = f"the {layer.name} of container {new.id}"
                raise NetworkError(f"Failed to change {what}: {error}") from error

    def check(self, attachment: Attachment) -> list[str]:
        """Where the kernel differs from the attachment, in words."""
        return [problem for layer in self._layers for problem in self._problems(layer, attachment)]

    def repair(self, attachment: Attachment) -> list[str]:
        """Re-apply the layers that drifted, lowest first; what was found, in words.

        A layer that stands on a re-made one is found wanting in turn: a new link has no address.
        """
        found = []
        for layer in self._layers:
            problems = self._problems(layer, attachment)
            if problems:
                found += problems
                layer.apply(attachment)
        return found

    @staticmethod
    def _problems(layer: Layer, attachment: Attachment) -> list[str]:
        try:
            return layer.verify(attachment)
        except Exception as error:
            return [f"the {layer.name} cannot be checked: {error}"]

    @staticmethod
    def _revert(layers: Sequence[Layer], attachment: Attachment) -> list[str]:
        problems = []
        for layer in reversed(layers):
            try:
                layer.revert(attachment)
            except Exception as error:
                problems.append(f"Failed to remove the {layer.name} of container {attachment.id}: {error}")
                log.warning("%s", problems[-1])
        return problems
