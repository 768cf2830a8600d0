"""An agent of a cluster is killed at any instant, with command tasks, executors and task groups coming and going: every
task ends once for its framework, and nothing of it stays."""

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS, testbed
from portslice.engines.mesos import records
from portslice.engines.mesos.meta import Meta
from portslice.engines.mesos.schema.mesos_pb2 import TaskState
from portslice.engines.mesos.status import TERMINAL
from tests.kernel.waiting import until
from tests.mesos import own
from tests.mesos.framework import Framework, scalar, task
from tests.mesos.own import OwnMaster

pytestmark = [pytest.mark.native, pytest.mark.timeout(300)]

_ENDS = {TaskState.Name(state) for state in TERMINAL}
_PROGRAM = Path(own.__file__).with_name("executor.py")
_OWN = [scalar("cpus", 0.1), scalar("mem", 32), scalar("disk", 1)]
_ROUNDS = 3


@pytest.fixture
def cluster() -> Iterator[tuple[OwnMaster, Node]]:
    with testbed() as bed:
        master = OwnMaster(bed, HOST_ADDRESS, allocation_interval="50ms")
        resources = "--resources=cpus:64;mem:65536;disk:4096;ports:[31000-32000];ephemeral_ports:[32768-57344]"
        agent = Node(bed, f"--master={master.address}", "--registration_backoff_factor=10ms", resources)
        try:
            master.start()
            agent.start()
            until(master.agents, "agent of the master")
            yield master, agent
            master.stop()
        finally:
            left = agent.cleanup()
    assert left == []


class Churn:
    """A framework that launches all kinds of tasks and kills every other one, whatever becomes of the agent."""

    def __init__(self, framework: Framework, program: str, chance: random.Random) -> None:
        self._framework = framework
        self._program = program
        self._chance = chance
        self._stop = Event()
        self._thread = Thread(target=self._run)
        self._thread.start()
        self.tasks: list[str] = []
        self.executors: list[str] = []

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            with suppress(OSError, ValueError):
                if self._framework.has_offers:
                    self._chance.choice((self._command, self._by_executor, self._group))()
            if self.tasks and self._chance.random() < 0.15:
                with suppress(OSError, ValueError):
                    self._framework.kill(self._chance.choice(self.tasks[-5:]))

    def _command(self) -> None:
        self._framework.launch(task(self._task(), self._chance.choice(("true", "exec sleep 1000", "exit 1"))))

    def _by_executor(self) -> None:
        """Also one that is there already, or may be."""
        again = self.executors and self._chance.random() < 0.7
        executor = self._executor(self._chance.choice(self.executors[-3:]) if again else None)
        self._framework.launch(self._of_executor(executor), self._of_executor(executor))

    def _group(self) -> None:
        self._framework.launch_group(self._executor(None), self._of_executor(None), self._of_executor(None))

    def _task(self) -> str:
        self.tasks.append(f"t-{len(self.tasks)}")
        return self.tasks[-1]

    def _executor(self, name: str | None) -> dict[str, Any]:
        if name is None:
            name = f"e-{len(self.executors)}"
            self.executors.append(name)
        ids = {"executor_id": {"value": name}, "framework_id": {"value": self._framework.id}}
        return {"type": "CUSTOM", **ids, "name": name, "command": {"value": self._program}, "resources": _OWN}

    def _of_executor(self, executor: dict[str, Any] | None) -> dict[str, Any]:
        info = task(self._task(), "")
        del info["command"]
        return info if executor is None else {**info, "executor": executor}


def _ends(framework: Framework, name: str) -> list[str]:
    """All that the framework was told of the task's end, unasked."""
    return [
        each["state"]
        for each in framework.updates.get(name, [])
        if each["state"] in _ENDS and ("uuid" in each or each["reason"] != "REASON_RECONCILIATION")
    ]


def test_killed_at_any_instant_every_task_ends_once(cluster: tuple[OwnMaster, Node]) -> None:
    master, agent = cluster
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    program = f"exec python3 {shutil.copy(_PROGRAM, master.bed.directory / 'executor.py')}"
    framework = Framework(master.bed, master.address)
    churn = Churn(framework, program, random.Random(seed))
    for _ in range(_ROUNDS):
        time.sleep(chance.uniform(0.2, 3))
        agent.crash()
        agent.start()
    until(master.agents, "agent of the master")
    churn.stop()
    assert len(churn.tasks) > 10
    for name in [each for each in churn.tasks if not _ends(framework, each)]:
        framework.kill(name)
    for name in churn.executors:
        framework.shut_down(name)
    until(lambda: all(_ends(framework, name) for name in churn.tasks), "end of all tasks")
    ends = {name: _ends(framework, name) for name in churn.tasks}
    for name, each in ends.items():
        told = [tuple(one.get(word) for word in ("state", "source", "message")) for one in framework.updates[name]]
        assert len(each) == 1, (name, told)
    until(lambda: not _living(agent), "end of the executors")
    until(
        lambda: [each for each in master.get("/slaves")["slaves"] if not each["used_resources"].get("cpus")],
        "resources that are all free",
    )
    framework.tear_down()
    for path in (agent.runtime / "containers", agent.runtime / "netns"):
        assert list(path.iterdir()) == [], path
    meta = Meta(agent.directory / "work")
    until(lambda: all(each.acknowledged == len(each.updates) for each in meta.tasks()), "acknowledgements on record")
    assert all(map(records.ended, meta.tasks()))
    assert all(each.ended for each in meta.executors())
    free = agent.get("/metrics/snapshot")
    assert free["port_mapping/ephemeral_blocks_free"] == free["port_mapping/ephemeral_blocks_total"]
    assert "Unexpected error" not in agent.log + master.log
    assert "Traceback" not in agent.log + master.log
    assert agent.stop() == 0
    assert agent.leftovers() == []


def _living(agent: Node) -> list[str]:
    return [each["name"] for each in agent.client.containers() if each["state"] != "exited"]
