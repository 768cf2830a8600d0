"""Refusals and failures, early, half-way and late: a clear text, and nothing stays behind."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from portslice.containers.cgroups import CONTROLLERS, detect
from portslice.containers.container import Request
from portslice.containers.containerizer import Containerizer, Directories
from portslice.containers.isolators import Isolator
from portslice.containers.isolators.cgroups import CgroupsIsolator
from portslice.containers.isolators.port_mapping import Options, PortMapping
from portslice.demo.node import Node, node
from portslice.demo.testbed import NIC, WORLD_ADDRESS, Testbed, testbed
from portslice.errors import ConflictError, PortsliceError
from portslice.network import host, namespaces
from portslice.network.statistics import Extras
from portslice.ports import PortSet
from portslice.rates import RatePolicy
from tests.kernel import cgroup_tree
from tests.kernel.waiting import until


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """An agent with three blocks."""
    with testbed() as bed, node(bed, "--ephemeral_ports_per_container=8192") as agent:
        yield agent


def traces(agent: Node) -> set[str]:
    """Everything on the host, and on disk, that there is for containers; by name."""
    found = {f"link {name}" for name in links(agent.bed)}
    for directory in ("run/netns", "run/journal", "run/containers", "work/containers"):
        path = agent.directory / directory
        found |= {f"{directory}/{name}" for name in (os.listdir(path) if path.is_dir() else ())}
    for root in cgroup_tree.find(f"{agent.cgroups_root}"):
        found |= {f"cgroup {each}" for each in root.iterdir() if each.is_dir()}
    found |= {f"filter {line}" for device in (NIC, "lo") for line in filters(agent.bed, device)}
    return found


def links(bed: Testbed) -> list[str]:
    """The names of the host's links."""
    shown = bed.run(bed.host, "ip", "-o", "link", "show").stdout
    return [line.split(": ")[1].partition("@")[0] for line in shown.splitlines()]


def filters(bed: Testbed, device: str) -> list[str]:
    return bed.run(bed.host, "tc", "filter", "show", "dev", device, "ingress", check=False).stdout.splitlines()


def free_blocks(agent: Node) -> float:
    return float(agent.get("/metrics/snapshot")["port_mapping/ephemeral_blocks_free"])


# Refused


@pytest.mark.native
def test_a_name_that_is_taken(agent: Node) -> None:
    first = agent.launch("web")
    before, free = traces(agent), free_blocks(agent)
    with pytest.raises(PortsliceError, match="A container with the name 'web' is running already"):
        agent.launch("web")
    assert (traces(agent), free_blocks(agent)) == (before, free)
    assert agent.client.container("web")["id"] == first["id"]
    agent.kill("web")
    assert agent.launch("web")["id"] != first["id"], "a name is free again when its container has ended"


@pytest.mark.native
@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ("31002-31003", r"The ports \[31002-31003\] belong to another container"),
        ("31003-31009", r"The ports \[31003-31004\] belong to another container"),
        ("32001-32002", r"Some non-ephemeral ports specified in \[32001-32002\] are not managed by the agent"),
        ("31990-32001", r"Some non-ephemeral ports specified in \[31990-32001\] are not managed by the agent"),
        ("33000-33001", r"Some non-ephemeral ports specified in \[33000-33001\] are not managed by the agent"),
        ("80", r"Some non-ephemeral ports specified in \[80-80\] are not managed by the agent"),
        (997, "Not enough free ports: 997 asked for, 996 left"),
    ],
)
def test_ports_that_are_taken_or_not_the_agents(agent: Node, ports: str | int, text: str) -> None:
    agent.launch("owner", ports="31000-31004")
    before, free = traces(agent), free_blocks(agent)
    with pytest.raises(PortsliceError, match=text):
        agent.launch("thief", ports=ports)
    assert (traces(agent), free_blocks(agent)) == (before, free)
    agent.launch("honest", ports=996)


@pytest.mark.native
def test_exhausted_blocks(agent: Node) -> None:
    for name in ("a", "b", "c"):
        agent.launch(name)
    before = traces(agent)
    text = "Failed to allocate ephemeral ports: Failed to allocate ephemeral ports"
    for name in ("d", "e"):
        with pytest.raises(PortsliceError, match=text):
            agent.launch(name, ports=1)
    assert traces(agent) == before
    assert {each["executor_id"] for each in agent.get("/monitor/statistics")} == {"a", "b", "c"}
    freed = agent.client.container("b")["ephemeral_ports"]
    agent.kill("b")
    again = agent.launch("f", ports="31000-31000")
    assert again["ephemeral_ports"] == freed
    assert again["ports"] == [[31000, 31000]], "a refusal keeps no ports"


# Half-way


def prefix(agent: Node) -> str:
    """What the names of this agent's links begin with."""
    agent.launch("shown")
    (name,) = (name for name in links(agent.bed) if name.startswith("ps"))
    agent.kill("shown")
    return name.rpartition("-")[0]


def test_a_link_that_is_somebody_elses_is_neither_used_nor_deleted(agent: Node) -> None:
    bed, name = agent.bed, f"{prefix(agent)}-1"
    bed.run(bed.host, "ip", "link", "add", name, "type", "veth", "peer", "name", "theirs")
    before, free = traces(agent), free_blocks(agent)
    try:
        with pytest.raises(PortsliceError, match=r"Failed to set up the link of container .*: .*File exists"):
            agent.launch("c")
        assert (traces(agent), free_blocks(agent)) == (before, free)
        shown = bed.run(bed.host, "ip", "link", "show", name).stdout
        assert "state DOWN" in shown
        assert "portslice" not in shown
    finally:
        bed.run(bed.host, "ip", "link", "delete", name)
    assert agent.launch("c")["ephemeral_ports"] == [32768, 40959]


def test_a_namespace_that_cannot_be_kept(agent: Node) -> None:
    before, free = traces(agent), free_blocks(agent)
    remount = ["mount", "-o", "remount,bind,{}", str(agent.runtime / "netns")]
    subprocess.run([word.format("ro") for word in remount], check=True)
    try:
        with pytest.raises(PortsliceError, match=r"Failed to set up the namespace of container .*: .*Read-only"):
            agent.launch("c")
    finally:
        subprocess.run([word.format("rw") for word in remount], check=True)
    assert (traces(agent), free_blocks(agent)) == (before, free)
    agent.launch("c")


def test_what_was_prepared_before_the_failure_is_taken_back(bed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last isolator fails: the cgroup that it wants to make exists."""
    container_id = uuid.uuid4()
    monkeypatch.setattr(uuid, "uuid4", lambda: container_id)
    root = f"{bed.directory.name}-taken"
    cgroups = detect(Path("/sys/fs/cgroup"), root)
    runtime = bed.directory / "run"
    options = Options(
        tag="beef",
        runtime_directory=runtime,
        ports=PortSet.parse("31000-32000"),
        ephemeral=PortSet.parse("32768-57344"),
        block=1024,
        egress=RatePolicy(),
        ingress=RatePolicy(),
        ingress_for_existing=True,
        fair_queue=None,
        with_fq_codel=False,
        statistics=Extras(),
    )
    before = links(bed)
    with namespaces.entered(bed.host):
        port_mapping = PortMapping(host.discover(), options)
        isolators: list[Isolator] = [port_mapping, CgroupsIsolator(cgroups, CONTROLLERS, quota=False)]
        containerizer = Containerizer(Directories(bed.directory / "work", runtime), isolators)
        try:
            cgroups.create(str(container_id), CONTROLLERS)
            with pytest.raises(ConflictError, match=r"The cgroup .* exists already"):
                containerizer.launch(Request(("true",), 0, 0, ports=3))
            assert containerizer.all() == []
            assert containerizer.launch_errors == 1
            assert os.listdir(runtime / "netns") == os.listdir(runtime / "journal") == []
            assert links(bed) == before
            assert port_mapping.metrics([])["port_mapping/ephemeral_blocks_free"] == 24
        finally:
            containerizer.close(release=True)
            cgroups.destroy(str(container_id))
            cgroups.remove_root()


def test_a_nic_that_vanished(bed: Testbed) -> None:
    """Its containers end, and when the host has a NIC again, everything of ours goes."""
    agent = Node(bed)
    agent.start()
    try:
        agent.launch("before")
        bed.run(bed.host, "ip", "link", "delete", NIC)
        agent.kill("before")
        assert [name for name in links(bed) if name.startswith("ps")] == []
        assert agent.stop() == 0
        assert agent.leftovers() == []
        refused = agent.agent()
        assert refused.returncode == 1
        assert "Network Isolator failed to find a public interface: does not have a public interface" in refused.stderr
    finally:
        bed.run(bed.host, "ip", "link", "add", NIC, "type", "veth", "peer", "name", "world", "netns", str(bed.world))
        for where, command in (
            (bed.host, f"ip address add 10.77.0.2/24 dev {NIC}"),
            (bed.host, f"ip link set {NIC} up"),
            (bed.host, f"ip route add default via {WORLD_ADDRESS}"),
        ):
            bed.run(where, *command.split())
        left = agent.cleanup()
    assert left == []


# At the end


def test_an_agent_leaves_nothing_when_it_has_no_containers_any_more(bed: Testbed) -> None:
    """Because they have ended, or because --recover=cleanup ends them."""
    agent = Node(bed)
    agent.start()
    agent.launch("c")
    agent.kill("c")
    assert agent.stop() == 0
    assert agent.leftovers() == []
    assert not (agent.runtime / "bpf").exists()
    assert not (agent.runtime / "netns").exists()

    agent.start()
    agent.launch("polite")
    agent.launch("stubborn", "sh", "-c", "trap '' TERM INT HUP; while :; do sleep 1; done")
    agent.crash()
    cleanup = agent.agent("--recover=cleanup")
    assert (cleanup.returncode, agent.leftovers()) == (0, []), cleanup.stderr
    assert agent.agent("--recover=cleanup").returncode == 0, "nothing to clean up is fine"


def test_a_full_disk_keeps_nobody_waiting(bed: Testbed) -> None:
    """What has ended has, whether or not that can be written down; the next agent finds out by itself."""
    journal = bed.directory / "node/run/journal"
    journal.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(journal)], check=True)
    with node(bed) as agent:
        try:
            container = agent.launch("ends", "sleep", "1000")
            with suppress(OSError), (journal / "fill").open("wb", buffering=0) as fill:
                while True:
                    fill.write(bytes(4096))
            agent.kill("ends")
            assert states(agent) == {"ends": "exited"}
            assert f"The record of container {container['id']} cannot be written: " in agent.log
            with pytest.raises(PortsliceError, match="No space left on device"):
                agent.launch("late", "true")
            assert agent.stop() == 0
            agent.start()
            until(lambda: states(agent) == {"ends": "exited"}, "end on record")
            (journal / "fill").unlink()
            agent.launch("again", "sleep", "1000")
            agent.kill("again")
        finally:
            subprocess.run(["umount", str(journal)], check=True)


def states(agent: Node) -> dict[str, str]:
    """Of all containers, by name."""
    return {each["name"]: each["state"] for each in agent.client.containers()}
