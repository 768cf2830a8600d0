"""The containers' ports are reserved on the host: no socket of the host gets one unless it asks for it by number.

net.ipv4.ip_local_reserved_ports, of each network namespace and of both IP versions, keeps ports out of the kernel's own
choice (bind to port 0, connect) even where ip_local_port_range is changed so that it covers them. Administrators and
further agents write into the same list: an agent adds what is missing, and remembers what it added in a file, which
outlives it. Taken back is what the file has, and nothing else.

The file is written before the list grows and after it has shrunk, so that a crash in between leaves no port reserved
that nobody would take back. It counts only for the boot and the network namespace that it was written in. The list has
no lock of its own; the file of the namespace, which is the same for all that are in it, serves as one. Any user may
lock it, so patience has an end: what it guards against is two agents in the same millisecond.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from portslice.errors import NetworkError, PortsliceError
from portslice.network import sysctl
from portslice.ports import PortSet

log = logging.getLogger(__name__)

_PARAMETER = "ipv4/ip_local_reserved_ports"
_NAMESPACE = Path("/proc/thread-self/ns/net")
_PATIENCE_SECS = 5.0


def reserve(ports: PortSet, record: Path) -> None:
    """Reserve exactly `ports` for the agent of this record, in the calling thread's network namespace.

    Safe to repeat, with other ports too. What others reserved stays theirs.

    :raises NetworkError: the kernel refused.
    """
    with _locked():
        ours = _recorded(record)
        others = reserved() - ours
        wanted = ports - others
        _write(record, ours | wanted)
        _set(others | wanted)
        _write(record, wanted)


def release(record: Path) -> None:
    """Take back what `reserve` added.

    :raises NetworkError: the kernel refused.
    """
    with _locked():
        if ours := _recorded(record):
            _set(reserved() - ours)
        record.unlink(missing_ok=True)


def reserved() -> PortSet:
    """All reserved ports of the calling thread's network namespace, whoever did it."""
    text = sysctl.read(_PARAMETER)
    return PortSet.parse(text) if text else PortSet()


def _set(ports: PortSet) -> None:
    try:
        sysctl.write(_PARAMETER, f"{','.join(map(str, ports.ranges))}\n")
    except OSError as error:
        raise NetworkError(f"Failed to set net.ipv4.ip_local_reserved_ports: {error.strerror}") from error


@contextmanager
def _locked() -> Iterator[None]:
    deadline = time.monotonic() + _PATIENCE_SECS
    with _NAMESPACE.open() as namespace:
        while True:
            try:
                fcntl.flock(namespace, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    log.warning("A process keeps the network namespace's file locked; its lock is passed over")
                    break
                time.sleep(0.005)
        yield


def _here() -> dict[str, str]:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"boot": boot, "namespace": os.readlink(_NAMESPACE)}


def _recorded(record: Path) -> PortSet:
    try:
        content = json.loads(record.read_text())
        ports = PortSet.parse(content.pop("ports"))
    except (OSError, ValueError, LookupError, AttributeError, TypeError, PortsliceError):
        return PortSet()  # never written, or not by us
    return ports if content == _here() else PortSet()


def _write(record: Path, ports: PortSet) -> None:
    new = record.with_suffix(".new")
    new.write_text(json.dumps({**_here(), "ports": str(ports)}))
    new.replace(record)
