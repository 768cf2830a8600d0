"""Kernel parameters below /proc/sys/net, which show the network namespace of the calling thread."""

from contextlib import suppress
from pathlib import Path

_ROOT = Path("/proc/sys/net")


def read(name: str) -> str | None:
    """The value of e.g. `ipv4/conf/lo/accept_local`, None where the kernel has no such parameter or hides it."""
    try:
        return (_ROOT / name).read_text().strip()
    except OSError:
        return None


def write(name: str, value: str) -> None:
    """Set a parameter.

    :raises OSError: it does not exist or may not be written here.
    """
    (_ROOT / name).write_text(value)


def write_if_possible(name: str, value: str) -> None:
    """Set a parameter, unless this kernel does not have it or does not let a child namespace write it
    (net.core.rmem_max is read-only there since 6.10)."""
    with suppress(OSError):
        write(name, value)
