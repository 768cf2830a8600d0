"""uid 0 in a container mounts every cgroup hierarchy of the machine: it must see no cgroup but its own.

A user namespace gives it the capability to mount, and host files of uid 0 are its own. The victim is a process of the
host's with a cgroup in each hierarchy, which the attacker tries to freeze, to limit, to kill and to make children in.
Its own cgroup it could freeze, too, and then it could not be killed.
"""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from portslice.demo.node import ISOLATION, node
from portslice.demo.testbed import Testbed
from tests.kernel.waiting import until

SETTINGS = ("freezer.state", "cgroup.freeze", "pids.max", "cgroup.max.descendants", "devices.list", "memory.max")
# One process does it all: without a mapping, which for uid 0 takes a capability, the new ones are lost with execve(2).
ATTACK = """
import ctypes, os, sys

libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000 | 0x00020000 | 0x02000000) != 0:  # CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWCGROUP
    sys.exit("failed to unshare")
os.mkdir("cg")
for line in open("/proc/self/cgroup"):
    names = line.split(":")[1]
    kind = "cgroup" if names else "cgroup2"
    options = "none," + names if names.startswith("name=") else names
    if libc.mount(b"none", b"cg", kind.encode(), 0, options.encode()) != 0:
        print("failed to mount", names, os.strerror(ctypes.get_errno()))
        continue
    print("mounted", names)
    try:
        os.mkdir("cg/child")
        print("made a child of its own", names)
    except OSError:
        pass
    for setting in sys.argv[2:]:
        name = setting.partition("=")[0]
        if os.path.exists("cg/" + name) and os.access("cg/" + name, os.W_OK, effective_ids=True):
            print("could set its own", name, names)
    victim = "cg/" + sys.argv[1]
    if os.path.exists(victim):
        print("found", names)
        try:
            os.mkdir(victim + "/child")
            print("made a child", names)
        except OSError:
            pass
        for setting in sys.argv[2:]:
            name, _, value = setting.partition("=")
            if os.path.exists(victim + "/" + name):
                try:
                    with open(victim + "/" + name, "w") as file:
                        file.write(value)
                    print("set", name, names)
                except OSError:
                    pass
    libc.umount2(b"cg", 2)
print("done", flush=True)
"""
HARM = ("freezer.state=FROZEN", "cgroup.freeze=1", "pids.max=1", "cgroup.max.descendants=0", "devices.deny=a",
        "memory.max=1000000", "cgroup.kill=1")  # fmt: skip


def hierarchies() -> dict[str, Path]:
    """Where each hierarchy of the machine is mounted, by its field in /proc/self/cgroup."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        kind, _, options = fields[fields.index("-") + 1 :]
        if kind == "cgroup2":
            found[""] = Path(fields[4])
        elif kind == "cgroup":
            names = {"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode"}
            found[",".join(name for name in options.split(",") if name not in names)] = Path(fields[4])
    return found


def settings(victims: list[Path]) -> dict[str, str]:
    files = [victim / name for victim in victims for name in SETTINGS]
    return {str(file): file.read_text() for file in files if file.exists()}


@pytest.fixture
def victims() -> Iterator[list[Path]]:
    """The cgroups of a process of the host's, one in each hierarchy."""
    paths = [mount / f"portslice-victim-{os.getpid()}" for mount in hierarchies().values()]
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        try:
            for path in paths:
                path.mkdir()
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if (path.parent / name).exists():
                        (path / name).write_text((path.parent / name).read_text())
                (path / "cgroup.procs").write_text(str(sleeper.pid))
            yield paths
            assert sleeper.poll() is None, "the victim is alive"
        finally:
            for path in paths:
                if (path / "freezer.state").exists():
                    (path / "freezer.state").write_text("THAWED")
            sleeper.kill()
            sleeper.wait()
            for path in paths:
                for each in (path / "child", path):
                    with contextlib.suppress(FileNotFoundError):
                        until(lambda each=each: removed(each), f"end of {each}")  # type: ignore[misc]


def removed(cgroup: Path) -> bool:
    try:
        cgroup.rmdir()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        return False
    return True


@pytest.mark.parametrize("isolation", [ISOLATION, "posix/cpu,posix/mem"])
def test_root_inside_reaches_no_foreign_cgroup(bed: Testbed, victims: list[Path], isolation: str) -> None:
    before = settings(victims)
    assert before
    with node(bed, f"--isolation={isolation}") as agent:
        attack = f"{shlex.join([sys.executable, '-c', ATTACK, victims[0].name, *HARM])}; sleep 10000"
        attacker = agent.launch("attacker", "sh", "-c", attack)
        output = Path(attacker["sandbox"], "stdout")
        until(lambda: "done\n" in output.read_text(), "end of the attack")
        lines = output.read_text().splitlines()
        mounted = {line.partition(" ")[2] for line in lines if line.startswith("mounted ")}
        assert mounted == set(hierarchies()), "else the rest would prove nothing"
        assert [line for line in lines if not line.startswith("mounted ")] == ["done"]
        assert settings(victims) == before
        assert [child for victim in victims for child in victim.iterdir() if child.is_dir()] == []

        own = f"/{agent.cgroups_root}/{attacker['id']}/leaf"
        memberships = Path(f"/proc/{attacker['pid']}/cgroup").read_text().splitlines()
        assert {line.split(":", 2)[2] for line in memberships} == {own}
