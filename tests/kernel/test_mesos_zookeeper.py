"""An agent that finds its master over a real ZooKeeper: found, lost and found again."""

import json
from typing import Any

import pytest

from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS, Testbed
from tests.kernel.waiting import until
from tests.mesos import install, zookeeper
from tests.mesos.framework import Framework, task
from tests.mesos.master import Master
from tests.mesos.zookeeper import PATH, Candidacy, ZooKeeper

CREDENTIAL = "mesos:secret"
SERVERS = f"127.0.0.1:{zookeeper.PORT}"

pytestmark = [pytest.mark.native, pytest.mark.timeout(600)]  # the first time Mesos is installed


@pytest.fixture
def masters(bed: Testbed) -> tuple[Master, Master]:
    """Two genuine masters, each of which believes that it leads."""
    try:
        install.module(install.install())
    except install.Missing as missing:
        pytest.skip(str(missing))
    first = Master(bed, HOST_ADDRESS, allocation_interval="100ms")
    second = Master(bed, "127.0.0.1", allocation_interval="100ms")
    second.directory = bed.directory / "second"
    for each in (first, second):
        each.start()
    return first, second


def _get(agent: Node, path: str) -> Any:
    url = f"http://{HOST_ADDRESS}:5051{path}"
    return json.loads(agent.bed.run(agent.bed.host, "curl", "-sS", "--fail", url).stdout)


def _candidacy(master: Master, data: str | None = None) -> Candidacy:
    return Candidacy(master, SERVERS, data=data, credential=CREDENTIAL)


@pytest.mark.skipif(bool(zookeeper.missing()), reason=f"not installed: {', '.join(zookeeper.missing())}")
def test_the_leading_master(bed: Testbed, masters: tuple[Master, Master]) -> None:
    first, second = masters
    server = ZooKeeper(bed)
    agent = Node(
        bed,
        f"--master=zk://{CREDENTIAL}@{SERVERS}{PATH}",
        f"--zk_session_timeout={zookeeper.SESSION_SECS}secs",
        "--registration_backoff_factor=10ms",
        f"--ip={HOST_ADDRESS}",
    )

    def leader() -> Any:
        hostname = _get(agent, "/state").get("master_hostname")
        return hostname if _get(agent, "/metrics/snapshot")["slave/registered"] else None

    try:
        agent.start()  # before there is anybody
        assert leader() is None
        assert agent.stop() == 0
        agent.start()
        server.start()
        nobody = _candidacy(first, "{}")
        until(lambda: f"'{nobody.node}' names no master" in agent.log, "complaint")
        one = _candidacy(first)
        nobody.withdraw()
        (known,) = until(first.agents, "agent of the first master")
        assert leader() == f"host-of-{HOST_ADDRESS}"
        framework = Framework(bed, first.address)
        framework.run(task("stays", "sleep 1000"))
        pid = agent.client.container("stays")["pid"]

        two = _candidacy(second)  # is second, so nothing changes
        one.withdraw()
        (again,) = until(second.agents, "agent of the second master")
        assert again["id"] == known["id"]
        assert leader() == "host-of-127.0.0.1"
        assert "It leads no more" in agent.log

        server.stop()  # who leads is not known then
        until(lambda: leader() is None, "loss of the leader")
        assert f"ZooKeeper does not answer for {zookeeper.SESSION_SECS} s" in agent.log
        two.withdraw()  # its session will be over, too
        server.start()
        two = _candidacy(second)
        until(lambda: leader() == "host-of-127.0.0.1", "leader")

        two.withdraw()
        until(lambda: leader() is None, "loss of the leader")
        assert agent.client.container("stays")["pid"] == pid
        assert "secret" not in agent.log
        assert "secret" not in str(_get(agent, "/flags"))
        _candidacy(first)
        until(lambda: leader() == f"host-of-{HOST_ADDRESS}", "leader")
        assert framework.reconcile("stays") == "TASK_RUNNING"
        framework.tear_down()
        until(lambda: not agent.client.containers() or agent.client.container("stays")["state"] == "exited", "end")
    finally:
        left = agent.cleanup()
    assert left == []
