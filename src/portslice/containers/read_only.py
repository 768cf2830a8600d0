"""Makes every file system of its mount namespace read-only, and the device files on it dead.

A program of its own, since no tool of Debian 12's calls mount_setattr(2): it changes all mounts at once and leaves
their other flags (nosuid) alone, and reaches those that others cover. Remounting one after the other would do neither.
"""

import ctypes
import os
import sys

_MOUNT_SETATTR = 442  # the same on every architecture
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_RDONLY, _NODEV = 0x1, 0x4


class _Attributes(ctypes.Structure):
    """struct mount_attr"""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd"))


def main() -> str | None:
    """What went wrong."""
    attributes = _Attributes(attr_set=_RDONLY | _NODEV)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, ctypes.byref(attributes), size) != 0:
        return f"Failed to make the file systems read-only: {os.strerror(ctypes.get_errno())}"
    return None


if __name__ == "__main__":
    sys.exit(main())
