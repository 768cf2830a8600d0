"""A block device of the tests' own: a loop device, made for one test and removed, that nobody has used before."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOP_CTL_ADD, _LOOP_CTL_REMOVE = 0x4C80, 0x4C81  # linux/loop.h
_FIRST = 200  # above those that the kernel makes by itself


@contextmanager
def block_device(directory: Path, size: int) -> Iterator[Path]:
    """Its path; what it stores is in a file of so many bytes in the directory."""
    subprocess.run(["modprobe", "--quiet", "loop"], check=False)  # where it is no part of the kernel
    backing = directory / "disk"
    backing.write_bytes(bytes(size))
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        number = next(each for each in range(_FIRST, _FIRST + 100) if not Path(f"/sys/block/loop{each}").exists())
        fcntl.ioctl(control, _LOOP_CTL_ADD, number)
        device = Path(f"/dev/loop{number}")
        try:
            subprocess.run(["losetup", device, backing], check=True)
            try:
                yield device
            finally:
                subprocess.run(["losetup", "--detach", device], check=True)
        finally:
            fcntl.ioctl(control, _LOOP_CTL_REMOVE, number)
    finally:
        os.close(control)


def number(device: Path) -> str:
    """Its major and minor number, as cgroups write them: 7:200."""
    return Path("/sys/block", device.name, "dev").read_text().strip()


def count_for_cgroups(device: Path) -> None:
    """Since Linux 6.10, cgroup v1 counts nothing of a device without this. It limits nothing."""
    rule = Path("/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device")
    if rule.exists():
        rule.write_text(f"{number(device)} 0")
