"""Three hosts, each with a server of a real ZooKeeper ensemble and a master; an agent and a framework on the third one,
which find the leading master, lose it and find the next one."""

from collections.abc import Iterator
from typing import Any

import pytest

from portslice.demo.node import Node
from portslice.engines.mesos.schema.record_pb2 import TaskRecord
from tests.kernel.waiting import until
from tests.mesos import install, zookeeper
from tests.mesos.hosts import NETWORK, Host, hosts
from tests.mesos.master import AnyMaster, Master
from tests.mesos.own import OwnMaster
from tests.mesos.program import started
from tests.mesos.zookeeper import PATH, Candidacy, ZooKeeper

pytestmark = [
    pytest.mark.native,
    pytest.mark.timeout(600),  # the first time Mesos is installed
    pytest.mark.skipif(bool(zookeeper.missing()), reason=f"not installed: {', '.join(zookeeper.missing())}"),
]


@pytest.fixture
def cluster() -> Iterator[list[Host]]:
    with hosts(3) as built:
        yield built


def _master(host: Host) -> AnyMaster:
    """A genuine one where it can be had; ours otherwise."""
    try:
        install.install()
    except install.Missing:
        credentials = host.directory / "credentials"
        credentials.write_text('{"credentials":[{"principal":"jobs","secret":"open"}]}')
        credentials.chmod(0o600)
        return OwnMaster(host, host.ip, agent_networks=NETWORK, credentials=f"file://{credentials}")
    return Master(host, host.ip)


def test_a_host_is_lost(cluster: list[Host]) -> None:
    first, second, third = cluster
    ips = [host.ip for host in cluster]
    servers = ",".join(f"{ip}:{zookeeper.PORT}" for ip in ips)
    url = f"zk://{servers}{PATH}"
    ensemble = [ZooKeeper(host, host.ip, ips) for host in cluster]
    masters = [_master(host) for host in cluster]
    for server in ensemble:
        server.start()
    for master in masters:
        master.start()
    agent = Node(third, f"--master={url}", f"--zk_session_timeout={zookeeper.SESSION_SECS}secs")

    def leader() -> Any:
        """As the agent sees it, when it is registered there."""
        hostname = agent.get("/state").get("master_hostname")
        return hostname if agent.get("/metrics/snapshot")["slave/registered"] else None

    def leads(host: Host) -> None:
        until(lambda: leader() == f"host-of-{host.ip}", "leader")

    def connected(master: AnyMaster) -> bool:
        frameworks = master.get("/frameworks")["frameworks"]
        return any(each["connected"] for each in frameworks if each["name"] == "lives")

    candidacies = [Candidacy(master, servers) for master in masters]
    try:
        agent.start()
        leads(first)
        (known,) = masters[0].agents()
        task = ("lives", "31000", "sleep 1000")
        with started(third, third.host, "pymesos", url, *task, "jobs", "open") as framework:
            assert [framework.state(), framework.state()] == ["TASK_STARTING", "TASK_RUNNING"]
            pid = agent.client.container("lives")["pid"]
            (record,) = agent.directory.glob("work/meta/slaves/latest/tasks/*/lives")
            until(lambda: TaskRecord.FromString(record.read_bytes()).acknowledged == 2, "acknowledgement")

            first.unplug()
            leads(second)
            assert "It leads no more" in agent.log
            (again,) = masters[1].agents()
            assert again["id"] == known["id"]

            first.plug()
            until(lambda: candidacies[0].over, "end of the session of the first master")
            Candidacy(masters[0], servers)  # behind the others now
            leads(second)

            for server in ensemble[:2]:
                server.stop()
            until(lambda: leader() is None, "loss of the leader")
            assert f"ZooKeeper does not answer for {zookeeper.SESSION_SECS} s" in agent.log
            assert agent.client.container("lives")["pid"] == pid
            for server in ensemble[:2]:
                server.start()
            leads(second)

            assert agent.client.container("lives")["pid"] == pid
            until(lambda: connected(masters[1]), "framework")
            framework.kill()
            assert framework.state() == "TASK_KILLED"
    finally:
        left = agent.cleanup()
    assert left == []
