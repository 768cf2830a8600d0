"""disk/du: what the sandboxes take, against du(1) and known files, and the end of who takes too much."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import testbed
from tests.kernel.waiting import until

pytestmark = pytest.mark.native  # du walks over files, whatever the kernel

MB = 1 << 20
WRITE = "head -c {} /dev/zero >file; exec sleep infinity"


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """An agent that measures often, and enforces what it measures."""
    flags = ("--container_disk_watch_interval=200ms", "--enforce_container_disk_quota")
    with testbed() as bed, node(bed, "--isolation=cgroups/cpu,posix/disk", *flags) as agent:
        yield agent


def disk(agent: Node, name: str) -> dict[str, Any]:
    """Those of a container's statistics that are about disk."""
    return {key: value for key, value in agent.statistics(name).items() if key.startswith("disk_")}


def du(container: dict[str, Any]) -> int:
    shown = subprocess.run(["du", "-sx", "--block-size=1", container["sandbox"]], capture_output=True, text=True)
    return int(shown.stdout.split()[0])


def walks(agent: Node) -> list[int]:
    """Processes of the agent that walk now."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode()
        except OSError:
            continue  # it has ended
        if command.startswith("du\0") and str(agent.directory) in command:
            found.append(int(process.name))
    return found


def test_usage_is_that_of_du(agent: Node) -> None:
    container = agent.launch("c", "sh", "-c", WRITE.format(3 * MB), disk=10 * MB)
    sandbox = Path(container["sandbox"])
    other = agent.launch("other")
    until(lambda: disk(agent, "c").get("disk_used_bytes", 0) >= 3 * MB, "the file in the figures")
    until(lambda: disk(agent, "other"), "a figure of the other")
    found = disk(agent, "c")
    assert found["disk_limit_bytes"] == container["disk_bytes"] == 10 * MB
    assert found["disk_used_bytes"] == du(container)
    assert found["disk_statistics"] == [{"limit_bytes": 10 * MB, "used_bytes": found["disk_used_bytes"]}]
    assert {type(value) for value in found["disk_statistics"][0].values()} == {int}
    used = du(other)
    assert disk(agent, "other") == {"disk_used_bytes": used, "disk_statistics": [{"used_bytes": used}]}
    # A second name takes nothing, nor does what a link points to, nor another file system.
    os.link(sandbox / "file", sandbox / "again")
    (sandbox / "link").symlink_to("/usr")
    (sandbox / "elsewhere").symlink_to(sandbox / "file")
    (sandbox / "more").write_bytes(bytes(2 * MB))
    until(lambda: disk(agent, "c")["disk_used_bytes"] >= 5 * MB, "the second file in the figures")
    assert disk(agent, "c")["disk_used_bytes"] == du(container) < 6 * MB


def test_a_container_over_its_quota_is_ended(agent: Node) -> None:
    agent.launch("modest", "sh", "-c", WRITE.format(MB), disk=10 * MB)
    agent.launch("free", "sh", "-c", WRITE.format(12 * MB))
    agent.launch("greedy", "sh", "-c", WRITE.format(12 * MB), disk=10 * MB)
    ended = agent.client.wait("greedy")
    assert ended["exit_status"] == 128 + signal.SIGKILL
    answer = json.dumps({"type": "WAIT_CONTAINER", "wait_container": {"container_id": {"value": ended["id"]}}})
    told = agent.bed.run(agent.bed.host, "curl", "-sS", "--json", answer, "http://127.0.0.1:5051/api/v1").stdout
    assert json.loads(told)["wait_container"] == {
        "exit_status": signal.SIGKILL,
        "state": "TASK_FAILED",
        "reason": "REASON_CONTAINER_LIMITATION_DISK",
        "limitation": {"resources": [{"name": "disk", "type": "SCALAR", "scalar": {"value": 10.0}, "role": "*"}]},
        "message": ended["message"],
    }
    assert re.fullmatch(r"Disk usage \(12\d*[KM]B\) exceeds quota \(10MB\)", ended["message"])
    assert f"exited (137: {ended['message']})" in agent.cli("ps", "--all").stdout
    attached = agent.cli("run", "--disk", "1MB", "--", "sh", "-c", WRITE.format(2 * MB), check=False)
    assert attached.returncode == 128 + signal.SIGKILL
    assert "exceeds quota (1MB)" in attached.stderr
    # A quota that is lowered holds as well.
    until(lambda: disk(agent, "free"), "a figure of who has no quota")
    until(lambda: disk(agent, "modest").get("disk_used_bytes", 0) >= MB, "a figure of who keeps to it")
    agent.cli("update", "modest", "--disk", "512KB")
    assert "exceeds quota (512KB)" in agent.client.wait("modest")["message"]
    assert [each["name"] for each in agent.client.containers() if each["state"] == "running"] == ["free"]


def test_nothing_is_said_of_who_ends_meanwhile(agent: Node) -> None:
    """Its tree changes under the walk, and goes away."""
    churn = "while :; do mkdir -p a/b/c; touch a/b/c/1 a/2; rm -r a; done"
    agent.launch("churn", "sh", "-c", churn)
    for number in range(3):
        agent.launch(f"short-{number}")
        until(lambda name=f"short-{number}": disk(agent, name), "a figure")  # type: ignore[misc]
        agent.kill(f"short-{number}")
    until(lambda: disk(agent, "churn"), "a figure of the changing tree")
    assert "has failed" not in agent.log
    assert "Failed to sample" not in agent.log


def test_a_large_tree_keeps_no_other_waiting_and_ends_with_the_agent(agent: Node) -> None:
    """Its walk takes long enough to be found, and is stopped, so that it lasts for ever."""
    container = agent.launch("large")
    for number in range(40_000):
        Path(container["sandbox"], str(number)).touch()
    until(lambda: disk(agent, "large"), "a figure")

    def stopped() -> int | None:
        for pid in walks(agent):
            try:
                os.kill(pid, signal.SIGSTOP)
            except ProcessLookupError:
                continue
            return pid
        return None

    until(stopped, "a walk")
    agent.launch("small")
    until(lambda: disk(agent, "small"), "a figure of the other")
    assert "is large" in agent.log
    until(stopped, "a walk")
    agent.crash()
    until(lambda: not walks(agent), "end of the walk")
    agent.start()
    until(lambda: disk(agent, "large"), "a figure from the next agent")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--container_disk_watch_interval=0ns",), "--container_disk_watch_interval=0ns is too short"),
        (("--isolation=disk/du,posix/disk",), "Duplicate entries found in --isolation flag '[ disk/du, disk/du ]'"),
    ],
)
def test_start_up(agent: Node, flags: tuple[str, ...], text: str) -> None:
    given = {flag.partition("=")[0] for flag in flags}
    other = Node(agent.bed, "--isolation=disk/du" if "--isolation" not in given else flags[0], name="other")
    other.directory.mkdir(exist_ok=True)
    result = other.agent(*(flag for flag in flags if not flag.startswith("--isolation")))
    assert result.returncode == 1
    assert text in result.stderr


def test_a_request_for_no_disk_is_refused(agent: Node) -> None:
    result = agent.cli("run", "--disk", "0B", "--", "true", check=False)
    assert (result.returncode, "'disk' must be more than 0" in result.stderr) == (1, True)
