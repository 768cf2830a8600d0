"""Cgroups of the version that the kernel has, with real processes in them."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path

import pytest

from portslice.agent import startup
from portslice.agent.flags import AgentFlags
from portslice.containers.cgroups import CONTROLLERS, MIN_MEMORY_BYTES, Cgroups, Stall, detect
from portslice.errors import ConflictError, ContainerError
from tests.kernel.block_device import block_device, count_for_cgroups
from tests.kernel.block_device import number as block_device_number
from tests.kernel.waiting import until

HIERARCHY = Path("/sys/fs/cgroup")
MB = 1024 * 1024

Run = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def root() -> str:
    return f"portslice-test-{os.getpid()}"


@pytest.fixture
def cgroups(root: str) -> Iterator[Cgroups]:
    cgroups = detect(HIERARCHY, root)
    yield cgroups
    for container_id in cgroups.ids():
        cgroups.destroy(container_id)
    cgroups.remove_root()
    assert directories(root) == []


@pytest.fixture
def run(cgroups: Cgroups) -> Iterator[Run]:
    """Starts a Python program in the cgroups of container c."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: str) -> subprocess.Popen[str]:
        join = ["sh", "-c", 'while [ "$1" != -- ]; do echo 0 >"$1"; shift; done; shift; exec "$@"', "sh"]
        files = [str(path) for path in cgroups.join_files("c")]
        command = [*join, *files, "--", sys.executable, "-c", program, *arguments]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def directories(root: str) -> list[Path]:
    """Every directory of ours in any hierarchy."""
    return [Path(path) for path in glob(f"{HIERARCHY}/**/{root}", recursive=True)]


def setting(cgroups: Cgroups, root: str, v1: str, v2: str) -> str:
    controller, _, name = v1.rpartition("/")
    path = HIERARCHY / controller / root / "c" / name if cgroups.version == 1 else HIERARCHY / root / "c" / v2
    return path.read_text().strip()


def said(process: subprocess.Popen[str]) -> str:
    """The next line that a program prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def answer(process: subprocess.Popen[str]) -> None:
    """Let a program that waits for input go on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_the_version_is_what_is_mounted(cgroups: Cgroups) -> None:
    assert cgroups.version == (2 if (HIERARCHY / "cgroup.controllers").exists() else 1)


def test_missing_controllers_are_named(cgroups: Cgroups, root: str, tmp_path: Path) -> None:
    assert cgroups.missing(CONTROLLERS) == []
    assert cgroups.missing({"memory", "no-such", "another"}) == ["another", "no-such"]
    with pytest.raises(ContainerError, match="no-such"):
        cgroups.create("c", {"memory", "no-such"})
    assert "cpu" in detect(tmp_path, root).missing(CONTROLLERS)
    assert "memory" in detect(tmp_path, root).missing(CONTROLLERS)


def test_processes_join_below_the_limits(cgroups: Cgroups, run: Run) -> None:
    cgroups.create("c", CONTROLLERS)
    process = run("input('ready\\n')")
    assert said(process) == "ready"
    assert cgroups.join_files("c")
    for path in cgroups.join_files("c"):
        assert path.read_text().split() == [str(process.pid)]
        assert path.parent.name == "leaf"
        assert (path.parent.parent / "cgroup.procs").read_text() == ""


@pytest.mark.parametrize("controllers", [frozenset(), frozenset({"memory"}), CONTROLLERS])
def test_a_cgroup_of_its_own_in_every_hierarchy(
    cgroups: Cgroups, run: Run, root: str, controllers: frozenset[str]
) -> None:
    cgroups.create("c", controllers)
    process = run("input('ready\\n')")
    said(process)
    memberships = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
    assert {line.split(":", 2)[2] for line in memberships} == {f"/{root}/c/leaf"}
    assert len(cgroups.join_files("c")) == len(memberships)


def test_only_the_asked_controllers_are_enabled(cgroups: Cgroups) -> None:
    if cgroups.version == 1:
        pytest.skip("on v1 every cgroup has its hierarchy's controller")
    cgroups.create("c", {"memory"})
    with pytest.raises(ContainerError, match=r"cpu\.weight"):
        cgroups.set_cpu("c", 1, True)
    cgroups.set_memory("c", 64 * MB)


def test_nobody_inside_may_change_the_leaf(cgroups: Cgroups) -> None:
    """Also not uid 0 without capabilities."""
    cgroups.create("c", CONTROLLERS)
    for path in cgroups.join_files("c"):
        script = 'mkdir "$1/child" || [ -w "$1/cgroup.procs" ]'
        drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "sh", "-c", script, "sh", str(path.parent)]
        assert subprocess.run(drop, stderr=subprocess.DEVNULL).returncode == 1
        assert subprocess.run(drop[3:]).returncode == 0, "root may"
        (path.parent / "child").rmdir()


@pytest.mark.parametrize(
    ("change", "reason"),
    [("mount -o remount,bind,ro", "Read-only file system"), ("umount -l", "It is mounted nowhere")],
)
def test_a_hierarchy_that_cannot_be_joined_is_left_out(root: str, change: str, reason: str) -> None:
    """In a mount namespace, where the hierarchy may be spoilt: what was left out, and the rest."""
    v2 = (HIERARCHY / "cgroup.controllers").exists()
    spoilt = HIERARCHY if v2 else HIERARCHY / "memory"
    program = (
        "import logging, os, sys\n"
        "from pathlib import Path\n"
        "from portslice.containers.cgroups import detect\n"
        "from portslice.errors import ContainerError\n"
        "logging.basicConfig(format='%(message)s', stream=sys.stdout)\n"
        "cgroups = detect(Path('/sys/fs/cgroup'), sys.argv[1])\n"
        "cgroups.probe(set())\n"
        "try:\n"
        "    if not cgroups.missing({'memory'}): cgroups.probe({'memory'})\n"
        "except ContainerError as error: print('needed:', error)\n"
        "cgroups.create('c', set())\n"
        "print('joined', *cgroups.join_files('c'))\n"
        "cgroups.destroy('c')\n"
        "cgroups.remove_root()\n"
    )
    script = f'{change} {spoilt} && exec "$@"'
    unshared = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    command = [*unshared, sys.executable, "-c", program, root]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    name = "of version 2" if v2 else "memory"
    warning = f"Containers have no cgroup of their own in the hierarchy {name}: "
    assert lines[0].startswith(warning)
    assert lines[0].endswith(reason)
    needed = [line for line in lines[1:-1] if line.startswith("needed: ")]
    assert len(needed) == (1 if change.startswith("mount") else 0)
    joined = lines[-1].split()[1:]
    assert len(joined) == len(Path("/proc/self/cgroup").read_text().splitlines()) - 1
    assert not any(Path(path).is_relative_to(spoilt) for path in joined)
    assert directories(root) == []


def test_containers_are_found_again_and_leave_nothing(cgroups: Cgroups, root: str) -> None:
    assert cgroups.ids() == []
    assert cgroups.join_files("c") == []
    cgroups.create("c", CONTROLLERS)
    cgroups.create("b", {"cpu"})
    later = detect(HIERARCHY, root)
    assert later.ids() == ["b", "c"]
    assert later.join_files("c") == cgroups.join_files("c")
    later.remove_root()
    assert later.ids() == ["b", "c"], "a root in use stays"
    later.destroy("b")
    later.destroy("c")
    later.destroy("c")
    assert later.ids() == []
    later.remove_root()
    assert directories(root) == []


def test_a_root_may_lie_deeper(cgroups: Cgroups, root: str) -> None:
    deeper = detect(HIERARCHY, f"{root}/deeper")
    try:
        deeper.create("c", CONTROLLERS)
        deeper.set_cpu("c", 1, True)
        deeper.set_memory("c", 64 * MB)
        assert deeper.ids() == ["c"]
    finally:
        deeper.destroy("c")
        deeper.remove_root()


def test_what_a_container_made_goes_with_it(cgroups: Cgroups) -> None:
    cgroups.create("c", CONTROLLERS)
    for path in cgroups.join_files("c"):
        (path.parent / "own" / "nested").mkdir(parents=True)
    cgroups.destroy("c")
    assert cgroups.ids() == []


def test_a_running_process_is_in_the_way(cgroups: Cgroups, run: Run) -> None:
    cgroups.create("c", CONTROLLERS)
    process = run("input('ready\\n')")
    said(process)
    with pytest.raises(ContainerError, match=r"Failed to remove the cgroup .*/c/leaf: Device or resource busy"):
        cgroups.destroy("c")
    assert process.poll() is None
    process.kill()
    cgroups.destroy("c")
    assert cgroups.ids() == []


def test_twice_is_a_conflict_and_harms_nothing(cgroups: Cgroups) -> None:
    cgroups.create("c", {"memory"})
    with pytest.raises(ConflictError, match="exists already"):
        cgroups.create("c", CONTROLLERS)
    assert cgroups.memory_stat("c").total is not None
    assert all(path.exists() for path in cgroups.join_files("c"))


@pytest.mark.parametrize("container_id", ["", ".", "..", "../c", "a/b", "a\0b"])
def test_only_below_the_root(cgroups: Cgroups, container_id: str) -> None:
    with pytest.raises(ContainerError, match="Bad container id"):
        cgroups.create(container_id, {"memory"})
    with pytest.raises(ContainerError, match="Bad container id"):
        cgroups.destroy(container_id)


@pytest.mark.parametrize("bad", ["", ".", "/", "/x", "..", "a/../../b"])
def test_a_root_that_leads_elsewhere_is_refused(bad: str) -> None:
    with pytest.raises(ContainerError, match="Bad cgroups root"):
        detect(HIERARCHY, bad)


@pytest.mark.parametrize(
    ("cpus", "shares", "weight", "quota"),
    [
        (1.0, "1024", "100", "100000"),
        (2.5, "2560", "250", "250000"),
        (0.1, "102", "10", "10000"),
        (0.001, "2", "1", "1000"),
    ],
)
def test_cpu_shares_and_quota(
    cgroups: Cgroups, root: str, cpus: float, shares: str, weight: str, quota: str
) -> None:
    v1 = cgroups.version == 1
    cgroups.create("c", {"cpu"})
    cgroups.set_cpu("c", cpus, True)
    assert setting(cgroups, root, "cpu/cpu.shares", "cpu.weight") == (shares if v1 else weight)
    assert setting(cgroups, root, "cpu/cpu.cfs_quota_us", "cpu.max") == (quota if v1 else f"{quota} 100000")
    cgroups.set_cpu("c", cpus, False)
    assert setting(cgroups, root, "cpu/cpu.shares", "cpu.weight") == (shares if v1 else weight)
    assert setting(cgroups, root, "cpu/cpu.cfs_quota_us", "cpu.max") == ("-1" if v1 else "max 100000")


def test_the_hard_memory_limit_only_rises_and_the_soft_one_follows(cgroups: Cgroups, root: str) -> None:
    def limits() -> tuple[int, int]:
        soft = setting(cgroups, root, "memory/memory.soft_limit_in_bytes", "memory.low")
        return int(soft), int(setting(cgroups, root, "memory/memory.limit_in_bytes", "memory.max"))

    cgroups.create("c", {"memory"})
    cgroups.set_memory("c", 64 * MB)
    assert limits() == (64 * MB, 64 * MB)
    cgroups.set_memory("c", 48 * MB)
    assert limits() == (48 * MB, 64 * MB)
    cgroups.set_memory("c", 96 * MB)
    assert limits() == (96 * MB, 96 * MB)
    cgroups.set_memory("c", 1)
    assert limits() == (MIN_MEMORY_BYTES, 96 * MB)


def test_memory_and_swap_are_limited_together(cgroups: Cgroups, root: str) -> None:
    """The kernel refuses the wrong order, be the limits raised, set anew, or lifted."""
    if not cgroups.limits_swap():
        pytest.skip("only with version 1 of cgroups, where the kernel counts swap")

    def limits() -> tuple[int, int]:
        names = ("memory/memory.limit_in_bytes", "memory/memory.memsw.limit_in_bytes")
        alone, together = (int(setting(cgroups, root, name, "")) for name in names)
        return alone, together

    cgroups.create("c", {"memory"})
    unlimited = limits()[1]
    cgroups.set_memory("c", 64 * MB, swap=True)
    assert limits() == (64 * MB, 64 * MB)
    cgroups.set_memory("c", 96 * MB, swap=True)
    assert limits() == (96 * MB, 96 * MB)
    cgroups.set_memory("c", 48 * MB, swap=True)
    assert limits() == (96 * MB, 96 * MB)
    cgroups.set_memory("c", 128 * MB)
    assert limits() == (128 * MB, unlimited)
    cgroups.set_memory("c", 64 * MB, swap=True)
    assert limits() == (128 * MB, 128 * MB)


def test_an_agent_that_cannot_limit_swap_says_so(cgroups: Cgroups) -> None:
    flags = AgentFlags(isolation="cgroups/mem", cgroups_limit_swap=True)
    if cgroups.limits_swap():
        startup.isolators(flags)
        return
    reason = "Failed to create isolator 'cgroups/mem': 'memory.memsw.limit_in_bytes' is not available: "
    with pytest.raises(startup.StartupError, match=f"{reason}.* without --cgroups_limit_swap"):
        startup.isolators(flags)


def test_processes_and_threads_are_counted(cgroups: Cgroups, run: Run) -> None:
    """Wherever below the container's cgroup they are, as /proc has them."""
    cgroups.create("c", CONTROLLERS)
    assert cgroups.tasks("c") == (0, 0)
    process = run(
        "import subprocess, threading, time\n"
        "for _ in range(3): threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
        "child = subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\n"
        "input()\n"
        "child.kill()\n"
        "child.wait()\n"
        "input('ready\\n')\n"
    )
    pids = [process.pid, int(said(process))]
    for path in (each for each in cgroups.join_files("c") if "cpuset" not in each.parts):  # there it would need CPUs
        deeper = path.parent / "deeper" / "still"
        deeper.mkdir(parents=True)
        (deeper / "cgroup.procs").write_text(str(pids[1]))
    threads = sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids)
    assert cgroups.tasks("c") == (2, threads) == (2, 5)
    answer(process)
    said(process)
    assert cgroups.tasks("c") == (1, 4)


def test_cpu_time_is_counted_as_the_kernel_does_for_processes(cgroups: Cgroups, run: Run) -> None:
    cgroups.create("c", {"cpu"})
    process = run(
        "import os\n"
        "def report(): times = os.times(); print(times.user, times.system, flush=True); input()\n"
        "report()\n"
        "begin = os.times()\n"
        "while os.times().user < begin.user + 1.2: sum(range(1000))\n"
        "while os.times().system < begin.system + 0.4: os.urandom(100_000)\n"
        "report()\n"
    )
    reports, stats = [], []
    for _ in range(2):
        reports.append([float(secs) for secs in said(process).split()])
        stats.append(cgroups.cpu_stat("c"))
        answer(process)
    (user, system), before, after = ([end - begin for begin, end in zip(*reports, strict=True)], *stats)
    user_of_cgroup = (after.user_secs or 0) - (before.user_secs or 0)
    system_of_cgroup = (after.system_secs or 0) - (before.system_secs or 0)
    assert user_of_cgroup + system_of_cgroup == pytest.approx(user + system, abs=0.1)
    # Processes and cgroups each divide their sum by the timer ticks that they have seen.
    assert user_of_cgroup == pytest.approx(user, abs=0.3)
    assert user > 1.5 * system > 0.3


@pytest.mark.alone
def test_a_quota_throttles(cgroups: Cgroups, run: Run) -> None:
    cgroups.create("c", {"cpu"})
    cgroups.set_cpu("c", 0.2, True)
    before = cgroups.cpu_stat("c")
    assert (before.nr_throttled, before.throttled_secs) == (0, 0)
    run("print('ready', flush=True)\nwhile True: pass")
    time.sleep(0.3)  # the interpreter's start is throttled, too
    start, used = time.monotonic(), cgroups.cpu_stat("c")
    time.sleep(2)
    elapsed, stat = time.monotonic() - start, cgroups.cpu_stat("c")
    assert None not in stat
    assert None not in used
    busy = (stat.user_secs or 0) + (stat.system_secs or 0) - (used.user_secs or 0) - (used.system_secs or 0)
    assert busy / elapsed == pytest.approx(0.2, abs=0.05)
    assert (stat.nr_periods or 0) > 10
    assert 5 < (stat.nr_throttled or 0) <= (stat.nr_periods or 0)
    assert (stat.throttled_secs or 0) > 0.5


def test_memory_is_counted_by_kind(cgroups: Cgroups, run: Run, tmp_path: Path) -> None:
    cgroups.create("c", {"memory"})
    file = Path("/var/tmp") / f"portslice-test-{os.getpid()}"
    program = (
        "import mmap, os, sys\n"
        "anonymous = b'x' * (40 << 20)\n"
        "with open(sys.argv[1], 'w+b') as file:\n"
        "    file.write(b'y' * (20 << 20)); file.flush()\n"
        "    mapped = mmap.mmap(file.fileno(), 10 << 20)\n"
        "    for page in range(0, len(mapped), 4096): mapped[page]\n"
        "    input('ready\\n')\n"
    )
    try:
        process = run(program, str(file))
        assert said(process) == "ready"
        stat = cgroups.memory_stat("c")
    finally:
        file.unlink(missing_ok=True)
    assert stat.total is not None
    assert stat.anon is not None
    assert stat.file is not None
    assert stat.mapped_file is not None
    # The kernel's counters are exact to some hundred KB for each CPU.
    assert 39 * MB < stat.anon < 70 * MB
    assert 19 * MB < stat.file < 40 * MB
    assert 9 * MB < stat.mapped_file < 30 * MB
    assert stat.anon + stat.file < stat.total + 2 * MB
    assert stat.unevictable == 0
    assert stat.swap == 0
    assert 0 < (stat.kernel or 0) < stat.total
    assert stat.kernel_tcp == 0


def test_locked_memory_and_that_of_sockets_is_counted(cgroups: Cgroups, run: Run, root: str) -> None:
    cgroups.create("c", {"memory"})
    process = run(
        "import ctypes, mmap, socket\n"
        "locked = mmap.mmap(-1, 4 << 20)\n"
        "address = ctypes.addressof(ctypes.c_char.from_buffer(locked))\n"
        "assert ctypes.CDLL(None).mlock(ctypes.c_void_p(address), ctypes.c_size_t(len(locked))) == 0\n"
        "with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "    client = socket.create_connection(server.getsockname())\n"
        "    unread, _ = server.accept()\n"
        "    client.setblocking(False)\n"
        "    try:\n"
        "        while True: client.send(bytes(1 << 16))\n"
        "    except BlockingIOError: input('ready\\n')\n"
    )
    assert said(process) == "ready"
    stat = cgroups.memory_stat("c")
    assert 4 * MB <= (stat.unevictable or 0) < 5 * MB
    # Version 1 counts them only where they are limited.
    of_sockets = setting(cgroups, root, "memory/memory.kmem.tcp.usage_in_bytes", "memory.stat")
    told = of_sockets if cgroups.version == 1 else re.findall(r"^sock (\d+)$", of_sockets, re.M)[0]
    assert stat.kernel_tcp == pytest.approx(int(told), abs=MB)
    assert cgroups.version == 1 or (stat.kernel_tcp or 0) > MB


def test_what_is_done_on_a_block_device_is_counted(cgroups: Cgroups, run: Run, tmp_path: Path) -> None:
    cgroups.create("c", {"io"})
    with block_device(tmp_path, 16 * MB) as device:
        number = tuple(int(part) for part in block_device_number(device).split(":"))
        count_for_cgroups(device)
        before = cgroups.io_stat("c")
        assert before[-1] == (None, {"TOTAL": 0}, {"TOTAL": 0})
        program = (
            "import mmap, os, sys\n"
            "file = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)\n"
            "page = mmap.mmap(-1, 65536)\n"
            "for _ in range(64): os.preadv(file, [page], 0)\n"
            "for _ in range(32): os.pwritev(file, [page], 0)\n"
        )
        assert run(program, str(device)).wait() == 0
        *devices, total = cgroups.io_stat("c")
        (stat,) = (each for each in devices if each.device == number)
        expected = {"READ": 64, "WRITE": 32, "DISCARD": 0, "TOTAL": 96}
        sizes = {operation: count * 65536 for operation, count in expected.items()}
        if cgroups.version == 1:
            expected, sizes = ({**each, "SYNC": each["TOTAL"], "ASYNC": 0} for each in (expected, sizes))
        assert (stat.operations, stat.size) == (expected, sizes)
        assert list(stat.size)[-1] == "TOTAL"
        assert total.device is None
        assert total.size["TOTAL"] == sum(each.size["TOTAL"] for each in devices)
        assert total.operations["TOTAL"] == sum(each.operations["TOTAL"] for each in devices)


def test_a_device_that_the_kernel_does_not_count_is_told(
    cgroups: Cgroups, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the command that makes it count."""
    if cgroups.version == 2:
        pytest.skip("version 2 counts every device")
    with block_device(tmp_path, MB) as device:
        device.read_bytes()
        cgroups.probe({"io"})
        told = [record.getMessage() for record in caplog.records if f" {device.name}," in record.getMessage()]
        if not told:
            pytest.skip("before Linux 6.10, version 1 counts every device")
        assert told[0].startswith(f"blkio_statistics will not show the block device {device.name}, ")
        subprocess.run(["sh", "-c", told[0].partition(": ")[2]], check=True)
        caplog.clear()
        cgroups.probe({"io"})
        assert f" {device.name}," not in caplog.text


def test_waiting_for_a_resource_is_told(cgroups: Cgroups, run: Run, root: str) -> None:
    if not Path("/proc/pressure").exists():
        pytest.skip("this kernel has no pressure stall information")
    cgroups.create("c", CONTROLLERS)
    cgroups.set_cpu("c", 0.1, True)
    begin = cgroups.stalls("c", "cpu")
    run("while True: pass")
    until(lambda: cgroups.stalls("c", "cpu")["some"].total_secs > begin["some"].total_secs + 0.3, "waiting for CPUs")
    unified = HIERARCHY if cgroups.version == 2 else HIERARCHY / "unified"

    def shown(resource: str) -> dict[str, Stall]:
        text = (unified / root / "c" / f"{resource}.pressure").read_text()
        found = re.findall(r"^(\w+) avg10=([\d.]+) .* total=(\d+)$", text, re.M)
        return {kind: Stall(float(avg10), int(total) / 1e6) for kind, avg10, total in found}

    for resource in CONTROLLERS:
        before, told, after = shown(resource), cgroups.stalls("c", resource), shown(resource)
        assert before.keys() == told.keys() == {"some", "full"}
        for kind, stall in told.items():
            assert before[kind].total_secs <= stall.total_secs <= after[kind].total_secs
            assert stall.avg10 in {before[kind].avg10, after[kind].avg10}
    assert cgroups.stalls("c", "no-such") == {}


def test_more_memory_than_allowed_is_death(cgroups: Cgroups, run: Run) -> None:
    cgroups.create("c", {"memory"})
    cgroups.set_memory("c", 64 * MB)
    process = run("block = b'x' * (200 << 20)")
    assert process.wait() == -signal.SIGKILL
    assert run("block = b'x' * (20 << 20)").wait() == 0


def test_pressure_is_counted_for_a_running_container(cgroups: Cgroups, run: Run) -> None:
    cgroups.create("c", {"memory"})
    cgroups.set_memory("c", MIN_MEMORY_BYTES)
    process = run(
        "import os, sys\n"
        "input('ready\\n')\n"
        "for path in sys.argv[1:]:\n"
        "    with open(path, 'rb', buffering=0) as file:\n"
        "        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)\n"
        "        while file.read(1 << 20): pass\n"
        "input('done\\n')\n"
        "block = b'x' * (200 << 20)\n",
        *big_files(128 * MB),
    )
    assert said(process) == "ready"
    descriptors = len(os.listdir("/proc/self/fd"))
    pressure = cgroups.pressure("c")
    try:
        # The interpreter's own start may have come near the limit; v2 counts from the beginning.
        begin = pressure.read()
        answer(process)
        assert said(process) == "done"
        reclaimed = pressure.read()
        answer(process)
        process.wait()
        killed = pressure.read()
        assert None not in begin + reclaimed + killed
        assert (reclaimed.low or 0) > (begin.low or 0)
        assert (killed.critical or 0) > (reclaimed.critical or 0)
        assert (killed.low or 0) >= (killed.medium or 0) >= (killed.critical or 0) > 0
        assert pressure.read() == killed, "reading does not lose what was counted"
    finally:
        pressure.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def big_files(total: int) -> list[str]:
    """Files to read, of so many bytes: their pages are cache, which can be reclaimed."""
    libraries = Path("/usr/lib", str(sysconfig.get_config_var("MULTIARCH")))
    sizes = {path.resolve(): path.stat().st_size for path in libraries.glob("lib*.so*") if path.is_file()}
    chosen: list[Path] = []
    for path in sorted(sizes, key=lambda path: -sizes[path]):
        chosen.append(path)
        if sum(sizes[path] for path in chosen) >= total:
            break
    return [str(path) for path in chosen]


def test_a_missing_file_only_drops_its_field(cgroups: Cgroups) -> None:
    assert cgroups.cpu_stat("gone") == (None,) * 5
    assert cgroups.memory_stat("gone") == (None,) * 8
    assert cgroups.memory_and_swap("gone") is None
    assert cgroups.tasks("gone") == (0, 0)
    assert cgroups.io_stat("gone") == []
    assert cgroups.stalls("gone", "cpu") == {}
    pressure = cgroups.pressure("gone")
    assert pressure.read() == (None, None, None)
    pressure.close()


def test_what_cannot_be_set_is_said(cgroups: Cgroups) -> None:
    with pytest.raises(ContainerError, match=r"Failed to write '.*' to /sys/fs/cgroup/.*: No such file or directory"):
        cgroups.set_cpu("gone", 1, True)
    with pytest.raises(ContainerError, match=r"Failed to write '.*' to /sys/fs/cgroup/.*: No such file or directory"):
        cgroups.set_memory("gone", 64 * MB)
