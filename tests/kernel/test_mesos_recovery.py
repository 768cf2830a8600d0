"""Mesos' scenarios of recovery (src/tests/containerizer/port_mapping_tests.cpp, PortMappingMesosTest) by name.

What Mesos keeps in its meta directory is the journal here; the symbolic link from a container's id to the handle of its
network namespace is the handle itself, which bears the id.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portslice.containers.process import ProcessHandle
from portslice.demo.node import ISOLATION, Node
from portslice.demo.testbed import HOST_ADDRESS, Testbed
from portslice.network import namespaces
from tests.kernel import cgroup_tree, peer

PORT = 31000


@pytest.fixture
def stopped(bed: Testbed) -> Iterator[Node]:
    """An agent to be started, with nothing left of it in the end."""
    agent = Node(bed)
    try:
        yield agent
    finally:
        left = agent.cleanup()
    assert left == []


def _traces(agent: Node, *containers: dict[str, Any]) -> list[str]:
    """What is left of containers on the host."""
    links = agent.bed.run(agent.bed.host, "ip", "-o", "link", "show", "type", "veth").stdout
    traces = [line for line in links.splitlines() if line.split(": ")[1].startswith("ps")]
    traces += [str(path) for place in ("netns", "containers", "journal") for path in (agent.runtime / place).glob("*")]
    for container in containers:
        traces += [str(path) for path in cgroup_tree.find(f"{agent.cgroups_root}/{container['id']}")]
        traces += [str(path) for path in (Path("/proc", str(container["pid"])),) if path.exists()]
    return traces


def test_recover_mixed_containers(stopped: Node) -> None:
    """CGROUPS_RecoverMixedContainers: one started without the isolator, which takes up both and measures its own."""
    without = Node(stopped.bed, "--isolation=cgroups/cpu,cgroups/mem")
    without.start()
    without.launch("first")
    without.stop()
    isolated = Node(stopped.bed, f"--isolation={ISOLATION}")
    isolated.start()
    isolated.launch("second", ports=1)
    isolated.stop()
    isolated.start()
    usages = {each["executor_id"]: each["statistics"] for each in isolated.get("/monitor/statistics")}
    assert {name: "net_rx_bytes" in usage for name, usage in usages.items()} == {"first": False, "second": True}
    assert all("cpus_user_time_secs" in usage for usage in usages.values())
    isolated.stop()


def test_clean_up_orphan(stopped: Node) -> None:
    """CGROUPS_CleanUpOrphan: the records are lost while no agent runs; the container is ended and taken apart, and its
    port is the host's again."""
    stopped.start()
    container = stopped.launch("orphan", ports=f"{PORT}-{PORT}")
    init = ProcessHandle.of(int(container["pid"]))
    stopped.stop()
    shutil.rmtree(stopped.runtime / "journal")
    stopped.start()
    assert not init.alive()
    assert _traces(stopped, container) == []
    assert stopped.client.containers() == []
    with (
        peer.listen(stopped.bed.host, "tcp", ("", PORT)) as server,
        peer.open_socket(stopped.bed.world, "tcp") as client,
    ):
        peer.talk_tcp(server, client, (HOST_ADDRESS, PORT), 1000)


def test_recover_mixed_known_and_unknown_orphans(stopped: Node) -> None:
    """CGROUPS_RecoverMixedKnownAndUnKnownOrphans: of one the handle is gone, too; both go without errors."""
    stopped.start()
    containers = [stopped.launch(name, ports=1) for name in ("known", "unknown")]
    stopped.stop()
    shutil.rmtree(stopped.runtime / "journal")
    namespaces.remove(stopped.namespace(containers[1]))
    stopped.start()
    assert _traces(stopped, *containers) == []
    assert stopped.get("/metrics/snapshot")["containerizer/mesos/container_destroy_errors"] == 0


@pytest.mark.native
def test_network_namespace_handle(stopped: Node) -> None:
    """NetworkNamespaceHandleSymlink: the handle is there while the container runs, and gone when it has ended."""
    stopped.start()
    container = stopped.launch("c")
    handle = stopped.namespace(container)
    inside = Path(f"/proc/{container['pid']}/ns/net")
    assert handle.stat().st_ino == inside.stat().st_ino
    stopped.kill("c")
    assert not handle.exists()
    assert stopped.client.container("c")["state"] == "exited"
