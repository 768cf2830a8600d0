"""The egress limit: HTB on the NIC inside, fq_codel below it where the kernel has one.

All that leaves the container passes there, to other containers and to the host too. Segmentation offload hands HTB up
to 64 KB at once, whole seconds' worth at small rates: so a segment is kept to a hundredth of a second's bytes.
"""

import errno

from portslice.network import namespaces
from portslice.network.attachment import Attachment
from portslice.network.dataplane import CONTAINER_NIC_INDEX
from portslice.network.host import Host
from portslice.network.iproute import routes
from portslice.network.layers.link import link_index
from portslice.network.qdiscs import chain
from portslice.network.rtnetlink import Rtnetlink

_MAX_SEGMENTS = 65535


class Egress:
    """HTB and fq_codel on the container's NIC."""

    name = "egress"

    def __init__(self, host: Host, *, with_fq_codel: bool) -> None:
        self._host = host
        self._with_fq_codel = with_fq_codel

    def apply(self, attachment: Attachment) -> None:
        limit = attachment.egress
        with Rtnetlink(attachment.namespace) as netlink:
            chain.apply(netlink, CONTAINER_NIC_INDEX, limit, with_fq_codel=self._with_fq_codel)
        segments = _MAX_SEGMENTS
        if limit is not None:
            segments = max(1, min(limit.rate // 100 // self._host.mtu, _MAX_SEGMENTS))
        with namespaces.entered(attachment.namespace), routes() as iproute:
            for index in (CONTAINER_NIC_INDEX, link_index("lo")):
                iproute.link("set", index=index, gso_max_segs=segments)

    def verify(self, attachment: Attachment) -> list[str]:
        try:
            with Rtnetlink(attachment.namespace) as netlink:
                return chain.problems(netlink, CONTAINER_NIC_INDEX, attachment.egress, self.name)
        except OSError as error:
            return [f"the queues cannot be read: {errno.errorcode.get(error.errno or 0, error)}"]

    def revert(self, attachment: Attachment) -> None:
        """It goes with the link."""
