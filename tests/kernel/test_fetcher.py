"""What a container finds in its sandbox: files and archives that were fetched, and nothing that it could not have."""

import base64
import gzip
import io
import lzma
import os
import pwd
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from portslice.demo.node import ISOLATION, Node, node
from portslice.demo.testbed import testbed
from portslice.errors import PortsliceError
from tests.kernel import cgroup_tree, peer
from tests.kernel.waiting import until

PORT = 8000
MB = 1 << 20
NOBODY = pwd.getpwnam("nobody").pw_uid
FAILED = "Failed to fetch all URIs for container '{}': exited with status 1: "


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """An agent that soon loses patience with a server, and enforces what a container may take of the disk."""
    flags = ("--fetcher_stall_timeout=4secs", "--enforce_container_disk_quota")
    with testbed() as bed, node(bed, f"--isolation={ISOLATION},disk/du", *flags) as agent:
        yield agent


class Server(ThreadingHTTPServer):
    """On the host's loopback: files by path, and others that never come."""

    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.closing = threading.Event()
        self.go = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        if self.path == "/silent":
            self.server.closing.wait()
            return
        if self.path == "/held":
            self.server.go.wait()
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.end_headers()
            return
        content = self.server.files.get(self.path)
        self.send_response(404 if content is None else 200)
        if self.path != "/dribble":
            self.send_header("Content-Length", str(len(content or b"") + (self.path == "/short")))
        self.end_headers()
        self.wfile.write(content or b"")
        while self.path == "/dribble" and not self.server.closing.wait(0.2):
            self.wfile.write(b"x")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(shared_node: Node) -> Iterator[Server]:
    listener = peer.listen(shared_node.bed.host, "tcp", ("127.0.0.1", PORT))
    listener.settimeout(None)
    server = Server(listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def files(shared_node: Node) -> Path:
    """A directory of the host's that everybody may read."""
    directory = shared_node.bed.directory / "files"
    directory.mkdir(exist_ok=True)
    for each in (shared_node.bed.directory, directory):
        each.chmod(0o755)
    return directory


def _url(path: str) -> str:
    return f"http://localhost:{PORT}/{path}"


def _tar(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _member(name: str, **attributes: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


def _run(agent: Node, *command: str, uris: list[Any], **request: Any) -> tuple[dict[str, Any], Path]:
    """A container that has ended well, and its sandbox."""
    agent.launch("c", *command, uris=uris, **request)
    ended = agent.client.wait("c")
    assert ended["exit_status"] == 0, (Path(ended["sandbox"]) / "stderr").read_text()
    return ended, Path(ended["sandbox"])


def _refused(agent: Node, *uris: Any, **request: Any) -> str:
    """Why a launch failed, of which nothing is left."""
    containers = agent.client.containers()
    with pytest.raises(PortsliceError) as raised:
        agent.launch("refused", uris=list(uris), **request)
    assert agent.client.containers() == containers
    return str(raised.value)


USERS: dict[str, dict[str, Any]] = {
    "root": {},
    "nobody": {"uid": NOBODY, "gid": NOBODY},
    "user namespace": {"user_namespace": True},
    "read-only": {"read_only": True, "uid": NOBODY, "gid": NOBODY},
}


@pytest.mark.parametrize("user", USERS.values(), ids=USERS)
def test_what_is_fetched(agent: Node, server: Server, user: dict[str, Any]) -> None:
    """Files, archives and programs are there before the command starts, and its user's."""
    server.files |= {
        "/plain": b"plain",
        "/run": b"#!/bin/sh\necho ran $1\n",
        "/a.tgz": _tar((_member("./", type=tarfile.DIRTYPE, mode=0o777), b""), (_member("sub/tool", mode=0o755), b"x")),
    }
    uris = [_url("plain"), {"value": _url("run"), "executable": True, "output_file": "bin/run"}, _url("a.tgz")]
    script = "cat plain && bin/run now && test -x sub/tool && rm -r plain bin sub a.tgz && readlink /proc/self/fd"
    ended, sandbox = _run(agent, "sh", "-c", f"{script}; ls /proc/self/fd", uris=uris, mem=32 * MB, **user)
    assert (sandbox / "stdout").read_text().split() == ["plainran", "now", "0", "1", "2", "3"]
    assert stat_mode(sandbox) == 0o750
    log = (sandbox / "stderr").read_text()
    assert f"Fetching URI '{_url('plain')}'\n" in log
    assert f"Extracted '{_url('a.tgz')}' into the sandbox\n" in log
    assert ended["state"] == "exited"


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.native
def test_kinds_of_archives(agent: Node, server: Server) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        info = zipfile.ZipInfo("d/program")
        info.external_attr = 0o100755 << 16
        archive.writestr(info, "zip")
    kinds = {".tar": "w", ".tgz": "w:gz", ".tar.gz": "w:gz", ".tbz2": "w:bz2", ".tar.bz2": "w:bz2", ".txz": "w:xz"}
    kinds[".tar.xz"] = "w:xz"
    names = {f"/in{suffix}": _tar((_member(f"out{suffix}"), b"tar"), mode=mode) for suffix, mode in kinds.items()}
    server.files |= names | {"/in.zip": zipped.getvalue(), "/bare.gz": gzip.compress(b"gz")}
    server.files["/no.tgz"] = names["/in.tgz"]
    kept = {"value": _url("no.tgz"), "extract": False, "output_file": "kept/no.tgz"}
    _, sandbox = _run(agent, "true", uris=[*(_url(name[1:]) for name in names), _url("in.zip"), _url("bare.gz"), kept])
    assert {suffix: (sandbox / f"out{suffix}").read_text() for suffix in kinds} == dict.fromkeys(kinds, "tar")
    assert (sandbox / "d/program").read_text() == "zip"
    assert stat_mode(sandbox / "d/program") == 0o755
    assert (sandbox / "bare").read_text() == "gz"
    assert (sandbox / "kept/no.tgz").read_bytes() == names["/in.tgz"]


@pytest.mark.native
def test_local_files(agent: Node, files: Path) -> None:
    """Those that the container's user can read, where the container can see them; never a pipe or a device."""
    (files / "open").write_text("open")
    (files / "program").write_text("#!/bin/sh\n")
    (files / "program").chmod(0o755)
    (files / "secret").write_text("secret")
    (files / "secret").chmod(0o600)
    os.mkfifo(files / "pipe", 0o644)
    nobody = USERS["nobody"]
    _, sandbox = _run(agent, "./program", uris=[f"{files}/open", f"file://{files}/program"], **nobody)
    assert (sandbox / "open").read_text() == "open"
    assert agent.cli("run", "--uri", f"{files}/open", "--", "cat", "open").stdout == "open"
    other = sandbox / "open"
    assert other.stat().st_uid == NOBODY
    for path, why in (
        (files / "secret", "Permission denied"),
        (files / "pipe", "is no plain file"),
        (Path("/dev/zero"), "Permission denied"),
        (files, "Is a directory"),
        (files / "none", "No such file or directory"),
        (other, "No such file or directory"),  # of another container, with the same user
        (agent.socket, "No such"),
    ):
        assert why in _refused(agent, f"file://{path}", **nobody), path


@pytest.mark.native
def test_uris_with_credentials(agent: Node, server: Server) -> None:
    """They reach the server that they are for, and nobody else hears of them."""
    server.files["/file"] = server.files["/file?key=hidden"] = b"content"
    uris = [{"value": f"http://me:s%40cret@localhost:{PORT}/{path}", "output_file": "f"} for path in
            ("file?key=hidden", "elsewhere")]
    server.asked.clear()
    _, sandbox = _run(agent, "cat", "f", uris=uris)
    token = f"Basic {base64.b64encode(b'me:s@cret').decode()}"
    assert server.asked == [("/file?key=hidden", token), ("/elsewhere", token), ("/file", None)]
    why = _refused(agent, f"http://me:s%40cret@localhost:{PORT}/none?key=hidden")
    told = (sandbox / "stderr").read_text() + agent.log + why
    assert f"http://localhost:{PORT}/none?…" in told
    assert [word for word in ("s%40cret", "s@cret", "hidden", token) if word in told] == []


@pytest.mark.native
def test_archives_that_would_go_elsewhere(agent: Node, server: Server, files: Path) -> None:
    outside = f"../../{files.name}/planted"
    for name, members in {
        "parent": [(_member(outside), b"x")],
        "link": [(_member("way", type=tarfile.SYMTYPE, linkname=str(files)), b"")],
        "relative link": [(_member("a/way", type=tarfile.SYMTYPE, linkname="../../.."), b"")],
        "hard link": [(_member("way", type=tarfile.LNKTYPE, linkname="../../etc/passwd"), b"")],
        "device": [(_member("zero", type=tarfile.CHRTYPE, devmajor=1, devminor=5), b"")],
        "pipe": [(_member("pipe", type=tarfile.FIFOTYPE), b"")],
    }.items():
        server.files["/bad.tgz"] = _tar(*members)
        assert "Failed to extract archive: " in _refused(agent, _url("bad.tgz")), name
    for content in (b"no archive", server.files["/bad.tgz"][:40]):
        server.files["/bad.tgz"] = content
        assert "Failed to extract archive: " in _refused(agent, _url("bad.tgz"))
    assert list(files.glob("planted*")) == []


def test_nothing_but_the_sandbox_can_be_written(agent: Node, server: Server, files: Path) -> None:
    """Whatever who fetches is led to: here by a link that somebody puts into the sandbox meanwhile."""
    target = files / "target"
    target.write_text("old")
    target.chmod(0o666)
    files.chmod(0o777)
    server.files["/held"] = b"new"
    server.go.clear()
    refused: list[str] = []
    uris = [_url("held"), {"value": _url("held"), "output_file": "way/target"}]
    thread = threading.Thread(target=lambda: refused.append(_refused(agent, *uris)))
    server.asked.clear()
    thread.start()
    until(lambda: server.asked, "request")
    (container,) = (each for each in agent.client.containers() if each["state"] == "preparing")
    (Path(container["sandbox"]) / "way").symlink_to(files)
    server.go.set()
    thread.join()
    assert refused[0].endswith(f"Failed to fetch '{_url('held')}': Read-only file system")
    assert target.read_text() == "old"


@pytest.mark.native
def test_uris_that_cannot_be_had(agent: Node, server: Server) -> None:
    server.files |= {"/short": b"xx", "/big": bytes(3 * MB), "/bomb.gz": gzip.compress(bytes(3 * MB))}
    server.files["/bomb.tgz"] = _tar((_member("bomb"), bytes(3 * MB)))
    before = agent.get("/metrics/snapshot")["containerizer/fetcher/task_fetches_failed"]
    for path, why in (
        ("none", "received HTTP return code 404"),
        ("silent", "less than a byte a second came for 4 seconds"),
        ("short", "1 bytes are missing"),
        ("big", f"Disk usage exceeds quota ({2 * MB} bytes)"),
        ("bomb.gz", "Disk usage exceeds quota"),
        ("bomb.tgz", "Disk usage exceeds quota"),
    ):
        message = _refused(agent, _url(path), disk=2 * MB)
        assert message.endswith(why) or f"{why} (" in message, message
        assert f"exited with status 1: Failed to fetch '{_url(path)}': " in message
    server.files["/wide.tar.xz"] = lzma.compress(_tar((_member("wide"), bytes(80 * MB)), mode="w"), preset=9)
    message = _refused(agent, _url("wide.tar.xz"), mem=32 * MB)
    assert "exited with status 137: " in message
    assert "Memory limit exceeded: Requested: 32MB" in message
    assert "Connection refused" in _refused(agent, "http://localhost:1/x")
    assert agent.get("/metrics/snapshot")["containerizer/fetcher/task_fetches_failed"] == before + 8
    for uri, why in (
        ("http://localhost", "Malformed URI (missing path): http://localhost"),
        ("relative/path", "A relative path was passed for the resource"),
        ("file://relative/path", "File URI only supports absolute paths"),
        ("/a'b", "Illegal characters in URI"),
        ("/a\nb", "Illegal characters in URI"),
        ("hdfs://host/x", "the scheme 'hdfs' is not supported"),
        ({"value": "/etc/passwd", "output_file": "/etc/x"}, "URI output file must be within the sandbox directory"),
        ({"value": "/etc/passwd", "output_file": "a/../../x"}, "URI output file must be within the sandbox directory"),
        ({"value": "/etc/passwd", "output_file": ""}, "URI output file path is empty"),
        ({"value": "/x", "cached": 1}, "'uris' must be a list of texts"),
        (7, "'uris' must be a list of texts"),
    ):
        assert why in _refused(agent, uri), uri


@pytest.mark.native
def test_a_launch_that_waits_can_be_killed(agent: Node, server: Server) -> None:
    server.files["/dribble"] = b"x"
    server.asked.clear()
    thread = threading.Thread(target=_try, args=(agent, "slow"))
    thread.start()
    until(lambda: _fetching(agent, server, 1), "launch that waits")
    agent.client.kill("slow", "SIGTERM")
    thread.join()
    command = [sys.executable, "-m", "portslice", "--socket", str(agent.socket), "run", "--uri", _url("dribble")]
    with subprocess.Popen([*command, "--", "true"], stderr=subprocess.PIPE, text=True) as run:
        until(lambda: _fetching(agent, server, 1), "launch that waits")
        run.send_signal(signal.SIGINT)
        assert "Failed to fetch all URIs" in run.communicate()[1]
    assert run.returncode == 1
    assert _preparing(agent, 0) == []


def _fetching(agent: Node, server: Server, count: int) -> bool:
    if not _preparing(agent, count) or not server.asked:
        return False
    server.asked.clear()
    return True


@pytest.mark.native
def test_slow_servers_keep_nobody_waiting(agent: Node, server: Server) -> None:
    """More launches than the agent has threads wait for one; others are launched and end meanwhile. Nor does the agent
    wait when it is to end: its next life takes apart what was not launched."""
    server.files["/dribble"] = b"x"
    threads = [threading.Thread(target=_try, args=(agent, f"slow{i}")) for i in range(12)]
    for thread in threads:
        thread.start()
    slow = until(lambda: _preparing(agent, len(threads)), "launches that wait")
    agent.launch("quick", "true")
    assert agent.client.wait("quick")["exit_status"] == 0
    assert _preparing(agent, len(threads))
    assert agent.stop() == 0
    agent.start()
    left = {each["name"] for each in agent.client.containers()}
    assert not left & {each["name"] for each in slow}
    assert [path for each in slow for path in cgroup_tree.find(f"{agent.cgroups_root}/{each['id']}")] == []
    assert [each["id"] for each in slow if Path(each["sandbox"]).exists()] == []
    for thread in threads:
        thread.join()


def _try(agent: Node, name: str) -> None:
    with pytest.raises(PortsliceError):
        agent.launch(name, uris=[_url("dribble")])


def _preparing(agent: Node, count: int) -> list[dict[str, Any]]:
    found = [each for each in agent.client.containers() if each["state"] == "preparing"]
    return found if len(found) == count else []
