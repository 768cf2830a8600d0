"""The agent's containers as executors and tasks of frameworks, from which /state, GET_STATE and the metrics are made.

Each container is an executor of the container's name: a client that joins executors with /monitor/statistics by
framework and executor finds every one. It has one task, a command task of the same name, unless it is an executor of a
framework's own, which has any number. What a master launched is told as the master was told of it. What no framework
has launched is, since Mesos knows no executor without one, of a framework whose id is empty.

A framework is completed when nothing of it lives here any more; an executor when its container has ended and its tasks,
too, have got their last status. Both are told of as long as the agent remembers the containers.
"""

from dataclasses import dataclass
from typing import Any

from portslice.agent.service import Agent
from portslice.containers.container import Container, State
from portslice.http.monitor import FRAMEWORK_ID
from portslice.resources import Resource

FRAMEWORK_NAME = "portslice"
ROLE = "*"
MB = 1 << 20
_TERMINAL = frozenset(
    f"TASK_{state}" for state in ("FINISHED", "FAILED", "KILLED", "LOST", "ERROR", "DROPPED", "GONE", "UNREACHABLE")
)


@dataclass(frozen=True)
class Executor:
    """A container and its tasks.

    :param tasks: `Task` of the v1 API.
    :param resources: of the executor itself, without its tasks (its `ExecutorInfo`).
    """

    container: Container
    tasks: list[dict[str, Any]]
    resources: list[dict[str, Any]]

    @property
    def ended(self) -> bool:
        return self.container.state is State.EXITED and all(each["state"] in _TERMINAL for each in self.tasks)

    @property
    def role(self) -> str:
        """To which it was allocated."""
        given = (*self.resources, *(each for task in self.tasks for each in task.get("resources", ())))
        return min((each.get("allocation_info", {}).get("role", ROLE) for each in given), default=ROLE)

    @property
    def queued(self) -> list[dict[str, Any]]:
        """Its tasks that it does not have yet."""
        return [each for each in self.tasks if each["state"] == "TASK_STAGING"]

    @property
    def launched(self) -> list[dict[str, Any]]:
        """Those that go on."""
        return [each for each in self.tasks if each["state"] not in _TERMINAL and each["state"] != "TASK_STAGING"]

    @property
    def completed(self) -> list[dict[str, Any]]:
        """Those that have ended."""
        return [each for each in self.tasks if each["state"] in _TERMINAL]


@dataclass(frozen=True)
class Framework:
    """A framework, as `FrameworkInfo` of the v1 API, and its executors."""

    info: dict[str, Any]
    executors: list[Executor]

    @property
    def completed(self) -> bool:
        own = self.info["id"]["value"] == FRAMEWORK_ID
        return not own and all(each.ended for each in self.executors)


def frameworks(agent: Agent, network_infos: list[dict[str, Any]]) -> list[Framework]:
    """All that have containers here.

    :param network_infos: the addresses of every container (`ContainerStatus`).
    """
    found: dict[str, Framework] = {}
    for container in agent.containerizer.all():
        if container.standalone:
            continue
        name = container.framework_id
        if name not in found:
            found[name] = Framework(_info(agent, name), [])
        found[name].executors.append(_executor(agent, container, network_infos))
    return list(found.values())


def task_states(agent: Agent, container: Container) -> list[str]:
    """The states of a container's tasks (Mesos' `TaskState`)."""
    known = agent.cluster.task_states(container)
    return [container.task_state] if known is None else known


def resource(given: Resource) -> dict[str, Any]:
    """As `Resource` of the v1 API, but for the role."""
    value = given.value
    if isinstance(value, float):
        return {"name": given.name, "type": "SCALAR", "scalar": {"value": value}}
    if isinstance(value, tuple):
        ranges = [{"begin": begin, "end": end} for begin, end in value]
        return {"name": given.name, "type": "RANGES", "ranges": {"range": ranges}}
    return {"name": given.name, "type": "SET", "set": {"item": sorted(value)}}


def _info(agent: Agent, framework_id: str) -> dict[str, Any]:
    known = agent.cluster.framework(framework_id) if framework_id != FRAMEWORK_ID else None
    if known is not None:
        return known
    own = framework_id == FRAMEWORK_ID
    return {
        "user": "root",
        "name": FRAMEWORK_NAME if own else framework_id,
        "id": {"value": framework_id},
        "failover_timeout": 0.0,
        "checkpoint": True,
        "role": ROLE,
        "hostname": agent.hostname if own else "",
    }


def _executor(agent: Agent, container: Container, network_infos: list[dict[str, Any]]) -> Executor:
    tasks = agent.cluster.tasks(container)
    resources = _allocated(container)
    if tasks is None:
        own = [] if container.executor is not None else [_task(agent, container, resources, network_infos)]
        return Executor(container, own, resources)
    if (info := agent.cluster.executor(container)) is not None:
        return Executor(container, tasks, info.get("resources", []))
    of_tasks = (each for task in tasks for each in task.get("resources", ()))
    scalars = {each["name"]: each["scalar"]["value"] for each in of_tasks if "scalar" in each}
    without = [
        {**each, "scalar": {"value": more}}
        for each in resources
        if "scalar" in each and (more := round(each["scalar"]["value"] - scalars.get(each["name"], 0), 3)) > 0
    ]
    return Executor(container, tasks, without)


def _task(
    agent: Agent, container: Container, resources: list[dict[str, Any]], network_infos: list[dict[str, Any]]
) -> dict[str, Any]:
    """What the container alone says."""
    task_id, agent_id = {"value": container.name}, {"value": agent.id}
    states = []
    if container.state is not State.PREPARING:
        states.append(("TASK_RUNNING", container.created))
    if container.state is State.EXITED:
        states.append((container.task_state, container.finished or container.created))
    return {
        "name": container.name,
        "task_id": task_id,
        "framework_id": {"value": container.framework_id},
        "agent_id": agent_id,
        "state": container.task_state,
        "resources": resources,
        "statuses": [
            {
                "task_id": task_id,
                "state": state,
                "agent_id": agent_id,
                "executor_id": task_id,
                "timestamp": timestamp,
                "container_status": {"container_id": {"value": container.id}, "network_infos": network_infos},
            }
            for state, timestamp in states
        ],
    }


def _allocated(container: Container) -> list[dict[str, Any]]:
    """What was asked for; ephemeral ports are not: the agent gives them. What is 0 is not there, and by Mesos'
    thousandths less than half of one is 0."""
    amounts = (
        ("cpus", container.cpus or 0),
        ("disk", (container.disk or 0) / MB),
        ("mem", (container.mem or 0) / MB),
    )
    listed = [Resource(name, float(round(amount, 3))) for name, amount in amounts if round(amount, 3)]
    if container.network is not None and container.network.ports:
        listed.append(Resource("ports", tuple((each.begin, each.end) for each in container.network.ports.ranges)))
    return [{**resource(each), "allocation_info": {"role": ROLE}} for each in listed]
