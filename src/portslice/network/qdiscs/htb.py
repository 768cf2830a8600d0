"""HTB, the limit: one class that everything passes.

Three things are set that tools leave to defaults, because the defaults miss the rate:

* burst: HTB refills by time, and a burst smaller than what arrives between two timer ticks is lost capacity
  (measured: 0.95 of 1 Gbit/s), as it is when the processor is late. A hundredth of a second's bytes plus two packets
  holds the rate within 0.2 % on a real machine, but only 0.97 of it on a busy virtual one; so it is a fiftieth. At the
  smallest rates two packets are seconds' worth: they are never more than a tenth of a second's bytes.
* quantum: of no effect with one class, but the kernel warns about the one it derives above 2 MB/s.
* 64-bit rates (TCA_HTB_RATE64, kernel commit df62cdf348c9): the classic field ends at 34 Gbit/s.

The kernel counts time in ticks of 64 ns (PSCHED_SHIFT 6); a token bucket's size is the time it takes at its rate.
"""

import errno
import struct
from contextlib import suppress
from typing import NamedTuple

from portslice.network.netlink import attribute, attributes
from portslice.network.rtnetlink import (
    CREATE,
    EXCL,
    REPLACE,
    RTM_DELQDISC,
    RTM_NEWQDISC,
    RTM_NEWTCLASS,
    TC_H_ROOT,
    Queue,
    Rtnetlink,
)
from portslice.rates import Rate

QDISC = 0x10000  # 1:0
CLASS = 0x10001  # 1:1

_TCA_HTB_PARMS, _TCA_HTB_INIT, _TCA_HTB_RATE64, _TCA_HTB_CEIL64 = 1, 2, 6, 7
_TICK_NS = 64
_RATE_SPEC = struct.Struct("=BBHhHI")  # cell_log, linklayer, overhead, cell_align, mpu, rate
_LINKLAYER_ETHERNET = 1  # said explicitly, so that the kernel wants no rate tables (htb_change_class)
_PARAMETERS = struct.Struct("=12s12sIIIII")  # rate, ceil, buffer, cbuffer, quantum, level, prio
_MIN_QUANTUM, _MAX_QUANTUM = 1514, 60000
_MIN_BURST = 3200  # two packets


class Setting(NamedTuple):
    """A class as the kernel shows it: bytes per second, and the time in ticks that each bucket takes to fill."""

    rate: int
    ceil: int
    buffer: int
    cbuffer: int


def burst_of(rate: int) -> int:
    """Bytes of burst that let HTB hold `rate` bytes per second."""
    return rate // 50 + min(rate // 10, _MIN_BURST)


def install(netlink: Rtnetlink, ifindex: int, limit: Rate) -> None:
    """HTB 1: with class 1:1 as default at the root of a link, in place of what is there."""
    with suppress(FileNotFoundError):
        remove(netlink, ifindex)
    # version 3, rate2quantum 10, default class 1, debug 0, direct packets 0
    initial = attribute(_TCA_HTB_INIT, struct.pack("=IIIII", 3, 10, CLASS & 0xFFFF, 0, 0))
    netlink.change(RTM_NEWQDISC, CREATE | EXCL, ifindex, handle=QDISC, kind="htb", options=initial)
    set_rate(netlink, ifindex, limit)


def set_rate(netlink: Rtnetlink, ifindex: int, limit: Rate) -> None:
    """Create class 1:1 or change its rate while traffic flows."""
    options = _encode(limit)
    netlink.change(RTM_NEWTCLASS, CREATE | REPLACE, ifindex, handle=CLASS, parent=QDISC, kind="htb", options=options)


def remove(netlink: Rtnetlink, ifindex: int) -> None:
    """Remove HTB and all below it from the root of a link.

    :raises FileNotFoundError: there is none.
    """
    try:
        netlink.change(RTM_DELQDISC, 0, ifindex, handle=QDISC, parent=TC_H_ROOT, kind="htb")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
            raise FileNotFoundError(error.errno, "no HTB at the root of the link") from error
        raise


def setting_of(netlink: Rtnetlink, ifindex: int) -> Setting | None:
    """Class 1:1 as the kernel has it."""
    for queue in netlink.classes(ifindex):
        if queue.kind == "htb" and queue.handle == CLASS:
            return _decode(queue)
    return None


def setting(limit: Rate) -> Setting:
    """What `limit` is to look like in the kernel."""
    ceil = limit.ceil or limit.rate
    # HTB's bucket at the rate is what may go at once (Mesos' "burst"); the one at the ceiling only smooths that.
    burst = burst_of(limit.rate) if limit.burst is None else max(limit.burst, _MIN_BURST)
    return Setting(limit.rate, ceil, _ticks(burst, limit.rate), _ticks(burst_of(ceil), ceil))


def _decode(queue: Queue) -> Setting:
    rate = ceil = buffer = cbuffer = 0
    rate64 = ceil64 = None
    for kind, value in attributes(queue.options):
        if kind == _TCA_HTB_PARMS:
            first, second, buffer, cbuffer, *_ = _PARAMETERS.unpack_from(value)
            rate, ceil = (_RATE_SPEC.unpack(spec)[-1] for spec in (first, second))
        elif kind == _TCA_HTB_RATE64:
            (rate64,) = struct.unpack("=Q", value)
        elif kind == _TCA_HTB_CEIL64:
            (ceil64,) = struct.unpack("=Q", value)
    return Setting(rate64 or rate, ceil64 or ceil, buffer, cbuffer)


def _ticks(size: int, rate: int) -> int:
    return min(size * 1_000_000_000 // rate // _TICK_NS, 0xFFFFFFFF)


def _encode(limit: Rate) -> bytes:
    rate, ceil, buffer, cbuffer = setting(limit)
    quantum = max(_MIN_QUANTUM, min(rate // 10, _MAX_QUANTUM))
    specs = [
        _RATE_SPEC.pack(0, _LINKLAYER_ETHERNET, 0, -1, 0, min(value, 0xFFFFFFFF)) for value in (rate, ceil)
    ]
    options = attribute(_TCA_HTB_PARMS, _PARAMETERS.pack(*specs, buffer, cbuffer, quantum, 0, 0))
    if rate > 0xFFFFFFFF:
        options += attribute(_TCA_HTB_RATE64, struct.pack("=Q", rate))
    if ceil > 0xFFFFFFFF:
        options += attribute(_TCA_HTB_CEIL64, struct.pack("=Q", ceil))
    return options
