"""The network namespace, kept at a file of ours so that it needs no process."""

from portslice.network import namespaces
from portslice.network.attachment import Attachment


class Namespace:
    """The namespace itself."""

    name = "namespace"

    def apply(self, attachment: Attachment) -> None:
        if not namespaces.exists(attachment.namespace):
            attachment.namespace.parent.mkdir(parents=True, exist_ok=True)
            namespaces.create(attachment.namespace)

    def verify(self, attachment: Attachment) -> list[str]:
        if namespaces.exists(attachment.namespace):
            return []
        return [f"the network namespace '{attachment.namespace}' is gone"]

    def revert(self, attachment: Attachment) -> None:
        namespaces.remove(attachment.namespace)
