"""A container's network as a stack of layers, lowest first.

Each layer is one concern of an `Attachment`: `apply` makes the kernel agree, `verify` says where it does not, `revert`
takes it away and may be repeated. Attach, detach, update, check and recovery (../stack.py) are walks over the stack.
"""

from typing import Protocol

from portslice.network.attachment import Attachment


class Layer(Protocol):
    """One concern of an attachment."""

    name: str

    def apply(self, attachment: Attachment) -> None:
        """Make the kernel agree.

        :raises OSError, NetworkError, NetlinkError: the kernel refused.
        """

    def verify(self, attachment: Attachment) -> list[str]:
        """What differs, in words; empty if nothing does."""

    def revert(self, attachment: Attachment) -> None:
        """Take it away; nothing to take is fine."""
