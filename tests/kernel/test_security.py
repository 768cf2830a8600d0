"""What a container cannot do, even as uid 0, and who may use the agent.

Each attempt is a shell command that ends with 0 if it succeeds. Where it does no harm outside, root of the host repeats
it afterwards, in the container's network namespace, and succeeds: so it failed for want of the right, not of sense.
How the launcher covers files and mounts is tested in test_launcher; this is the whole, with an agent.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portslice.cli.client import Client
from portslice.demo.node import Node, node
from portslice.demo.testbed import NIC, Testbed, testbed
from portslice.errors import PortsliceError
from tests.kernel import cgroup_tree
from tests.kernel.users import as_user
from tests.kernel.waiting import until

MB = 1 << 20
NOBODY = 65534
API = "/portslice/v1/containers"

ON_THE_NETWORK = {
    "raise the limit": f"tc class change dev {NIC} parent 1: classid 1:1 htb rate 10gbit",
    "lift the limit": f"tc qdisc delete dev {NIC} root",
    "replace the queue": f"tc qdisc replace dev {NIC} root pfifo",
    "remove the program": "tc filter delete dev lo egress",
    "add an address": f"ip address add 10.9.9.9/32 dev {NIC}",
    "change the route": "ip route replace default dev lo",
    "change the neighbour": f"ip neighbour replace 169.254.1.1 lladdr 02:00:00:00:00:09 dev {NIC} nud permanent",
    "change the MAC address": f"ip link set {NIC} address 02:00:00:00:00:09",
    "add a link": "ip link add own type veth peer name own-peer",
    "widen the port range": "echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range",
    "set another parameter": "echo 0 >/proc/sys/net/ipv4/conf/all/accept_local",
}
BPF = """
import ctypes, platform, sys
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
attribute = (ctypes.c_uint32 * 30)()
attribute[0] = int(sys.argv[2])
sys.exit(libc.syscall(number, int(sys.argv[1]), attribute, ctypes.sizeof(attribute)) < 0)
"""
PROG_GET_NEXT_ID, MAP_GET_NEXT_ID, MAP_GET_FD_BY_ID = 11, 12, 14
CONNECT = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
try: s.connect(sys.argv[1])
except OSError: sys.exit(1)
s.sendall(b"GET %s HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n" % sys.argv[2].encode())
sys.exit(b" 200 " not in s.makefile("rb").readline())
"""


def python(program: str, *arguments: Any) -> str:
    """A command line of Python's."""
    return shlex.join([sys.executable, "-c", program, *map(str, arguments)])


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """An agent that limits all it can, and that a group may use."""
    flags = ("--egress_rate_limit_per_container=10000000B", "--cgroups_enable_cfs", "--socket_group=nogroup")
    with testbed() as bed, node(bed, *flags) as agent:
        bed.directory.chmod(0o711)  # so that others than root come as far as to the socket
        yield agent


@pytest.fixture
def neighbour(agent: Node) -> dict[str, Any]:
    container = agent.launch("neighbour", "sh", "-c", "echo confidential; sleep 10000")
    until(lambda: Path(container["sandbox"], "stdout").read_text(), "the neighbour's secret")
    return container


def succeeded(agent: Node, name: str, attempts: dict[str, str], **request: Any) -> set[str]:
    """The attempts that succeed in a container, each after the others."""
    script = "".join(f"({command}) >/dev/null 2>&1 </dev/null; echo $?\n" for command in attempts.values())
    container = agent.launch(name, "sh", "-c", script, **request)
    ended = agent.client.wait(container["id"])
    statuses = Path(ended["sandbox"], "stdout").read_text().split()
    assert len(statuses) == len(attempts), Path(ended["sandbox"], "stderr").read_text()
    return {attempt for attempt, status in zip(attempts, statuses, strict=True) if status == "0"}


def limits(agent: Node, container: dict[str, Any]) -> list[str]:
    """Every setting of the container's cgroups on CPU and memory, as the host sees it."""
    names = ["cpu.shares", "cpu.cfs_quota_us", "memory.limit_in_bytes", "cpu.weight", "cpu.max", "memory.max"]
    found = [
        f"{path}: {(path / name).read_text()}"
        for path in sorted(cgroup_tree.find(f"{agent.cgroups_root}/{container['id']}"))
        for name in names
        if (path / name).exists()
    ]
    assert found
    return found


def test_root_inside_cannot_change_its_network(agent: Node) -> None:
    assert succeeded(agent, "attacker", ON_THE_NETWORK) == set()
    witness = agent.namespace(agent.launch("witness"))
    for attempt, command in ON_THE_NETWORK.items():
        result = agent.bed.run(witness, "sh", "-c", command, check=False)
        assert result.returncode == 0, f"{attempt}: the host's root can: {result.stderr}"


def test_root_inside_reaches_nothing_of_the_host(agent: Node, neighbour: dict[str, Any]) -> None:
    assert agent.process is not None
    sandbox, runtime = Path(neighbour["sandbox"]), agent.runtime
    pins = sorted(path.name for path in (runtime / "bpf").iterdir())
    assert "port_owner" in pins
    attempts = {
        "see the neighbour's output": f"grep confidential {sandbox}/stdout",
        "see the neighbour's sandbox": f"ls {sandbox}",
        "list the sandboxes": f"test $(ls {sandbox.parent} | wc -l) -gt 1",
        "see the journal": f"ls {runtime}/journal",
        "see anything of the agent's": f"test -n \"$(ls -A {runtime})\"",
        "see pinned maps": "test -n \"$(ls -A /sys/fs/bpf)\"",
        "mount pinned maps": "mkdir -p pins && mount -t bpf none pins",
        "look up BPF programs": python(BPF, PROG_GET_NEXT_ID, 0),
        "look up BPF maps": python(BPF, MAP_GET_NEXT_ID, 0),
        "open a BPF map": python(BPF, MAP_GET_FD_BY_ID, 1),
        "see the agent's process": f"ls /proc/{agent.process.pid}",
        "see the neighbour's process": "grep -qsx sleep /proc/[0-9]*/comm",
        "signal the agent": f"kill -0 {agent.process.pid}",
        "kill the neighbour": f"kill -9 {neighbour['pid']}",
        "enter the host's mounts": "nsenter --target 1 --mount true",
        "enter the host's network": f"nsenter --net={agent.bed.host} true",
        "enter its own network anew": "nsenter --target 1 --net true",
        "call the agent": python(CONNECT, agent.socket, API),
        "set what runs on a crash": "pattern=$(cat /proc/sys/kernel/core_pattern); "
        'echo "$pattern" >/proc/sys/kernel/core_pattern',
        "give the kernel orders": "echo h >/proc/sysrq-trigger",
        "uncover the agent's directory": f"umount -l {runtime}",
        "uncover the sandboxes": f"umount -l {agent.directory / 'work'}",
        "make parameters writable": "mount -o remount,bind,rw /proc/sys",
        "see cgroups": "test -n \"$(ls -A /sys/fs/cgroup)\"",
        "mount cgroups": "mkdir -p cg && (mount -t cgroup -o memory none cg || mount -t cgroup2 none cg)",
    }
    before = limits(agent, neighbour)
    assert succeeded(agent, "attacker", attempts) == set()
    assert agent.client.container("neighbour")["state"] == "running"
    assert sorted(path.name for path in (runtime / "bpf").iterdir()) == pins
    assert limits(agent, neighbour) == before
    senses = ("see ", "list ", "look up ", "signal ", "call ", "set ")
    for attempt in attempts:
        if attempt.startswith(senses) and attempt != "see pinned maps":
            result = subprocess.run(["sh", "-c", attempts[attempt]], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            assert result.returncode == 0, f"{attempt}: the host's root can: {result.stderr.decode()}"


@pytest.mark.parametrize(("uid", "unshare"), [(0, "unshare -Unm"), (0, "unshare -Um"), (NOBODY, "unshare -Urnm")])
def test_a_user_namespace_regains_nothing(
    agent: Node, neighbour: dict[str, Any], uid: int, unshare: str
) -> None:
    runtime, work = agent.runtime, agent.directory / "work"
    within = {
        "uncover the agent's directory": f"umount -l {runtime} && ls {runtime}/journal",
        "uncover the sandboxes": f"umount -l {work} && grep confidential {neighbour['sandbox']}/stdout",
        "widen the port range": "mount -o remount,bind,rw /proc/sys && "
        f"nsenter --target 1 --net sh -c {shlex.quote(ON_THE_NETWORK['widen the port range'])}",
        "lift the limit": ON_THE_NETWORK["lift the limit"],
        "enter its own network": "nsenter --target 1 --net true",
        "enter the host's network": f"nsenter --net={agent.bed.host} true",
        "see pinned maps": "mkdir -p pins; mount -t bpf none pins && test -n \"$(ls -A pins)\"",
        "open a BPF map": python(BPF, MAP_GET_FD_BY_ID, 1),
        "call the agent": python(CONNECT, agent.socket, API),
    }
    attempts = {attempt: f"{unshare} sh -c {shlex.quote(command)}" for attempt, command in within.items()}
    assert succeeded(agent, "attacker", {"begin": f"{unshare} true", **attempts}, uid=uid, gid=uid) == {"begin"}


def test_limits_cannot_be_lifted_from_inside(agent: Node) -> None:
    """Through a cgroup of its own that it can mount in a user namespace, too."""
    files = "memory.limit_in_bytes memory.max cpu.cfs_quota_us cpu.max memory.soft_limit_in_bytes cpu.shares"
    lift = f"""
        mkdir -p cg
        for type in '-t cgroup2' '-t cgroup -o memory' '-t cgroup -o cpu' '-t cgroup -o cpu,cpuacct'; do
            mount $type none cg || continue
            find cg -type d | while read -r directory; do
                for file in {files}; do
                    if [ -e $directory/$file ]; then echo -1 >$directory/$file; echo max >$directory/$file; fi
                done
                echo 1 >$directory/cgroup.procs
            done
            umount cg
        done
        echo tried >tried
    """
    script = f"unshare -UnmC sh -c {shlex.quote(lift)} 2>/dev/null; echo ready; sleep 10000"
    container = agent.launch("lifter", "sh", "-c", f"while ! [ -e go ]; do sleep 0.05; done; {script}",
                             cpus=0.5, mem=64 * MB)  # fmt: skip
    before = limits(agent, container)
    Path(container["sandbox"], "go").touch()
    until(lambda: "ready" in Path(container["sandbox"], "stdout").read_text(), "the attempts")
    assert Path(container["sandbox"], "tried").exists()
    assert limits(agent, container) == before
    assert any(re.search(r": (67108864|50000 100000|50000)\n$", line) for line in before)
    for path in cgroup_tree.find(f"{agent.cgroups_root}/{container['id']}"):
        processes = "".join(procs.read_text() for procs in path.glob("**/cgroup.procs")).split()
        assert str(container["pid"]) in processes, "still under the limits"


# The agent's socket


def test_the_socket_cannot_be_reached_after_a_restart_either(bed: Testbed) -> None:
    outside = bed.directory / "outside.sock"
    call = python(CONNECT, outside, API)
    script = f"{call}; echo first $?; while ! [ -e go ]; do sleep 0.05; done; {call}; echo second $?; sleep 10000"
    agent = Node(bed, f"--socket={outside}")
    agent.client = Client(outside)
    try:
        agent.start()
        container = agent.launch("caller", "sh", "-c", script)
        output = Path(container["sandbox"], "stdout")
        until(lambda: "first" in output.read_text(), "first call")
        agent.stop()
        agent.start()
        Path(container["sandbox"], "go").touch()
        until(lambda: "second" in output.read_text(), "second call")
        assert output.read_text() == "first 1\nsecond 1\n"
        subprocess.run(["sh", "-c", call], check=True)
        assert (outside.stat().st_uid, outside.stat().st_mode & 0o777) == (0, 0o600), "no group was given"
        bed.directory.chmod(0o711)
        with pytest.raises(PortsliceError, match="You may not use"):
            as_user(NOBODY, NOBODY, agent.client.containers)
    finally:
        left = agent.cleanup()
    assert left == []


def test_a_caller_in_a_nested_pid_namespace_is_refused(agent: Node) -> None:
    """Whatever way it found to the socket: what a container is, is known by its PID namespace."""
    curl = ["curl", "-sS", "--unix-socket", str(agent.socket), "-w", " %{http_code}", f"http://localhost{API}"]
    assert subprocess.run(curl, capture_output=True, text=True, check=True).stdout.endswith("] 200")
    nested = subprocess.run(["unshare", "--pid", "--fork", *curl], capture_output=True, text=True, check=True).stdout
    assert nested == '{"error": "A process inside a container may not use the agent\'s socket"} 403'


@pytest.mark.native
def test_tcp_cannot_launch_from_the_host_or_from_inside(agent: Node) -> None:
    command = ["curl", "-sS", "-w", "\n%{http_code}", "-d", '{"name": "sneaked", "command": ["true"]}']
    command.append(f"http://127.0.0.1:5051{API}")
    body, _, status = agent.bed.run(agent.bed.host, *command).stdout.rpartition("\n")
    assert (status, json.loads(body)) == ("403", {"error": "This needs the agent's Unix socket"})
    inside = agent.launch("inside", *command)
    ended = agent.client.wait("inside")
    assert Path(inside["sandbox"], "stdout").read_text().endswith("\n403"), ended
    assert "sneaked" not in {each["name"] for each in agent.client.containers()}


# Who may


@pytest.mark.native
def test_members_of_the_group_run_containers_as_themselves(agent: Node) -> None:
    show = {"name": "mine", "command": ["sh", "-c", "id -u; id -g; id -G; touch file"]}
    container = as_user(NOBODY, NOBODY, lambda: agent.client.launch(show))
    assert container["uid"] == NOBODY
    assert agent.client.wait("mine")["exit_status"] == 0
    sandbox = Path(container["sandbox"])
    assert sandbox.joinpath("stdout").read_text().split() == [str(NOBODY)] * 3
    assert sandbox.joinpath("file").stat().st_uid == NOBODY
    for choice in ({"uid": 0, "gid": 0}, {"uid": 1}, {"gid": 0}):
        with pytest.raises(PortsliceError, match="Only root may run a container as another user"):
            as_user(NOBODY, NOBODY, lambda choice=choice: agent.client.launch({**show, **choice}))  # type: ignore[misc]
    assert [each["uid"] for each in agent.client.containers() if each["name"] == "mine"] == [NOBODY]
    chosen = agent.launch("chosen", "id", "-u", uid=NOBODY, gid=NOBODY)
    agent.client.wait("chosen")
    assert Path(chosen["sandbox"], "stdout").read_text() == f"{NOBODY}\n", "root may choose"

    outsider = NOBODY - 1
    text = f"You may not use '{agent.socket}': it is for root and the socket's group (--socket_group of the agent)"
    with pytest.raises(PortsliceError, match=re.escape(text)):
        as_user(outsider, outsider, agent.client.containers)
