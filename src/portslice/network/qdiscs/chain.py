"""A limit as Mesos builds it, on any link: HTB 1: with class 1:1, and fq_codel below it where the kernel has one.

A rate is changed in place while traffic flows. Removing is not so gentle: the kernel stops a link to replace its root
queue (qdisc_graft), and what is sent meanwhile is lost, with what waits there. So a limit is lifted by opening it up to
a rate that nothing reaches; the queues go with the link.
"""

from portslice.network.qdiscs import fq_codel, htb, tbf
from portslice.network.rtnetlink import TC_H_ROOT, Queue, Rtnetlink
from portslice.rates import Rate

_OPEN = Rate(1 << 40)


def apply(
    netlink: Rtnetlink, ifindex: int, limit: Rate | None, *, with_fq_codel: bool, largest: int | None = None
) -> None:
    """Make the link keep the limit, or none.

    :param largest: take apart what is longer than so many bytes (see tbf.py), if the kernel can.
    """
    present = htb.setting_of(netlink, ifindex)
    if limit is None:
        if present is not None:
            htb.set_rate(netlink, ifindex, _OPEN)
        return
    if present is not None:
        htb.set_rate(netlink, ifindex, limit)
    else:
        htb.install(netlink, ifindex, limit)
    parent = htb.CLASS
    if largest is not None:
        try:
            tbf.set_size(netlink, ifindex, parent, largest)
            parent = tbf.CLASS
        except FileNotFoundError:
            pass  # the limit holds all the same, only in coarser steps
    if with_fq_codel and present is None:
        fq_codel.install(netlink, ifindex, parent)


def setting_of(netlink: Rtnetlink, ifindex: int) -> htb.Setting | None:
    """The limit that the link keeps, as the kernel has it; None if there is none, or one that was opened up."""
    present = htb.setting_of(netlink, ifindex)
    return None if present == htb.setting(_OPEN) else present


def problems(netlink: Rtnetlink, ifindex: int, limit: Rate | None, direction: str) -> list[str]:
    """Where the link differs from what `apply` makes of it, in words."""
    present = setting_of(netlink, ifindex)
    wanted = htb.setting(limit) if limit else None
    if present == wanted:
        return []
    if present and wanted and present.rate == wanted.rate:
        return [f"the burst or the ceiling of the {direction} limit is another one"]
    rates = [each.rate if each else None for each in (present, wanted)]
    return [f"the {direction} limit is {rates[0]} bytes per second, not {rates[1]}"]


def queues(netlink: Rtnetlink, ifindex: int) -> tuple[Queue | None, Queue | None]:
    """HTB, and fq_codel below it, with their counters."""
    root = netlink.qdisc(ifindex, TC_H_ROOT)
    if root is None or root.kind != "htb":
        return None, None
    below = netlink.qdisc(ifindex, htb.CLASS)
    if below is not None and below.kind == "tbf":
        below = netlink.qdisc(ifindex, tbf.CLASS)
    return root, below if below is not None and below.kind == "fq_codel" else None

