"""Kernel parameters below /proc/sys/net, which show the network namespace of the calling thread.

A value is read by one read(2): a long one, such as a list of ports, has no second part. It is written without a buffer,
which would cut it in the middle of a number; of more than a page the kernel takes a part and leaves the rest for the
next write(2).
"""

from contextlib import suppress
from pathlib import Path

_ROOT = Path("/proc/sys/net")
_MAX_BYTES = 1 << 18  # every second port of 65,536 takes 192 KB


def read(name: str) -> str | None:
    """The value of e.g. `ipv4/conf/lo/accept_local`, None where the kernel has no such parameter or hides it."""
    try:
        with (_ROOT / name).open("rb", buffering=0) as parameter:
            return (parameter.read(_MAX_BYTES) or b"").decode().strip()
    except OSError:
        return None


def write(name: str, value: str) -> None:
    """Set a parameter.

    :raises OSError: it does not exist or may not be written here.
    """
    rest = value.encode()
    with (_ROOT / name).open("wb", buffering=0) as parameter:
        while rest:
            rest = rest[parameter.write(rest) or 0 :]


def write_if_possible(name: str, value: str) -> None:
    """Set a parameter, unless this kernel does not have it or does not let a child namespace write it
    (net.core.rmem_max is read-only there since 6.10)."""
    with suppress(OSError):
        write(name, value)
