"""`portslice doctor`: what is missing or wrong is named, and its remedy mends it."""

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from portslice.agent import prerequisites
from portslice.cli.agent_flags import read
from portslice.cli.main import main
from portslice.demo.node import RESOURCES, Node
from portslice.demo.testbed import Testbed
from portslice.network import namespaces
from portslice.network.probe import Check, Status
from tests.kernel.waiting import until

pytestmark = pytest.mark.native


def doctor(bed: Testbed, *arguments: str, program: tuple[str, ...] = (), **environment: str) -> tuple[int, str]:
    """Run it on the testbed's host; its exit status and output."""
    runtime = f"--runtime_dir={bed.directory / 'run'}"
    result = subprocess.run(
        bed.command(bed.host, [*program, sys.executable, "-m", "portslice", "doctor", runtime, *arguments]),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=False,
    )
    return result.returncode, result.stdout


def as_json(bed: Testbed, *arguments: str, **options: Any) -> tuple[int, dict[str, dict[str, str]], Any]:
    """(exit status, checks by name, all of the answer)"""
    status, output = doctor(bed, "--json", *arguments, **options)
    answer = json.loads(output)
    assert answer["ok"] == (status == 0)
    return status, {check["name"]: check for check in answer["checks"]}, answer


def examine(bed: Testbed, *arguments: str) -> dict[str, Check]:
    """The checks by name, without a process."""
    with namespaces.entered(bed.host):
        flags = read([f"--runtime_dir={bed.directory / 'run'}", f"--resources={RESOURCES}", *arguments])
        return {check.name: check for check in prerequisites.examine(flags)}


def test_a_healthy_host_and_nothing_changes(bed: Testbed) -> None:
    def state() -> list[str]:
        commands = ("ip -o -4 address", "tc qdisc", "sysctl -ea --pattern ^net.ipv4.conf", f"ls -A {bed.directory}")
        mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(bed.directory) in line]
        return [bed.run(bed.host, *command.split()).stdout for command in commands] + mounts

    until(lambda: "state UP" in bed.run(bed.host, "ip", "-o", "link", "show", "eth0").stdout, "carrier")
    before = state()
    status, checks, answer = as_json(bed)
    assert status == 0, answer
    assert state() == before
    assert set(answer) == {"ok", "resources", "checks", "ranges"}
    assert all(set(check) == {"name", "status", "detail", "remedy"} for check in answer["checks"])
    assert {check["status"] for check in answer["checks"]} <= {"ok", "warning"}
    assert answer["resources"] == RESOURCES
    assert answer["ranges"] == {
        "host": [[57345, 61000]],
        "assigned": [[31000, 32000]],
        "ephemeral": [[32768, 57344]],
    }
    assert checks["address and gateway"]["detail"] == "10.77.0.2/24 via 10.77.0.1"
    assert checks["link speed"]["detail"] == "10000 Mbit/s"
    assert checks["ephemeral blocks"]["detail"] == "24 containers with 1024 ports each"
    expected = {"root", "network-isolator", "programs", "libbpf", "clsact", "HTB", "mount namespace", "BPF helpers"}
    assert expected <= set(checks)


def test_text_for_people(bed: Testbed) -> None:
    status, output = doctor(bed, PYTHONIOENCODING="utf-8")
    assert status == 0
    assert "ok       root\n" in output
    assert "▓▓" + "█" * 24 + "░░░░" in output
    assert output.endswith("\nThe agent can start.\n")
    assert "\x1b" not in output
    status, output = doctor(bed, "--eth0_name=nope", PYTHONIOENCODING="ascii")
    assert status == 1
    assert "wrong    public interface: The public interface nope does not exist\n         -> " in output
    assert "aa" + "e" * 24 + "hhhh" in output
    assert output.endswith("checks failed.\n")


def test_the_hosts_port_range_and_its_remedy(bed: Testbed) -> None:
    bed.run(bed.host, "sysctl", "-qw", "net.ipv4.ip_local_port_range=32768 60999")
    check = examine(bed)["host's port range"]
    assert check.status is Status.WRONG
    first, second = check.remedy.split(" && ")
    assert second == "echo 'net.ipv4.ip_local_port_range = 57345 61000' >> /etc/sysctl.conf"
    bed.run(bed.host, "sh", "-c", first)
    assert examine(bed)["host's port range"].status is Status.OK
    # An assigned port among them is no obstacle for Mesos, but its owner would get the host's answers.
    bed.run(bed.host, "sysctl", "-qw", "net.ipv4.ip_local_port_range=31500 32700")
    check = examine(bed)["host's port range"]
    assert check.status is Status.WRONG
    assert "[31500-32000]" in check.detail


def test_flags_that_are_wrong(bed: Testbed) -> None:
    wrong = {
        "--resources=ports:[1-2]": ("port resources", "Ephemeral ports are not specified"),
        "--ephemeral_ports_per_container=8": ("ephemeral blocks", "The minimum required is: 16"),
        "--egress_rate_limit_per_container=2GB": ("link speed", "is greater than the host link speed"),
        "--egress_rate_per_cpu=auto": ("limits", "CPUs resource has to be specified"),
        "--network_enable_rate_statistics": ("rate statistics", "Window size and sampling interval"),
        "--lo_name=nope": ("public interface", "The loopback interface nope does not exist"),
        "--isolation=cgroups/perf_event": ("cgroups/perf_event", "Sampling perf for duration (10secs) > interval"),
        "--isolation=disk/du": ("disk/du", "--container_disk_watch_interval=0ns is too short"),
        "--isolation=nope": ("isolators", "Unknown or unsupported isolator: nope"),
    }
    for argument, (name, text) in wrong.items():
        given = [argument] if argument.startswith("--resources") else [f"--resources={RESOURCES}", argument]
        given += ["--perf_events=cs", "--perf_interval=1secs", "--container_disk_watch_interval=0ns"]
        with namespaces.entered(bed.host):
            checks = {check.name: check for check in prerequisites.examine(read(given))}
        assert checks[name].status is Status.WRONG
        assert text in checks[name].detail
        assert checks[name].remedy


def test_what_is_no_flag_of_the_agent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--resuorces=x"]) == 2
    assert capsys.readouterr().err == "portslice: Failed to load unknown flag 'resuorces'. Did you mean --resources?\n"


def test_the_remedy_for_the_block_size_is_one(bed: Testbed) -> None:
    with namespaces.entered(bed.host):
        resources = "--resources=ephemeral_ports:[32768-33100]"
        checks = {check.name: check for check in prerequisites.examine(read([resources]))}
        remedy = checks["ephemeral blocks"].remedy
        assert remedy == "--ephemeral_ports_per_container=256"
        checks = {check.name: check for check in prerequisites.examine(read([resources, remedy]))}
    assert checks["ephemeral blocks"].status is Status.OK


def test_a_host_without_a_network() -> None:
    def check() -> dict[str, Check]:
        return {check.name: check for check in prerequisites.examine(read([f"--resources={RESOURCES}"]))}

    checks = namespaces.in_new(check)
    assert checks["public interface"].status is Status.WRONG
    assert "ip route add default via" in checks["public interface"].remedy

    def half() -> dict[str, Check]:
        for command in ("link add eth0 type veth peer name other", "link set eth0 up", "route add default dev eth0"):
            subprocess.run(["ip", *command.split()], check=True)
        return check()

    checks = namespaces.in_new(half)
    assert checks["address and gateway"].remedy == "ip address add ADDRESS/LENGTH dev eth0"


def test_the_hosts_sockets(bed: Testbed) -> None:
    """Those on the containers' ports are named with their process, connections and IPv6 too; others are not. The
    remedy shows the same ones, and a lack of them is all that is asked for."""
    with ExitStack() as stack:

        def opened(family: int, kind: int, port: int) -> socket.socket:
            made = stack.enter_context(socket.socket(family, kind))
            made.bind(("", port))
            return made

        with namespaces.entered(bed.host):
            for port in (5000, 31005, 57345):
                opened(socket.AF_INET6, socket.SOCK_STREAM, port).listen()
            for port in (5000, 40000, 57345):
                opened(socket.AF_INET, socket.SOCK_DGRAM, port)
            opened(socket.AF_INET, socket.SOCK_STREAM, 31007).connect(("127.0.0.1", 5000))
        check = examine(bed)["host's sockets"]
        assert check.status is Status.WARNING
        assert check.ok
        shown = re.findall(r"(\w+ \d+) \(([^,]+), pid (\d+)\)", check.detail)
        assert [name for name, *_ in shown] == ["tcp 31005", "tcp 31007", "udp 40000"]
        assert {pid for *_, pid in shown} == {str(os.getpid())}
        command = check.remedy.partition(": ")[2]
        lines = bed.run(bed.host, "sh", "-c", command).stdout.splitlines()[1:]
        assert sorted(int(line.split()[4].rpartition(":")[2]) for line in lines) == [31005, 31007, 40000]
        assert all(f"pid={os.getpid()}," in line for line in lines)
    check = examine(bed)["host's sockets"]
    assert (check.status, check.detail) == (Status.OK, "")


def test_many_sockets_of_the_host(bed: Testbed) -> None:
    with ExitStack() as stack, namespaces.entered(bed.host):
        for port in range(31000, 31020):
            stack.enter_context(socket.create_server(("", port)))
        check = examine(bed)["host's sockets"]
    assert check.detail.endswith("), and 12 more")
    assert check.remedy.count("sport") == 8


def test_another_agent(shared_node: Node) -> None:
    """It is no fault that an agent is running; but a second one needs places of its own."""
    bed = shared_node.bed
    with namespaces.entered(bed.host):
        flags = read([f"--resources={RESOURCES}", f"--runtime_dir={shared_node.runtime}"])
        checks = {check.name: check for check in prerequisites.examine(flags)}
        assert checks["runtime directory"].status is Status.WARNING
        assert checks["TCP port 5051"].status is Status.WARNING
        assert "--runtime_dir" in checks["TCP port 5051"].remedy
        other = read([f"--resources={RESOURCES}", f"--runtime_dir={shared_node.directory / 'other'}"])
        checks = {check.name: check for check in prerequisites.examine(other)}
        assert checks["runtime directory"].status is Status.OK
        assert checks["TCP port 5051"].status is Status.WRONG
        assert checks["TCP port 5051"].remedy == "--port=N, or --ip=ADDRESS"
    assert shared_node.client.containers() == []  # it was not disturbed


def test_missing_software(bed: Testbed, tmp_path: Path) -> None:
    """A machine without libbpf, tini and the extra, made by covering them in a mount namespace of its own; the
    directory that only this one shows keeps the doctor there."""
    library = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    libbpf = next(line.split(" => ")[1] for line in library.splitlines() if "libbpf.so.1 " in line)
    empty = tmp_path / "empty"
    empty.write_text("")
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pyroute2'] = None\n")
    cover = (
        f"mkdir {bed.directory}/run && mount -t tmpfs tmpfs {bed.directory}/run && "
        f'mount --bind {empty} $(realpath {libbpf}) && mount --bind {empty} $(command -v tini) && exec "$@"'
    )
    status, checks, _ = as_json(
        bed,
        program=("unshare", "--mount", "sh", "-c", cover, "sh"),
        PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
    )
    assert status == 1
    assert checks["libbpf"]["status"] == "missing"
    assert checks["libbpf"]["remedy"] == "apt-get install libbpf1"
    assert checks["programs"]["status"] == "missing"
    assert checks["programs"]["detail"] == "without tini"
    assert checks["programs"]["remedy"] == "apt-get install tini"
    assert checks["network-isolator"]["status"] == "missing"
    assert checks["network-isolator"]["remedy"] == "pip install 'portslice[network-isolator]'"


def test_a_mount_namespace_of_its_own(bed: Testbed) -> None:
    """As `ip netns exec` makes it: the agent leaves it, unless its directories are there. The remedy has the name."""
    name = Path("/run/netns", bed.directory.name)
    name.parent.mkdir(exist_ok=True)
    name.symlink_to(bed.host)
    try:
        private = 'mount -t tmpfs tmpfs /sys/fs/cgroup && exec "$@"'
        status, checks, _ = as_json(bed, program=("unshare", "--mount", "sh", "-c", private, "sh"))
        assert status == 0
        assert "the agent moves to the host's" in checks["mount namespace"]["detail"]
        assert checks["cgroup controllers"]["status"] == "ok"
        private = f"mkdir {bed.directory}/run && mount -t tmpfs tmpfs {bed.directory}/run && {private}"
        status, checks, _ = as_json(bed, program=("unshare", "--mount", "sh", "-c", private, "sh"))
        assert status == 1
        assert checks["mount namespace"]["status"] == "wrong"
        assert checks["mount namespace"]["remedy"] == f"nsenter --net={name} -- portslice agent"
    finally:
        name.unlink()


def test_without_root(bed: Testbed) -> None:
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    reader = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    status, checks, _ = as_json(bed, program=(*user, *reader))
    assert status == 1
    assert checks["root"]["status"] == "missing"
    assert checks["kernel"]["status"] == "unknown"
    assert checks["port resources"]["status"] == "ok"


def test_without_controllers(bed: Testbed) -> None:
    """They are needed only for the isolators that use them."""
    nowhere = "--cgroups_hierarchy=/sys/fs/nothing"
    assert examine(bed, nowhere)["cgroup controllers"].status is Status.WARNING
    check = examine(bed, nowhere, "--isolation=cgroups,network/port_mapping")["cgroup controllers"]
    assert check.status is Status.MISSING
    assert "mount -t cgroup -o memory memory /sys/fs/nothing/memory" in check.remedy
