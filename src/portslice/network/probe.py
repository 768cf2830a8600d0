"""What the kernel can do, found by trying it: a network namespace of our own is made, used and dropped.

A kernel's version says little: distributions leave features out and carry others back.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from portslice.network import bpf, namespaces
from portslice.network.dataplane import OBJECT
from portslice.network.qdiscs import fq_codel, htb, tbf
from portslice.network.rtnetlink import TC_H_ROOT, Rtnetlink
from portslice.rates import Rate

_LOOPBACK = 1

# enum bpf_func_id; the helpers that the programs call and older kernels lack.
_HELPERS = {
    "bpf_skb_change_type": 32,
    "bpf_redirect": 23,
    "bpf_fib_lookup": 69,
    "bpf_sk_lookup_udp": 85,
    "bpf_sk_fullsock": 95,
    "bpf_skc_lookup_tcp": 99,
    "bpf_sk_storage_get": 107,
    "bpf_ktime_get_boot_ns": 125,
    "bpf_redirect_neigh": 152,
    "bpf_redirect_peer": 155,
}


class Status(StrEnum):
    """How it stands with a prerequisite."""

    OK = "ok"
    WARNING = "warning"  # the agent starts, but its operator should know
    UNKNOWN = "unknown"  # cannot be found out as this user
    MISSING = "missing"
    WRONG = "wrong"


@dataclass(frozen=True)
class Check:
    """One prerequisite.

    :param remedy: the command or the flag that mends it.
    """

    name: str
    status: Status = Status.OK
    detail: str = ""
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether the agent can start."""
        return self.status in (Status.OK, Status.WARNING)

    @classmethod
    def present(cls, name: str, present: bool, detail: str, remedy: str) -> "Check":
        """:param detail: why it is missing if it is not present."""
        return cls(name) if present else cls(name, Status.MISSING, detail, remedy)


class Kernel:
    """The running kernel."""

    def required(self) -> Iterator[Check]:
        """What the isolator cannot do without, in the order in which one builds on the other."""
        yield self._try(
            "network namespaces",
            lambda: namespaces.in_new(lambda: None),
            "Use a kernel with CONFIG_NET_NS=y and run as root",
        )
        yield Check.present("libbpf", bpf.available(), "libbpf.so.1 was not found", "apt-get install libbpf1")
        if not bpf.available():
            return
        yield Check.present(
            "compiled BPF programs",
            OBJECT.exists(),
            f"'{OBJECT}' does not exist",
            "apt-get install clang libbpf-dev make && make -C bpf",
        )
        programs = bpf.supports_program()
        yield Check.present(
            "BPF programs (sched_cls)",
            programs,
            "the kernel refuses them",
            "Use a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_NET_CLS_BPF, and run with CAP_BPF and CAP_NET_ADMIN",
        )
        missing = [name for name, number in _HELPERS.items() if programs and not bpf.supports_helper(number)]
        yield Check.present(
            "BPF helpers",
            programs and not missing,
            f"the kernel lacks {', '.join(missing or _HELPERS)}",
            "Use Linux 5.10 or newer (Debian 12 has 6.1)",
        )
        yield self._try(
            "clsact", lambda: namespaces.in_new(_add_clsact), "modprobe sch_ingress (CONFIG_NET_SCH_INGRESS)"
        )
        yield self._try("HTB", lambda: namespaces.in_new(_add_htb), "modprobe sch_htb (CONFIG_NET_SCH_HTB)")

    def has_fq_codel(self) -> bool:
        """Whether there is fq_codel."""
        return self.fq_codel().ok

    def fq_codel(self) -> Check:
        """Needed for --egress_unique_flow_per_container and bloat_reduction."""
        return self._try(
            "fq_codel", lambda: namespaces.in_new(_add_fq_codel), "modprobe sch_fq_codel (CONFIG_NET_SCH_FQ_CODEL)"
        )

    def tbf(self) -> Check:
        """Needed for small ingress limits to hold from one second to the next, not only in the long run."""
        return self._try("TBF", lambda: namespaces.in_new(_add_tbf), "modprobe sch_tbf (CONFIG_NET_SCH_TBF)")

    @staticmethod
    def _try(name: str, attempt: Callable[[], None], remedy: str) -> Check:
        try:
            attempt()
        except Exception as error:
            detail = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            if isinstance(error, FileNotFoundError):
                detail = "this kernel does not have it"  # tc's answer for an unknown kind
            return Check(name, Status.MISSING, detail, remedy)
        return Check(name)


def _add_clsact() -> None:
    bpf.create_clsact(_LOOPBACK)


def _add_htb() -> None:
    with Rtnetlink() as netlink:
        htb.install(netlink, _LOOPBACK, Rate(125000))


def _add_tbf() -> None:
    with Rtnetlink() as netlink:
        tbf.set_size(netlink, _LOOPBACK, TC_H_ROOT, largest=1514)


def _add_fq_codel() -> None:
    with Rtnetlink() as netlink:
        fq_codel.install(netlink, _LOOPBACK, TC_H_ROOT, handle=0x10000)
