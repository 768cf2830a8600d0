"""The ingress limit: the same queues on the host end of the veth, through which the programs send if the slot says so.

All that a container receives passes there: from the world, from the host and from other containers. It may come in
packets of 64 KB, put together by the NIC or made so by a process of the host, whose size nobody here can choose (on the
way out the container's own NIC keeps it small). At 2,000 bytes per second, TCP's first ten segments in one packet would
pass at once and be 7 seconds ahead of time: so below HTB a packet is taken apart if it is more than a hundredth of a
second's bytes (../qdiscs/tbf.py). Every connection is served by this, old ones and UDP as well, which a smaller TCP
window inside would not do.

The layer stands below the slot's: the queues are there before packets are sent through them (../stack.py). As nothing
else passes the host end, putting them there costs no packet.
"""

from portslice.network.attachment import Attachment
from portslice.network.host import Host
from portslice.network.layers.link import index_of
from portslice.network.qdiscs import chain
from portslice.network.rtnetlink import Rtnetlink

_ETHERNET_HEADER = 14
_MAX_PACKET = 1 << 20  # above the greatest that there is, 512 KB with BIG TCP


class Ingress:
    """HTB and fq_codel on the host end of the container's veth."""

    name = "ingress"

    def __init__(self, host: Host, *, with_fq_codel: bool) -> None:
        self._host = host
        self._with_fq_codel = with_fq_codel

    def apply(self, attachment: Attachment) -> None:
        limit = attachment.ingress
        largest = None
        if limit is not None:
            hundredth = limit.rate // 100
            largest = max(self._host.mtu + _ETHERNET_HEADER, hundredth if hundredth < 1 << 16 else _MAX_PACKET)
        with Rtnetlink() as netlink:
            chain.apply(netlink, index_of(attachment), limit, with_fq_codel=self._with_fq_codel, largest=largest)

    def verify(self, attachment: Attachment) -> list[str]:
        with Rtnetlink() as netlink:
            return chain.problems(netlink, index_of(attachment), attachment.ingress, self.name)

    def revert(self, attachment: Attachment) -> None:
        """It goes with the link."""

