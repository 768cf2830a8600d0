"""Containers launched for real: what they are given, what they cannot reach, and how they end."""

import contextlib
import dataclasses
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from portslice.containers import launcher
from portslice.containers.cgroups import CONTROLLERS, Cgroups, detect
from portslice.containers.launcher import LaunchSpec
from portslice.containers.process import ProcessHandle
from portslice.errors import ConflictError, ContainerError
from tests.kernel import cgroup_tree
from tests.kernel.waiting import until

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOBODY = pwd.getpwnam("nobody")
NET_RAW = "0000000000002000"
MB = 1024 * 1024


@dataclasses.dataclass
class Launched:
    """A container of the test's and what became of it."""

    spec: LaunchSpec
    supervisor: ProcessHandle

    @property
    def init(self) -> ProcessHandle:
        init = self.spec.record.init
        assert init is not None
        return init

    def status(self) -> int | None:
        assert self.supervisor.wait(30)
        return self.spec.record.exit_status

    def output(self) -> str:
        """What a command has printed that ended well."""
        status = self.status()
        assert (status, self.file("stderr")) == (0, "")
        return self.file("stdout")

    def file(self, name: str) -> str:
        return (self.spec.sandbox / name).read_text()

    def await_line(self, line: str) -> None:
        deadline = time.monotonic() + 30
        while line not in self.file("stdout").splitlines():
            assert time.monotonic() < deadline, f"no '{line}' in: {self.file('stdout')} {self.file('stderr')}"
            time.sleep(0.01)


Launch = Callable[..., Launched]


@pytest.fixture
def netns() -> Iterator[Path]:
    name = f"portslice-test-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield Path("/var/run/netns", name)
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def spec(tmp_path: Path, netns: Path) -> LaunchSpec:
    """A container that the tests vary: root's, with the usual layout of directories."""
    return make_spec(tmp_path / "run", tmp_path / "work", netns)


def make_spec(runtime: Path, work: Path, netns: Path) -> LaunchSpec:
    sandbox = work / "sandboxes" / "c"
    for directory in (runtime, sandbox, work / "sandboxes" / "other"):
        directory.mkdir(parents=True, exist_ok=True)
    return LaunchSpec(
        id="c",
        command=("true",),
        environment={"PATH": PATH},
        sandbox=sandbox,
        uid=0,
        gid=0,
        netns=netns,
        join_files=(),
        runtime_directory=runtime,
        work_directory=work,
    )


@pytest.fixture
def launch(spec: LaunchSpec) -> Iterator[Launch]:
    launched: list[LaunchSpec] = []

    def start(*command: str, base: LaunchSpec = spec, **changes: Any) -> Launched:
        varied = dataclasses.replace(base, command=command, **changes)
        os.chown(varied.sandbox, varied.uid, varied.gid)
        launched.append(varied)
        return Launched(varied, launcher.launch(varied))

    yield start
    for each in launched:
        launcher.destroy(each.record)
        each.record.remove()


@pytest.fixture
def cgroups(spec: LaunchSpec) -> Iterator[Cgroups]:
    cgroups = detect(Path("/sys/fs/cgroup"), f"portslice-test-{os.getpid()}")
    cgroups.create("c", CONTROLLERS)
    yield cgroups
    launcher.destroy(spec.record)
    cgroups.destroy("c")
    cgroups.remove_root()


# How it ends


@pytest.mark.parametrize("status", [0, 3, 255])
def test_exit_status(launch: Launch, status: int) -> None:
    assert launch("sh", "-c", f"exit {status}").status() == status


def test_a_signal_is_an_exit_status(launch: Launch) -> None:
    assert launch("sh", "-c", "kill -9 $$").status() == 128 + signal.SIGKILL


def test_a_command_that_does_not_exist(launch: Launch) -> None:
    container = launch("no-such-command", "argument")
    assert container.status() == 127
    assert "no-such-command" in container.file("stderr")
    assert "No such file or directory" in container.file("stderr")


def test_a_command_that_is_not_executable(launch: Launch) -> None:
    container = launch("/etc/passwd")
    assert container.status() == 126
    assert "Permission denied" in container.file("stderr")


def test_a_cgroup_that_does_not_exist_is_refused(launch: Launch, spec: LaunchSpec) -> None:
    with pytest.raises(ContainerError, match=r"(?s)Failed to launch container c: .*/sys/fs/cgroup/no/such/cgroup.proc"):
        launch("true", join_files=(Path("/sys/fs/cgroup/no/such/cgroup.procs"),))
    assert spec.record.exit_status not in (0, None)


def test_a_namespace_that_does_not_exist_is_refused(launch: Launch, spec: LaunchSpec) -> None:
    with pytest.raises(ContainerError, match=r"(?s)Failed to launch container c: nsenter: .*/no/such/netns"):
        launch("true", netns=Path("/no/such/netns"))
    assert spec.record.exit_status == 1


def test_a_user_namespace_that_cannot_be_is_refused(launch: Launch, spec: LaunchSpec) -> None:
    with pytest.raises(ContainerError, match=r"Failed to launch container c: .*init.sh: .*echo: I/O error"):
        launch("true", first_id=2**32 - 2)
    assert spec.record.init is not None
    assert not spec.record.init.alive()


def test_system_v_memory_is_its_own(launch: Launch) -> None:
    made = subprocess.run(["ipcmk", "--shmem", "4096"], capture_output=True, text=True, check=True).stdout.split()[-1]
    try:
        container = launch("sh", "-c", f"ipcs --shmems | grep -c 0x; ipcrm --shmem-id {made}")
        assert container.status() != 0
        assert container.file("stdout") == "0\n"
    finally:
        subprocess.run(["ipcrm", "--shmem-id", made], check=True)


def test_a_container_is_launched_once(launch: Launch) -> None:
    container = launch("sleep", "1000")
    with pytest.raises(ConflictError, match="was launched before"):
        launch("true")
    assert container.init.alive()


def test_no_command_is_refused(launch: Launch) -> None:
    with pytest.raises(ContainerError, match="has no command"):
        launch()


@pytest.mark.parametrize("uid", [0, NOBODY.pw_uid])
def test_sigterm_ends_a_command_that_does_nothing_about_it(launch: Launch, uid: int) -> None:
    # at once after the launch: a signal to what is process 1 before tini would be lost
    container = launch("sleep", "1000", uid=uid, gid=uid)
    assert launcher.kill(container.spec.record, signal.SIGTERM)
    assert container.status() == 128 + signal.SIGTERM
    assert not launcher.kill(container.spec.record, signal.SIGTERM)


def test_a_signal_reaches_the_whole_process_group(launch: Launch) -> None:
    child = "trap 'echo child; exit' TERM; echo ready; while :; do sleep 0.05; done"
    container = launch("sh", "-c", f"trap 'wait; echo shell' TERM; ({child}) & wait")
    container.await_line("ready")
    launcher.kill(container.spec.record, signal.SIGTERM)
    container.status()
    assert set(container.file("stdout").split()) == {"ready", "child", "shell"}


def test_the_command_decides_about_sigterm(launch: Launch) -> None:
    container = launch("sh", "-c", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    container.await_line("ready")
    launcher.kill(container.spec.record, signal.SIGTERM)
    assert container.status() == 5
    assert container.file("stdout") == "ready\nbye\n"


def test_destroying_ends_every_process(launch: Launch, cgroups: Cgroups) -> None:
    files = cgroups.join_files("c")
    container = launch("sh", "-c", "setsid sleep 1000 & sleep 1000 & echo ready; wait", join_files=tuple(files))
    container.await_line("ready")
    assert len(files[0].read_text().split()) == 4, "tini, the shell and two sleepers"
    launcher.destroy(container.spec.record)
    assert container.spec.record.exit_status == 128 + signal.SIGKILL
    assert [file.read_text() for file in files] == [""] * len(files)
    launcher.destroy(container.spec.record)


def test_what_the_command_leaves_behind_ends_with_it(launch: Launch, cgroups: Cgroups) -> None:
    files = cgroups.join_files("c")
    container = launch("sh", "-c", "setsid sleep 1000 & exit 4", join_files=tuple(files))
    assert container.status() == 4
    assert [file.read_text() for file in files] == [""] * len(files)


@pytest.mark.parametrize("uid", [0, NOBODY.pw_uid])
def test_no_container_without_its_supervisor(launch: Launch, uid: int) -> None:
    container = launch("sleep", "1000", uid=uid, gid=uid)
    assert container.supervisor.signal(signal.SIGKILL)
    assert container.init.wait(5)
    assert container.spec.record.exit_status is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_supervisor_stays_at_its_post(launch: Launch, number: signal.Signals) -> None:
    container = launch("sleep", "1000")
    assert container.supervisor.signal(number)
    assert not container.supervisor.wait(0.1)
    launcher.kill(container.spec.record, signal.SIGTERM)
    assert container.status() == 128 + signal.SIGTERM


def test_a_container_outlives_the_agent(spec: LaunchSpec, launch: Launch) -> None:
    """Launched by a process that ends; this one is the next agent."""
    agent = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from portslice.containers.launcher import LaunchSpec, launch
        runtime, work, sandbox, netns = map(Path, sys.argv[1:])
        command = ("sh", "-c", "while ! [ -e go ]; do sleep 0.01; done; echo went; exit 7")
        launch(LaunchSpec("c", command, {"PATH": os.environ["PATH"]}, sandbox, 0, 0, netns, (), runtime, work))
        print("launched", flush=True)
        os.killpg(0, signal.SIGKILL)
    """)
    paths = [spec.runtime_directory, spec.work_directory, spec.sandbox, spec.netns]
    result = subprocess.run(
        [sys.executable, "-c", agent, *map(str, paths)], capture_output=True, text=True, start_new_session=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGKILL, "launched\n", "")
    try:
        supervisor = spec.record.supervisor
        assert supervisor is not None
        container = Launched(spec, supervisor)
        assert not supervisor.wait(0.1)
        assert container.init.alive()
        assert spec.record.exit_status is None
        (spec.sandbox / "go").touch()
        assert container.status() == 7
        assert container.file("stdout") == "went\n"
    finally:
        launcher.destroy(spec.record)


# What it is given


def test_the_environment_is_exactly_the_given_one(launch: Launch) -> None:
    environment = {"A": "two  blanks", "B": "line\nline\n", "C": "it's \"quoted\" $HOME", "a.b": "odd", "OPTIND": "x"}
    container = launch("/bin/cat", "/proc/self/environ", environment=environment)
    assert set(container.output().split("\0")) == {"", *(f"{name}={value}" for name, value in environment.items())}


def test_the_environment_is_in_nobodys_command_line(launch: Launch, spec: LaunchSpec) -> None:
    container = launch("sleep", "1000", environment={"PATH": PATH, "SECRET": "confidential"})
    for process in tree(container.supervisor.pid):
        assert b"confidential" not in Path(f"/proc/{process}/cmdline").read_bytes()
    assert spec.record.directory.stat().st_mode & 0o077 == 0


def test_the_environment_does_not_lead_processes_of_root(launch: Launch, spec: LaunchSpec) -> None:
    """Were PATH taken on too early, root would run the user's mount or setpriv."""
    for name in ("mount", "setpriv", "tini", "env", "sh"):
        impostor = spec.sandbox / name
        impostor.write_text("#!/bin/sh\nid -u >>impostor-ran\n")
        impostor.chmod(0o755)
    environment = {"PATH": str(spec.sandbox), "LD_PRELOAD": "/no/such/library"}
    launch("/usr/bin/id", environment=environment, uid=NOBODY.pw_uid, gid=NOBODY.pw_gid).status()
    assert not (spec.sandbox / "impostor-ran").exists()


def test_arguments_arrive_as_they_are(launch: Launch) -> None:
    arguments = ["", " ", "a  b", "it's", '"', "$HOME", "`id`", "new\nline", "*", "-x", "--", "ä"]
    container = launch("/usr/bin/printf", "<%s>", *arguments)
    assert container.output() == "".join(f"<{argument}>" for argument in arguments)


def test_it_starts_in_the_sandbox_and_writes_there(launch: Launch, spec: LaunchSpec) -> None:
    container = launch("sh", "-c", "pwd; echo out; echo err >&2; echo data >file", uid=NOBODY.pw_uid, gid=NOBODY.pw_gid)
    assert container.status() == 0
    assert container.file("stdout") == f"{spec.sandbox}\nout\n"
    assert container.file("stderr") == "err\n"
    assert container.file("file") == "data\n"
    for name in ("stdout", "stderr", "file"):
        facts = (spec.sandbox / name).stat()
        assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o777) == (NOBODY.pw_uid, NOBODY.pw_gid, 0o644)


@pytest.mark.parametrize("place", [Path.symlink_to, Path.hardlink_to, lambda path, _: os.mkfifo(path)])
def test_output_goes_into_no_file_that_is_there(
    launch: Launch, spec: LaunchSpec, tmp_path: Path, place: Callable[[Path, Path], None]
) -> None:
    """The user, whose the directory is, may have been quicker."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    place(spec.sandbox / "stdout", precious)
    with pytest.raises(ContainerError, match="Failed to launch container c"):
        launch("echo", "overwritten", uid=NOBODY.pw_uid, gid=NOBODY.pw_gid)
    assert (precious.read_text(), precious.stat().st_uid) == ("precious", 0)


def test_it_is_in_its_network_namespace_and_sees_that_ones_devices(launch: Launch, netns: Path) -> None:
    subprocess.run(["ip", "-n", netns.name, "link", "add", "inside0", "type", "veth"], check=True)
    container = launch("sh", "-c", "stat -Lc %i /proc/self/ns/net; ls -x /sys/class/net | xargs")
    assert container.output().splitlines() == [str(netns.stat().st_ino), "inside0 lo veth0"]


def test_without_a_namespace_it_is_in_the_hosts(launch: Launch) -> None:
    container = launch("stat", "-Lc", "%i", "/proc/self/ns/net", netns=None)
    assert container.output() == f"{os.stat('/proc/self/ns/net').st_ino}\n"


def status_of(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def test_root_has_net_raw_and_nothing_else(launch: Launch) -> None:
    status = status_of(launch("cat", "/proc/self/status").output())
    assert status["Uid"].split() == ["0"] * 4
    assert status["Gid"].split() == ["0"] * 4
    assert (status["CapPrm"], status["CapEff"], status["CapBnd"]) == (NET_RAW, NET_RAW, NET_RAW)
    assert (status["CapInh"], status["CapAmb"]) == ("0" * 16, "0" * 16)


def test_a_user_has_no_capability(launch: Launch) -> None:
    uid = NOBODY.pw_uid
    status = status_of(launch("cat", "/proc/self/status", uid=uid, gid=NOBODY.pw_gid).output())
    assert status["Uid"].split() == [str(uid)] * 4
    assert status["Gid"].split() == [str(NOBODY.pw_gid)] * 4
    assert (status["CapPrm"], status["CapEff"], status["CapInh"], status["CapAmb"]) == ("0" * 16,) * 4
    assert status["CapBnd"] == NET_RAW


def test_supplementary_groups_are_the_users_and_not_the_agents(launch: Launch) -> None:
    agents = os.getgroups()
    os.setgroups([4711])
    try:
        container = launch("cat", "/proc/self/status", uid=NOBODY.pw_uid, gid=NOBODY.pw_gid)
    finally:
        os.setgroups(agents)
    groups = {int(group) for group in status_of(container.output())["Groups"].split()}
    assert groups == set(os.getgrouplist(NOBODY.pw_name, NOBODY.pw_gid))


def test_a_user_without_a_name_has_no_supplementary_groups(launch: Launch) -> None:
    uid = next(uid for uid in range(54321, 60000) if uid not in {entry.pw_uid for entry in pwd.getpwall()})
    status = status_of(launch("cat", "/proc/self/status", uid=uid, gid=uid).output())
    assert (status["Uid"].split()[0], status["Gid"].split()[0], status["Groups"]) == (str(uid), str(uid), "")


def test_signals_are_at_their_defaults(launch: Launch) -> None:
    """Also where the agent was started by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        status = status_of(launch("cat", "/proc/self/status").output())
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (status["SigIgn"], status["SigBlk"]) == ("0" * 16, "0" * 16)


def test_orphans_are_reaped(launch: Launch) -> None:
    container = launch("sh", "-c", "sh -c 'sleep 0.1 & sleep 0.1 &'; sleep 1; cat /proc/[0-9]*/stat")
    states = {line.split()[1]: line.split()[2] for line in container.output().splitlines()}
    assert set(states) == {"(tini)", "(sh)"}
    assert "Z" not in states.values()


# What stays, and what it holds


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def tree(pid: int) -> list[int]:
    return [pid, *(process for child in children(pid) for process in tree(child))]


def open_files(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(os.readlink(entry))
    return found


def test_what_stays_is_small_and_holds_nothing_of_the_agents(launch: Launch, tmp_path: Path) -> None:
    with (tmp_path / "held").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        container = launch("sh", "-c", "echo ready; exec sleep 1000")
        container.await_line("ready")
        processes = tree(container.supervisor.pid)
        while Path(f"/proc/{processes[-1]}/comm").read_text() == "sh\n":
            time.sleep(0.01)
        assert [Path(f"/proc/{pid}/comm").read_text() for pid in processes] == ["sh\n", "sh\n", "tini\n", "sleep\n"]
        assert container.init.pid == processes[2]
        allowed = {"/dev/null", str(container.spec.sandbox / "stdout"), str(container.spec.sandbox / "stderr")}
        allowed.add(str(Path(launcher.__file__).with_name("supervise.sh")))
        for pid in processes:
            assert os.getsid(pid) != os.getsid(0)
            # Not at once: the command may be loading its libraries still.
            until(lambda pid=pid: open_files(pid) <= allowed, "no file but these")  # type: ignore[misc]
            assert os.getppid() not in (pid, os.getpid())
        assert Path(os.readlink(f"/proc/{container.supervisor.pid}/cwd")) == Path("/")


def test_the_agent_has_no_child_to_wait_for(launch: Launch) -> None:
    launch("true").status()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_all_programs_are_there() -> None:
    assert launcher.missing_programs() == []


# What it cannot reach

ATTACKS = textwrap.dedent('''
    """Tries what would harm others and prints what came of it, as JSON."""
    import ctypes, json, os, socket, subprocess, sys

    facts = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    NEWNS, NEWCGROUP, NEWUSER, NEWPID, NEWNET = 0x20000, 0x02000000, 0x10000000, 0x20000000, 0x40000000
    MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 1, 32, 4096, 16384, 1 << 18, 2

    def call(name, *arguments):
        """0 or the errno's name."""
        encoded = [a.encode() if isinstance(a, str) else a for a in arguments]
        if getattr(libc, name)(*encoded) == 0:
            return 0
        import errno
        return errno.errorcode[ctypes.get_errno()]

    def attempt(function, *arguments):
        try:
            return function(*arguments) or 0
        except OSError as error:
            import errno
            return errno.errorcode[error.errno]

    def write(path, text):
        with open(path, "w") as file:
            file.write(text)

    def view():
        """What is visible of what is hidden."""
        return {
            "work": sorted(os.path.relpath(os.path.join(path, name), facts["work"])
                for path, names, files in os.walk(facts["work"]) for name in names + files
                if not path.startswith(facts["sandbox"])),
            "runtime": attempt(os.listdir, facts["runtime"]),
            "hidden": attempt(os.path.getsize, facts["hidden"]),
            "cgroup": attempt(os.listdir, "/sys/fs/cgroup"),
            "bpf": attempt(os.listdir, "/sys/fs/bpf"),
            "sysctl": attempt(write, "/proc/sys/net/ipv4/ip_local_port_range", "1024 65535"),
            "core": attempt(write, "/proc/sys/kernel/core_pattern", "|/tmp/x"),
            "proc": attempt(write, "/proc/sys/vm/drop_caches", "1"),
        }

    def uncover():
        covers = [facts["work"], facts["runtime"], facts["hidden"], "/proc/sys", "/proc", "/sys"]
        return {
            "umount": [call("umount2", path, MNT_DETACH) for path in covers],
            "remount": [call("mount", None, path, None, MS_REMOUNT | MS_BIND, None) for path in ("/proc/sys", "/sys")],
            "move": [call("mount", path, facts["sandbox"], None, 8192, None) for path in covers[:2]],
        }

    def limits():
        """Sets every limit on CPU and memory that can be found below here."""
        lifted = []
        for path, _, files in os.walk("."):
            for name, value in facts["limits"].items():
                if name in files and attempt(write, os.path.join(path, name), value) == 0:
                    lifted.append(os.path.join(path, name))
        return lifted

    def mounts():
        """Mounts anew, here in the sandbox, what is covered."""
        results = {}
        for name, kind, data in (("proc", "proc", None), ("sysfs", "sysfs", None), ("bpf", "bpf", None),
                ("cgroup2", "cgroup2", None), ("cpu", "cgroup", "cpu"), ("memory", "cgroup", "memory")):
            os.makedirs(name, exist_ok=True)
            results[name] = call("mount", "none", os.path.join(facts["sandbox"], name), kind, 0, data)
        return results

    plain = {"view": view(), "uncover": uncover(), "mounts": mounts(), "after": view()}
    plain["lifted"] = limits()
    plain["processes"] = len([name for name in os.listdir("/proc") if name.isdigit()])
    plain["kill"] = [attempt(os.kill, pid, 15) for pid in facts["pids"]]
    plain["nsenter"] = subprocess.run(["nsenter", "-t", "1", "-m", "true"], stderr=-3).returncode
    plain["setns"] = attempt(lambda: call("setns", os.open(facts["netns"], os.O_RDONLY), 0))
    plain["qdisc"] = subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], stderr=-3).returncode
    plain["connect"] = attempt(socket.socket(socket.AF_UNIX).connect, facts["hidden"])

    # A user namespace gives every capability, over what belongs to it. It is not mapped: to map uid 0 takes more.
    r, w = os.pipe()
    if os.fork() == 0:
        unshared = call("unshare", NEWUSER | NEWNS | NEWCGROUP | NEWPID | NEWNET)
        if os.fork() == 0:
            within = {"unshared": unshared, "private": call("mount", None, "/", None, MS_PRIVATE | MS_REC, None)}
            within |= {"uncover": uncover(), "mounts": mounts(), "view": view(), "lifted": limits()}
            within["bpf"] = attempt(os.listdir, "bpf")
            os.write(w, json.dumps(within).encode())
            os._exit(0)
        os.wait()
        os._exit(0)
    os.close(w)
    os.wait()
    print(json.dumps({"plain": plain, "within": json.loads(os.read(r, 1 << 20))}))
''')


@pytest.fixture
def hidden_socket(tmp_path: Path) -> Iterator[Path]:
    """A listening socket outside the agent's directories."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield path


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process of the host's."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        process.kill()


def test_root_inside_reaches_nothing_of_the_hosts(
    launch: Launch, spec: LaunchSpec, cgroups: Cgroups, hidden_socket: Path, netns: Path, sleeper: int
) -> None:
    cgroups.set_cpu("c", 0.5, True)
    cgroups.set_memory("c", 256 * MB)
    before = limits()
    assert len(before) in (3, 4)
    facts = {
        "work": str(spec.work_directory),
        "runtime": str(spec.runtime_directory),
        "sandbox": str(spec.sandbox),
        "hidden": str(hidden_socket),
        "netns": str(netns),
        "pids": [os.getpid(), sleeper],
        "limits": {
            "cpu.cfs_quota_us": "-1",
            "cpu.shares": "4096",
            "memory.limit_in_bytes": "-1",
            "cpu.max": "max",
            "cpu.weight": "400",
            "memory.max": "max",
        },
    }
    files = tuple(cgroups.join_files("c"))
    command = (sys.executable, "-c", ATTACKS, json.dumps(facts))
    container = launch(*command, join_files=files, hidden_files=(hidden_socket,))
    result = json.loads(container.output())
    plain, within = result["plain"], result["within"]

    covered = {
        "work": ["sandboxes", "sandboxes/c"],
        "runtime": 0,
        "hidden": 0,
        "cgroup": 0,
        "bpf": 0,
        "sysctl": "EROFS",
        "core": "EROFS",
        "proc": "EROFS",
    }
    # an empty directory, or none at all on a kernel without it
    for view in (plain["view"], plain["after"], within["view"]):
        assert {name: 0 if value in ([], "ENOENT") else value for name, value in view.items()} == covered
    assert set(plain["uncover"]["umount"]) == {"EPERM"}
    assert set(plain["uncover"]["remount"]) == {"EPERM"}
    assert set(plain["uncover"]["move"]) == {"EPERM"}
    assert set(plain["mounts"].values()) == {"EPERM"}
    assert plain["lifted"] == []
    assert plain["processes"] <= 3
    assert plain["kill"] == ["ESRCH", "ESRCH"]
    assert plain["nsenter"] == 1
    assert plain["setns"] == "EPERM"
    assert plain["qdisc"] != 0
    assert plain["connect"] == "ECONNREFUSED"

    assert (within["unshared"], within["private"]) == (0, 0), "else the rest would prove nothing"
    assert set(within["uncover"]["umount"]) == {"EINVAL"}
    assert set(within["uncover"]["remount"]) == {"EPERM"}
    assert set(within["uncover"]["move"]) == {"EINVAL"}
    assert within["mounts"]["proc"] == "EPERM"
    assert within["mounts"]["sysfs"] == "EPERM"
    assert within["bpf"] == 0
    # It can mount its own cgroup and nothing above it, and may change nothing there.
    assert within["mounts"]["cgroup2" if cgroups.version == 2 else "cpu"] == 0
    assert within["lifted"] == []
    assert limits() == before


def limits() -> dict[Path, str]:
    names = ("cpu.cfs_quota_us", "cpu.shares", "memory.limit_in_bytes", "cpu.max", "cpu.weight", "memory.max")
    cgroups = cgroup_tree.find(f"portslice-test-{os.getpid()}/c")
    return {path / name: (path / name).read_text() for path in cgroups for name in names if (path / name).exists()}


def test_bpf_pins_are_covered(spec: LaunchSpec) -> None:
    """In a mount namespace of the test's, where /sys/fs/bpf can be a file system with something in it."""
    agent = textwrap.dedent("""
        import os, subprocess, sys
        from pathlib import Path
        from portslice.containers.launcher import LaunchSpec, launch
        runtime, work, sandbox, netns = map(Path, sys.argv[1:])
        subprocess.run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], check=True)
        os.mkdir("/sys/fs/bpf/pinned")
        assert "pinned" in os.listdir("/sys/fs/bpf")
        command = ("sh", "-c", "ls /sys/fs/bpf; grep -c pinned /proc/mounts; mount | grep -c ' type bpf'; true")
        supervisor = launch(
            LaunchSpec("c", command, {"PATH": os.environ["PATH"]}, sandbox, 0, 0, netns, (), runtime, work)
        )
        supervisor.wait(30)
    """)
    paths = [spec.runtime_directory, spec.work_directory, spec.sandbox, spec.netns]
    try:
        subprocess.run(
            ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", agent, *map(str, paths)],
            check=True,
        )
        # The mount is still in the table, below the new /sys; nothing leads there.
        assert (spec.sandbox / "stdout").read_text().splitlines()[:1] == ["0"]
        assert spec.record.exit_status == 0
    finally:
        launcher.destroy(spec.record)


@pytest.mark.parametrize("layout", ["apart", "runtime in work", "work in runtime", "the same", "links"])
def test_only_the_own_sandbox_shows_in_every_layout(
    launch: Launch, tmp_path: Path, netns: Path, layout: str
) -> None:
    real = tmp_path / "real"
    runtime, work = {
        "apart": (real / "run", real / "work"),
        "runtime in work": (real / "work" / "run", real / "work"),
        "work in runtime": (real / "run", real / "run" / "work"),
        "the same": (real, real),
        "links": (tmp_path / "link" / "run", tmp_path / "link" / "work"),
    }[layout]
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    base = make_spec(runtime, work, netns)
    (runtime / "secret").touch()
    (work / "secret").touch()
    container = launch("sh", "-c", 'find "$0" -mindepth 1 -not -path "*/c/*" | sort; touch mine', str(real), base=base)
    sandbox = base.sandbox.resolve()
    # the way to the sandbox, and the tops of what is covered
    expected = {sandbox, *sandbox.parents, runtime.resolve(), work.resolve()}
    if layout == "runtime in work":
        expected.remove(runtime.resolve())
    shown = sorted(str(path) for path in expected if real in path.parents)
    assert container.output().splitlines() == shown
    assert (base.sandbox / "mine").exists()


def test_its_mounts_stay_inside_and_the_hosts_go_away(launch: Launch, tmp_path: Path, netns: Path) -> None:
    shared = tmp_path / "shared"
    extra = shared / "extra"
    extra.mkdir(parents=True)
    with contextlib.ExitStack() as mounted:
        for command in (
            ["mount", "--bind", str(shared), str(shared)],
            ["mount", "--make-shared", str(shared)],
            ["mount", "-t", "tmpfs", "extra", str(extra)],
        ):
            subprocess.run(command, check=True)
            if command[1] != "--make-shared":
                mounted.callback(subprocess.run, ["umount", command[-1]], check=False, stderr=subprocess.DEVNULL)
        base = make_spec(shared / "run", shared / "work", netns)
        before = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(shared) in line]
        seen = 'grep -q "$0" /proc/mounts'
        script = f"{seen} && echo there; while {seen}; do sleep 0.05; done; echo gone"
        container = launch("sh", "-c", script, str(extra), base=base)
        container.await_line("there")
        during = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(shared) in line]
        assert during == before
        subprocess.run(["umount", str(extra)], check=True)
        container.await_line("gone")
        assert container.output() == "there\ngone\n"


# Its cgroups


def test_it_is_in_its_cgroups_from_the_start(launch: Launch, cgroups: Cgroups) -> None:
    files = cgroups.join_files("c")
    container = launch("sleep", "1000", join_files=tuple(files))
    inside = tree(container.init.pid)
    for file in files:
        assert sorted(map(int, file.read_text().split())) == sorted(inside)


def test_the_memory_limit_holds(launch: Launch, cgroups: Cgroups) -> None:
    cgroups.set_memory("c", 64 * MB)
    program = "block = b'x' * (200 << 20)"
    container = launch(sys.executable, "-c", program, join_files=tuple(cgroups.join_files("c")))
    assert container.status() == 128 + signal.SIGKILL


@pytest.mark.alone
def test_the_cpu_quota_holds(launch: Launch, cgroups: Cgroups) -> None:
    cgroups.set_cpu("c", 0.25, True)
    container = launch("sh", "-c", "while :; do :; done", join_files=tuple(cgroups.join_files("c")))
    start, before = time.monotonic(), cgroups.cpu_stat("c")
    time.sleep(2)
    elapsed, after = time.monotonic() - start, cgroups.cpu_stat("c")
    assert container.init.alive()
    used = (after.user_secs or 0) + (after.system_secs or 0) - (before.user_secs or 0) - (before.system_secs or 0)
    assert used / elapsed == pytest.approx(0.25, abs=0.06)
    assert (after.nr_throttled or 0) - (before.nr_throttled or 0) > 5
