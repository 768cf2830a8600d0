"""fq_codel (RFC 8290): below HTB it keeps the queue short; on the NIC it gives every container one fair flow.

On the NIC no filter is needed: fq_codel takes a packet's flow from skb->priority if that holds a class id of the qdisc
(fq_codel_classify), and the data plane writes it there. Flow 1 and up are the containers' by slot; the host's own
traffic is spread over all flows by its hash.
"""

import struct

from portslice.network.netlink import attribute
from portslice.network.rtnetlink import CREATE, EXCL, RTM_DELQDISC, RTM_NEWQDISC, Rtnetlink

FLOWS = 32768  # eight times the slots: the host's hashed flows seldom meet a container's
_TCA_FQ_CODEL_FLOWS = 5


def install(netlink: Rtnetlink, ifindex: int, parent: int, *, handle: int = 0, flows: int = 0) -> None:
    """fq_codel below `parent`; `flows` 0 leaves the kernel's default of 1,024.

    :raises OSError: EEXIST if another qdisc is there; ENOENT if the kernel has no fq_codel.
    """
    options = attribute(_TCA_FQ_CODEL_FLOWS, struct.pack("=I", flows)) if flows else b""
    netlink.change(
        RTM_NEWQDISC, CREATE | EXCL, ifindex, handle=handle, parent=parent, kind="fq_codel", options=options
    )


def remove(netlink: Rtnetlink, ifindex: int, parent: int, handle: int) -> None:
    """Remove the qdisc below `parent`. The kernel refuses if one of another kind has the handle."""
    netlink.change(RTM_DELQDISC, 0, ifindex, handle=handle, parent=parent, kind="fq_codel")
