"""TBF as what it does besides limiting: it takes a packet of segmentation offload apart into its segments.

HTB lets a packet of 64 KB pass whole as soon as it has any token, and goes into debt for it: at small rates that is
minutes ahead of time. TBF takes apart what is larger than its bucket (tbf_segment in sch_tbf.c), and so HTB above it
charges one segment after another. Its own rate is one that nothing reaches: it never holds a packet back.
"""

import struct

from portslice.network.netlink import attribute
from portslice.network.rtnetlink import CREATE, REPLACE, RTM_NEWQDISC, Rtnetlink

QDISC, CLASS = 0x20000, 0x20001  # 2:0 and 2:1

_TCA_TBF_PARMS, _TCA_TBF_RATE64, _TCA_TBF_BURST = 1, 4, 6
_PARAMETERS = struct.Struct("=12s12sIII")  # rate, peak rate, limit, buffer, mtu
_RATE_SPEC = struct.Struct("=BBHhHI")  # as in htb.py
_LINKLAYER_ETHERNET = 1
_RATE = 1_000_000_000_000  # bytes per second
_LIMIT = 1000 * 1514  # bytes of queue where no other qdisc stands below: what HTB's own queue of a veth holds


def set_size(netlink: Rtnetlink, ifindex: int, parent: int, largest: int) -> None:
    """Make TBF 2: below `parent`, or change it while traffic flows.

    :param largest: bytes of a frame that is not taken apart; a larger one that cannot be is dropped.
    :raises FileNotFoundError: the kernel has no TBF.
    """
    spec = _RATE_SPEC.pack(0, _LINKLAYER_ETHERNET, 0, -1, 0, 0xFFFFFFFF)
    options = (
        attribute(_TCA_TBF_PARMS, _PARAMETERS.pack(spec, bytes(12), _LIMIT, 1, 0))
        + attribute(_TCA_TBF_RATE64, struct.pack("=Q", _RATE))
        + attribute(_TCA_TBF_BURST, struct.pack("=I", largest))
    )
    netlink.change(
        RTM_NEWQDISC, CREATE | REPLACE, ifindex, handle=QDISC, parent=parent, kind="tbf", options=options
    )
