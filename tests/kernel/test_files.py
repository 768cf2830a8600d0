"""/files: what sandboxes hold, and nothing that a container leads to elsewhere."""

import fcntl
import json
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import testbed
from tests.kernel.asking import Answer, ask, ask_over, connection
from tests.kernel.waiting import until

pytestmark = pytest.mark.native

NOBODY = 65534
PAGES = 16 * os.sysconf("SC_PAGE_SIZE")
SECRET = "for root's eyes only"


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """An agent as open as Mesos, with a log."""
    with testbed() as bed:
        log = bed.directory / "log"
        with node(bed, "--isolation=posix/cpu,posix/mem", "--open_files", f"--log_dir={log}") as agent:
            yield agent


def make(agent: Node, name: str, script: str, **request: Any) -> dict[str, Any]:
    """A container of nobody's that has run a script in its sandbox."""
    container = agent.launch(name, "sh", "-ec", script, **{"uid": NOBODY, "gid": NOBODY, **request})
    ended = agent.client.wait(container["id"])
    assert ended["exit_status"] == 0, Path(ended["sandbox"], "stderr").read_text()
    return ended


def files(agent: Node, what: str, path: str, **query: Any) -> Answer:
    more = "".join(f"&{name}={value}" for name, value in query.items())
    return ask(agent, f"/files/{what}?path={quote(path)}{more}")


def test_a_sandbox_is_browsed(agent: Node) -> None:
    container = make(agent, "writer", "mkdir below; echo 12345 >below/file; chmod 640 below/file")
    root = container["sandbox"]
    answer = files(agent, "browse", root)
    assert answer.headers["Content-Type"] == "application/json"
    assert [each["path"] for each in answer.json] == [f"{root}/{name}" for name in ("below", "stderr", "stdout")]
    (entry,) = files(agent, "browse", f"{root}/below/").json
    status = Path(root, "below/file").stat()
    assert entry == {
        "gid": "nogroup",
        "mode": "-rw-r-----",
        "mtime": pytest.approx(status.st_mtime),
        "nlink": 1,
        "path": f"{root}/below/file",
        "size": 6,
        "uid": "nobody",
    }
    assert list(entry) == sorted(entry)


def test_virtual_paths(agent: Node) -> None:
    container = make(agent, "known", "echo hello")
    latest = "/framework//executor/known/latest"
    shown = ask(agent, "/files/debug").json
    assert shown[container["sandbox"]] == shown[latest] == container["sandbox"]
    for path in (container["sandbox"], latest):
        assert files(agent, "read", f"{path}/stdout", offset=0).json["data"] == "hello\n"
    log = files(agent, "download", "/slave/log")
    assert Path(shown["/slave/log"]).read_bytes().startswith(log.body)
    assert "Flags at startup" in log.text


def test_reading_by_pieces(agent: Node) -> None:
    text = "0123456789" * 10_000
    container = make(agent, "long", "i=0; while [ $i -lt 10000 ]; do printf 0123456789; i=$((i+1)); done")
    path = f"{container['sandbox']}/stdout"
    for query, offset, data in (
        ({}, len(text), ""),
        ({"offset": -1}, len(text), ""),
        ({"offset": 5, "length": 7}, 5, text[5:12]),
        ({"offset": 0}, 0, text[:PAGES]),
        ({"offset": 10, "length": -1}, 10, text[10 : PAGES + 10]),
        ({"offset": 0, "length": 10**9}, 0, text[:PAGES]),
        ({"offset": 99_990, "length": 100}, 99_990, text[-10:]),
        ({"offset": 10**18, "length": 1}, 10**18, ""),
    ):
        assert files(agent, "read", path, **query).json == {"data": data, "offset": offset}, query
    with closing(connection(agent)) as opened:
        download, head, part, again = (
            ask_over(opened, f"/files/download?path={quote(path)}", method, **headers)
            for method, headers in (("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=5-11"}), ("GET", {}))
        )
    assert download.text == again.text == text
    assert (head.headers["Content-Length"], part.status, part.text) == (str(len(text)), 206, text[5:12])
    assert download.headers["Content-Disposition"] == 'attachment; filename="stdout"'
    assert (download.headers["Content-Type"], download.headers["X-Content-Type-Options"]) == (
        "application/octet-stream",
        "nosniff",
    )
    assert "Traceback" not in agent.log


def test_errors_are_mesos_own(agent: Node) -> None:
    sandbox = make(agent, "mistaken", "mkdir below")["sandbox"]
    for path, status, body in (
        ("browse", 400, "Expecting 'path=value' in query.\n"),
        ("read", 400, "Expecting 'path=value' in query.\n"),
        ("download", 400, "Expecting 'path=value' in query.\n"),
        ("browse?path=/nope", 404, ""),
        (f"browse?path={sandbox}/nope", 404, ""),
        (f"browse?path={sandbox}/stdout/nope", 404, ""),
        (f"browse?path={sandbox}/..", 404, ""),
        (f"browse?path={sandbox}0", 404, ""),
        ("browse?path=/etc", 404, ""),
        ("read?path=/etc/hostname&offset=0", 404, ""),
        (f"read?path={sandbox}/../../../../etc/hostname&offset=0", 404, ""),
        (f"read?path={sandbox}/%00&offset=0", 404, ""),
        (f"read?path={sandbox}/{'n' * 300}&offset=0", 404, ""),
        (f"browse?path={sandbox}/stdout", 400, "Not a directory.\n"),
        (f"read?path={sandbox}/below&offset=0", 400, "Cannot read a directory.\n"),
        (f"download?path={sandbox}/below", 400, "Cannot download a directory.\n"),
        (f"read?path={sandbox}/stdout&offset=-2", 400, "Negative offset provided: -2.\n"),
        (f"read?path={sandbox}/stdout&offset=0&length=-2", 400, "Negative length provided: -2.\n"),
        (f"read?path={sandbox}/stdout&offset=--5", 400, "Failed to parse offset: Failed to convert '--5' to number.\n"),
        (f"read?path={sandbox}/stdout&offset=x", 400, "Failed to parse offset: Failed to convert 'x' to number.\n"),
    ):
        answer = ask(agent, f"/files/{path}")
        assert (answer.status, answer.text) == (status, body), path


def test_nothing_outside_a_sandbox_is_shown(agent: Node) -> None:
    """What the container of an ordinary user leaves behind for root, who reads for whoever asks."""
    secret = agent.bed.directory / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    sandbox = make(
        agent,
        "hostile",
        f"""
        ln -s {secret} link; ln -s link again; ln -s ../../../../../../../../{secret} climbing; ln -s / root
        ln -s {agent.bed.directory} directory; ln -s /proc/self/root magic; ln -s loop loop
        mkfifo pipe; echo harmless >own; ln -s own inside; mkdir private; chmod 0 private own
        """,
    )["sandbox"]
    # What fs.protected_hardlinks usually forbids: another name of a file that is not the container's.
    os.link(secret, f"{sandbox}/hard")
    os.mknod(f"{sandbox}/zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    os.mkdir(f"{sandbox}/roots", 0o700)
    Path(f"{sandbox}/roots/file").write_text(SECRET)
    for what in ("read", "download", "browse"):
        for name, status in (
            *((each, 404) for each in ("link", "again", "climbing", "magic", "loop", "pipe", "zero")),
            *((f"root{each}", 404) for each in ("", "/etc", secret)),
            *((each, 404) for each in ("directory", "directory/secret")),
            *((each, 403) for each in ("hard", "roots")),
        ):
            answer = files(agent, what, f"{sandbox}/{name}", offset=0)
            assert answer.status == status, (what, name, answer)
            assert SECRET not in answer.text
    assert files(agent, "read", f"{sandbox}/inside", offset=0).json["data"] == "harmless\n"
    listed = {each["path"].rpartition("/")[2]: each["mode"][0] for each in files(agent, "browse", sandbox).json}
    assert (listed["link"], listed["pipe"], listed["private"], listed["zero"]) == ("l", "p", "d", "c")


def test_nobody_waits_for_a_file_with_a_lease(agent: Node) -> None:
    """The kernel gives its owner 45 seconds to give it up; until then whoever opens it would wait."""
    path = Path(make(agent, "lessor", ">leased")["sandbox"], "leased")
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # how the owner is told that somebody waits
    try:
        with path.open("r+") as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            for what in ("read", "download", "read"):
                assert files(agent, what, str(path), offset=0).status == 404
            assert fcntl.fcntl(file, fcntl.F_GETLEASE) != fcntl.F_WRLCK, "its owner was told"
            assert f":{path.stat().st_ino} " in Path("/proc/locks").read_text(), "and has it still"
    finally:
        signal.signal(signal.SIGIO, before)
    assert files(agent, "read", str(path), offset=0).status == 200


def test_output_replaced_by_a_link_is_not_followed(agent: Node) -> None:
    secret = agent.bed.directory / "another"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    ended = make(agent, "deceiver", f"rm stdout; ln -s {secret} stdout; echo told >&2")
    assert SECRET.encode() not in b"".join(agent.client.output(ended["id"], "stdout", 0))
    assert b"".join(agent.client.output(ended["id"], "stderr", 0)) == b"told\n"


def test_a_path_that_changes_while_it_is_read_leads_nowhere_else(agent: Node) -> None:
    secret = agent.bed.directory / "elsewhere" / "file"
    secret.parent.mkdir(mode=0o700)
    secret.write_text(SECRET)
    container = agent.launch(
        "juggler",
        "sh",
        "-c",
        f"mkdir good; echo harmless >good/file; ln -s {secret.parent} evil; echo ready\n"
        "while :; do mv good aside; mv evil good; mv good evil; mv aside good; done",
        uid=NOBODY,
        gid=NOBODY,
    )
    until(lambda: Path(container["sandbox"], "stdout").read_text(), "juggling")
    seen = [files(agent, "read", f"{container['sandbox']}/good/file", offset=0) for _ in range(300)]
    assert {answer.status for answer in seen} <= {200, 404}
    assert {json.loads(answer.body)["data"] for answer in seen if answer.status == 200} == {"harmless\n"}

