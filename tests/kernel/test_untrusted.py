"""What to use for the untrusted: another user, a user namespace, a read-only file system.

As uid 0 and without them a container writes what is root's on the host; with each of them it does not, and works.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from portslice.containers import id_range
from portslice.containers.process import ProcessHandle
from portslice.demo.node import Node, node
from portslice.demo.testbed import HOST_ADDRESS, Testbed, testbed
from portslice.errors import PortsliceError
from portslice.ports import PortRange
from tests.kernel import peer
from tests.kernel.users import as_user
from tests.kernel.waiting import until

NOBODY = 65534
MEANS: dict[str, dict[str, Any]] = {
    "user": {"uid": NOBODY, "gid": NOBODY},
    "user namespace": {"user_namespace": True},
    "read-only": {"read_only": True},
    "both": {"user_namespace": True, "read_only": True},
}
# Not the tests' own Python, which may be below /tmp.
SERVICE = """
import os, signal, socket, sys

def end(*_):
    print("bye")
    sys.exit(7)

signal.signal(signal.SIGTERM, end)
open("made", "w").close()
with socket.create_server(("", int(os.environ["PORT0"]))) as listener:
    print("ready", flush=True)
    while True:
        listener.accept()[0].sendall(b"welcome")
"""


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """With a group that may use it."""
    with testbed() as bed, node(bed, "--socket_group=nogroup") as agent:
        bed.directory.chmod(0o711)
        yield agent


@pytest.fixture
def precious() -> Iterator[Path]:
    """A directory of root's, not below /tmp, for all to read."""
    directory = Path(tempfile.mkdtemp(prefix="portslice-precious-", dir="/var/tmp"))
    directory.chmod(0o755)
    (directory / "file").write_text("precious")
    yield directory
    shutil.rmtree(directory)


def outcome(agent: Node, script: str, **request: Any) -> tuple[int, str, str]:
    """A shell script's exit status, output, and complaints."""
    container = agent.launch("app", "sh", "-c", script, **request)
    ended = agent.client.wait(container["id"])
    output, complaints = (Path(ended["sandbox"], name).read_text() for name in ("stdout", "stderr"))
    return ended["exit_status"], output, complaints


# The host's files

DAMAGE = {
    "write a file": "echo spoiled >{}/file",
    "replace a file": "echo spoiled >{0}/new && mv {0}/new {0}/file",
    "delete a file": "rm {}/file",
    "change permissions": "chmod 777 {}/file",
    "leave a program with root's rights": "cp /bin/true {0}/root && chmod 4755 {0}/root",
}


@pytest.mark.native
@pytest.mark.parametrize("damage", DAMAGE)
def test_root_inside_can_harm_roots_files(agent: Node, precious: Path, damage: str) -> None:
    """Which is why the means below are there."""
    before = _state(precious)
    assert outcome(agent, DAMAGE[damage].format(precious))[0] == 0
    assert _state(precious) != before


@pytest.mark.parametrize("means", MEANS)
def test_the_untrusted_cannot(agent: Node, precious: Path, means: str) -> None:
    before = _state(precious)
    attempts = [command.format(precious) for command in DAMAGE.values()]
    script = "".join(f"({attempt}) 2>/dev/null && echo '{index}'\n" for index, attempt in enumerate(attempts))
    _, succeeded, _ = outcome(agent, f"{script} cat {precious}/file", **MEANS[means])
    assert succeeded == "precious", "it can read it, and nothing else"
    assert _state(precious) == before


def _state(directory: Path) -> list[tuple[str, int, bytes]]:
    return sorted((path.name, path.stat().st_mode, path.read_bytes()) for path in directory.iterdir())


@pytest.mark.native
@pytest.mark.parametrize(
    ("means", "reaches"),
    [(None, True), ("user", False), ("user namespace", False), ("read-only", True), ("both", False)],
)
def test_who_reaches_roots_sockets(agent: Node, precious: Path, means: str | None, reaches: bool) -> None:
    """A read-only file system is no wall before a service of the host's: only another user is."""
    call = f'python3 -c "import socket; socket.socket(socket.AF_UNIX).connect(\'{precious}/s\')"'
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(f"{precious}/s")
        Path(precious, "s").chmod(0o600)
        service.listen()
        status, _, complaints = outcome(agent, call, **MEANS.get(means or "", {}))
    assert (status == 0) == reaches, complaints
    assert reaches or "PermissionError" in complaints


@pytest.mark.parametrize(("means", "gains"), [("user", True), ("user namespace", False), ("both", False)])
def test_a_set_user_id_program_gives_no_uid_of_the_hosts(
    agent: Node, precious: Path, means: str, gains: bool
) -> None:
    """Nor does it to anybody more than the uid: the capabilities are out of reach."""
    shutil.copy("/usr/bin/id", precious / "id")
    shutil.copy("/usr/bin/grep", precious / "grep")
    for name in ("id", "grep"):
        (precious / name).chmod(0o4755)
    uid = {"uid": 1000, "gid": 1000}
    script = f"{precious}/id -u; {precious}/grep CapEff /proc/self/status"
    status, output, complaints = outcome(agent, script, **(MEANS[means] | uid))
    assert status == 0, complaints
    uid_gained, _, capabilities = output.split()
    assert uid_gained == ("0" if gains else "1000")
    assert int(capabilities, 16) in (0, 1 << 13)


def test_a_read_only_container_cannot_write_on_what_is_mounted_later(agent: Node, precious: Path) -> None:
    wait = f"while ! [ -e go ]; do sleep 0.05; done; echo spoiled >{precious}/later/file"
    with ExitStack() as stack:
        subprocess.run(["mount", "--bind", str(precious), str(precious)], check=True)
        stack.callback(subprocess.run, ["umount", "--recursive", str(precious)], check=True)
        subprocess.run(["mount", "--make-shared", str(precious)], check=True)
        (precious / "later").mkdir()
        for name, request in (("plain", {}), ("careful", MEANS["read-only"])):
            agent.launch(name, "sh", "-c", wait, **request)
        subprocess.run(["mount", "-t", "tmpfs", "later", str(precious / "later")], check=True)
        for name, status in (("careful", 2), ("plain", 0)):
            Path(agent.client.container(name)["sandbox"], "go").touch()
            assert agent.client.wait(name)["exit_status"] == status
            assert (precious / "later" / "file").exists() == (name == "plain")


def test_a_private_tmp_ends_with_its_container(agent: Node) -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as witness:
        look = "touch /tmp/mine /dev/shm/mine && stat -c %a /tmp && ls -A /tmp /dev/shm && ! touch /var/tmp/mine"
        status, output, _ = outcome(agent, look, **MEANS["both"])
        assert (status, "mine" in output, Path(witness.name).name in output) == (0, True, False)
        assert output.startswith("1777\n")
    assert not Path("/tmp/mine").exists()
    assert not Path("/dev/shm/mine").exists()


# The users


def test_root_in_a_user_namespace_is_nobody_outside(agent: Node) -> None:
    show = "id -u; id -g; id -G; cat /proc/self/uid_map; touch file; echo $HOME; exec sleep 1000"
    containers = [
        agent.launch(name, "sh", "-c", show, user_namespace=True, uid=uid, gid=uid)
        for name, uid in (("root", 0), ("user", 1000))
    ]
    firsts = []
    for container, uid in zip(containers, (0, 1000), strict=True):
        first = container["user_namespace_first_id"]
        firsts.append(first)
        assert first == id_range.first_id(PortRange(*container["ephemeral_ports"]))
        sandbox = Path(container["sandbox"])
        until(lambda sandbox=sandbox: str(sandbox) in (sandbox / "stdout").read_text(), "output")  # type: ignore[misc]
        lines = (sandbox / "stdout").read_text().splitlines()
        assert lines[:2] == [str(uid)] * 2
        assert str(uid) in lines[2].split()
        assert lines[3].split() == ["0", str(first), "65536"]
        for path in (sandbox, sandbox / "file", sandbox / "stdout", sandbox / "stderr"):
            assert (path.stat().st_uid, path.stat().st_gid) == (first + uid, first + uid)
        status = Path(f"/proc/{container['pid']}/status").read_text()
        for kind in ("Uid", "Gid"):
            (ids,) = re.findall(rf"^{kind}:\t(.*)$", status, re.M)
            assert set(ids.split()) == {str(first + uid)}
    assert abs(firsts[0] - firsts[1]) >= id_range.SIZE


def test_a_user_namespace_has_no_power_over_the_network(agent: Node) -> None:
    attempts = ("ip link set eth0 down", "ip address flush dev eth0", "tc qdisc add dev eth0 root pfifo",
                "echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range",
                "python3 -c 'import socket as s; s.socket(s.AF_PACKET, s.SOCK_RAW)'")  # fmt: skip
    script = "".join(f"({attempt}) 2>/dev/null && echo '{index}'\n" for index, attempt in enumerate(attempts))
    status, succeeded, complaints = outcome(agent, f"{script} true", user_namespace=True)
    assert (status, succeeded, complaints) == (0, "", "")


@pytest.mark.native
def test_others_than_root_may_have_a_user_namespace_as_themselves(agent: Node) -> None:
    request = {"name": "mine", "command": ["id", "-u"], "user_namespace": True}
    container = as_user(NOBODY, NOBODY, lambda: agent.client.launch(request))
    agent.client.wait("mine")
    sandbox = Path(container["sandbox"])
    assert (sandbox / "stdout").read_text() == f"{NOBODY}\n"
    assert sandbox.stat().st_uid == container["user_namespace_first_id"] + NOBODY
    with pytest.raises(PortsliceError, match="Only root may run a container as another user or group"):
        as_user(NOBODY, NOBODY, lambda: agent.client.launch({**request, "uid": 0, "gid": 0}))


# The app


@pytest.mark.native
def test_the_app_works_also_after_a_restart_of_the_agent(agent: Node) -> None:
    containers = {
        means: agent.launch(means.replace(" ", "-"), "python3", "-c", SERVICE, ports=1, **request)
        for means, request in MEANS.items()
    }
    for container in containers.values():
        output = Path(container["sandbox"], "stdout")
        until(lambda output=output: output.read_text() == "ready\n", "the service")  # type: ignore[misc]
        _assert_welcome(agent, container)
    agent.stop()
    agent.start()
    for means, container in containers.items():
        _assert_welcome(agent, container)
        now = agent.client.container(container["id"])
        assert now == container, means
        agent.client.kill(container["id"], "SIGTERM")
        assert agent.client.wait(container["id"])["exit_status"] == 7, means
        assert Path(container["sandbox"], "stdout").read_text() == "ready\nbye\n", means
        assert Path(container["sandbox"], "made").exists(), means


def _assert_welcome(agent: Node, container: dict[str, Any]) -> None:
    address = (HOST_ADDRESS, container["ports"][0][0])
    with peer.open_socket(agent.bed.world, "tcp", connect=address) as client:
        assert client.recv(7) == b"welcome"


@pytest.mark.native
@pytest.mark.parametrize("means", MEANS)
def test_it_ends_with_its_supervisor_and_by_sigkill(agent: Node, means: str) -> None:
    for signalled in ("supervisor", "container"):
        container = agent.launch(signalled, **MEANS[means])
        first = ProcessHandle.of(container["pid"])
        if signalled == "container":
            agent.client.kill(signalled, "SIGKILL")
        else:
            outside = int(Path(f"/proc/{container['pid']}/status").read_text().partition("PPid:")[2].split()[0])
            supervisor = int(Path(f"/proc/{outside}/status").read_text().partition("PPid:")[2].split()[0])
            os.kill(supervisor, signal.SIGKILL)
        ended = agent.client.wait(signalled)
        assert ended["exit_status"] == (137 if signalled == "container" else None)
        assert first.wait(60)


# Devices


def test_a_container_sees_only_harmless_devices(agent: Node) -> None:
    look = "find /dev -type b -o -type c | grep -v /dev/pts/ | sort; ls -A /dev/shm; ! touch /dev/new"
    status, output, _ = outcome(agent, look)
    usual = ["full", "null", "random", "tty", "urandom", "zero"]
    assert (status, output.split()) == (0, [f"/dev/{name}" for name in usual])
    use = "echo x >/dev/null && head -c 3 /dev/urandom >/dev/null && echo out >/dev/stdout && script -qc tty /dev/null"
    status, output, complaints = outcome(agent, use)
    assert (status, output.split()) == (0, ["out", "/dev/pts/0"]), complaints


@pytest.mark.native
@pytest.mark.parametrize("request_", [{}, MEANS["both"]])
def test_a_device_can_be_asked_for(agent: Node, request_: dict[str, Any]) -> None:
    look = "stat -c '%F %t %T %a' /dev/kmsg && (: >/dev/kmsg)"
    status, output, _ = outcome(agent, look, devices=["/dev/kmsg"], **request_)
    host = Path("/dev/kmsg").stat()
    assert output == f"character special file 1 b {host.st_mode & 0o777:o}\n"
    assert (status == 0) == (not request_), "as its permissions say"


# What cannot be


@pytest.mark.native
@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"user_namespace": True, "uid": 65536}, "A user namespace has the ids 0-65535: not the uid 65536"),
        ({"user_namespace": True, "gid": 70000}, "A user namespace has the ids 0-65535: not the gid 70000"),
        ({"user_namespace": "yes"}, "'user_namespace' must be true or false"),
        ({"read_only": 1}, "'read_only' must be true or false"),
        ({"uid": 2**32 - 1}, "There is no uid or gid above 4294967294"),
        ({"devices": ["/etc/passwd"]}, "'/etc/passwd' is no device below /dev"),
        ({"devices": ["/dev/shm"]}, "'/dev/shm' is no device below /dev"),
        ({"devices": ["/dev/none"]}, "'/dev/none' is no device below /dev"),
        ({"devices": ["null"]}, "'null' is no device below /dev"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(agent: Node, request_: dict[str, Any], text: str) -> None:
    before = _traces(agent)
    with pytest.raises(PortsliceError, match=f"^{re.escape(text)}$"):
        agent.launch("refused", **request_)
    assert _traces(agent) == before


def _traces(agent: Node) -> list[str]:
    directories = (agent.runtime / "journal", agent.runtime / "containers", agent.runtime / "netns",
                   agent.directory / "work" / "containers")  # fmt: skip
    return [str(path) for directory in directories if directory.exists() for path in sorted(directory.iterdir())]


@pytest.mark.native
def test_a_user_namespace_needs_ports_for_its_ids(bed: Testbed) -> None:
    with node(bed, "--isolation=cgroups/cpu", "--resources=cpus:1") as agent:
        text = "A user namespace's ids follow from the ports: it needs the isolator network/port_mapping"
        with pytest.raises(PortsliceError, match=f"^{text}$"):
            agent.launch("refused", user_namespace=True)
        assert _traces(agent) == []
        status, _, complaints = outcome(agent, "! touch /etc/portslice-mine && touch mine", read_only=True)
        assert status == 0, complaints


# The command line


@pytest.mark.native
@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--user", "nobody"], "65534 65534"),
        (["--user", "nobody:daemon"], "65534 1"),
        (["--user", "1234:5678"], "1234 5678"),
        (["--userns", "--read-only"], "0 0"),
        (["--userns", "--user", "nobody"], "65534 65534"),
    ],
)
def test_run(agent: Node, options: list[str], shown: str) -> None:
    show = "echo $(id -u) $(id -g); ! touch /usr/portslice-mine 2>/dev/null && exit 5"
    result = agent.cli("run", *options, "--", "sh", "-c", show, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (5, f"{shown}\n", "")


@pytest.mark.native
@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--user", "nobody-knows"], "there is no user 'nobody-knows'"),
        (["--user", "nobody:strangers"], "there is no group 'strangers'"),
        (["--user", ":daemon"], "there is no user ''"),
        (["--user", "nobody:"], "there is no group ''"),
        (["--device", "/etc/passwd"], "'/etc/passwd' is no device below /dev"),
    ],
)
def test_run_says_what_is_wrong(agent: Node, options: list[str], text: str) -> None:
    result = agent.cli("run", *options, "--", "true", check=False)
    assert result.returncode != 0
    assert text in result.stderr
