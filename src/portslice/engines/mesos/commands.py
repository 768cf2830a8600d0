"""From a task or an executor to a container: what a TaskInfo or an ExecutorInfo asks for, as a request to the agent.

As in Mesos a *command task* gets an executor of its own, whose id, name and source follow from the task; the container
is given a tenth of a CPU and 32 MB for it besides what the task asks for. There is no such process here: the shell that
waits for the command is all there is, so the task has the whole. What a shell cannot do, checks and a time limit, needs
an executor with a process: ours (portslice.executor), which also runs task groups.

The container of an executor has what the executor and its living tasks ask for, all together.
"""

import importlib
import math
import os
import pwd
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import NamedTuple

from portslice.containers.container import Request, command_executor_name
from portslice.engines.mesos.schema.mesos_pb2 import (
    CommandInfo,
    Environment,
    ExecutorInfo,
    FrameworkInfo,
    Resource,
    TaskInfo,
    Value,
)
from portslice.errors import ContainerError
from portslice.ports import PortRange, PortSet

EXECUTOR_CPUS = 0.1
EXECUTOR_MEM = 32  # MB
_CONTAINER = "container images and volumes (ContainerInfo)"
_CHECKS = {"health_check": "health checks", "check": "checks", "max_completion_time": "a maximum completion time"}
_NOT_YET = {"container": _CONTAINER, **_CHECKS}
_PROGRAM = "portslice.executor"


def request(
    framework: FrameworkInfo, task: TaskInfo, environment: Mapping[str, str], *, switch_user: bool
) -> Request:
    """The container of a command task.

    :param environment: of the agent's, for its executors.
    :param switch_user: run as the task's user, or the framework's; otherwise as the agent.
    :raises PortsliceError: there can be no such container here, and why.
    """
    for field, what in _NOT_YET.items():
        if task.HasField(field):
            raise ContainerError(f"{what} are not supported yet: task '{task.task_id.value}' asks for them")
    if task.command.uris:
        raise ContainerError("URIs are not fetched yet: have what the command needs on the host")
    uid, gid = _user(task.command.user or framework.user) if switch_user else (os.geteuid(), os.getegid())
    return Request(
        command=_command(task.command),
        uid=uid,
        gid=gid,
        name=task.task_id.value,
        framework_id=framework.id.value,
        cpus=round(scalar(task, "cpus") + EXECUTOR_CPUS, 3),
        mem=math.floor((scalar(task, "mem") + EXECUTOR_MEM) * (1 << 20)),
        ports=ports(task, "ports"),
        environment={
            **environment,
            "MESOS_FRAMEWORK_ID": framework.id.value,
            "MESOS_SLAVE_ID": task.slave_id.value,
            "MESOS_CHECKPOINT": "1" if framework.checkpoint else "0",
            **_allocation_role(task.resources),
            **_environment(task.command.environment),
        },
    )


def needs_process(task: TaskInfo) -> bool:
    """Whether a command task is one for our executor."""
    return any(task.HasField(field) for field in _CHECKS) and find_spec(_PROGRAM) is not None


def imagined(framework: FrameworkInfo, task: TaskInfo) -> ExecutorInfo:
    """The executor of a command task (slave.cpp, `Slave::getExecutorInfo`).

    :raises ContainerError: there is nothing to be run.
    """
    own = (("cpus", EXECUTOR_CPUS), ("mem", EXECUTOR_MEM))
    role = _allocation_role(task.resources).get("MESOS_ALLOCATION_ROLE")
    return ExecutorInfo(
        executor_id={"value": task.task_id.value},
        framework_id=framework.id,
        name=command_executor_name(task.task_id.value, _command(task.command)),
        source=task.task_id.value,
        command=CommandInfo(
            uris=task.command.uris, environment=task.command.environment, user=task.command.user or None
        ),
        resources=[
            Resource(
                name=name,
                type=Value.SCALAR,
                scalar={"value": value},
                allocation_info=Resource.AllocationInfo(role=role) if role else None,
            )
            for name, value in own
        ],
        shutdown_grace_period=task.kill_policy.grace_period if task.kill_policy.HasField("grace_period") else None,
        labels=task.labels if task.HasField("labels") else None,
        discovery=task.discovery if task.HasField("discovery") else None,
    )


def executor_request(
    framework: FrameworkInfo,
    executor: ExecutorInfo,
    tasks: Iterable[TaskInfo],
    environment: Mapping[str, str],
    *,
    ours: bool,
    switch_user: bool,
) -> Request:
    """The container of an executor.

    :param tasks: those that it begins with.
    :param environment: of the agent's, for its executors.
    :param ours: what runs there is our executor, whatever the command.
    :param switch_user: as in `request`.
    :raises PortsliceError: there can be no such container here, and why.
    """
    begun = list(tasks)
    if executor.HasField("container") or (ours and any(task.HasField("container") for task in begun)):
        raise ContainerError(f"{_CONTAINER} are not supported yet: executor '{executor.executor_id.value}' has some")
    if executor.command.uris:
        raise ContainerError("URIs are not fetched yet: have what the executor needs on the host")
    user = executor.command.user or framework.user
    uid, gid = _user(user) if switch_user else (os.geteuid(), os.getegid())
    has = amounts(executor, begun)
    return Request(
        command=_our_executor() if ours else _command(executor.command),
        uid=uid,
        gid=gid,
        name=executor.executor_id.value,
        framework_id=framework.id.value,
        executor=(executor.name, executor.source),
        cpus=has.cpus,
        mem=has.mem,
        ports=has.ports,
        environment={
            **environment,
            **_allocation_role([*executor.resources, *(each for task in begun for each in task.resources)]),
            **_environment(executor.command.environment),
        },
    )


class Amounts(NamedTuple):
    """What a container has.

    :param mem: bytes.
    """

    cpus: float
    mem: int
    ports: PortSet


def amounts(executor: ExecutorInfo, tasks: Iterable[TaskInfo]) -> Amounts:
    """What an executor and its tasks ask for.

    :raises ParseError: that is not to be had, and why.
    """
    parts: list[TaskInfo | ExecutorInfo] = [executor, *tasks]
    cpus, mem = (math.fsum(scalar(each, name) for each in parts) for name in ("cpus", "mem"))
    wanted = PortSet(range_ for each in parts for range_ in ports(each, "ports").ranges)
    return Amounts(max(round(cpus, 3), 0.001), math.floor(mem * (1 << 20)), wanted)


def scalar(asking: TaskInfo | ExecutorInfo, name: str) -> float:
    """How much of a resource it has, over all roles."""
    return math.fsum(each.scalar.value for each in _resources(asking, name, Value.SCALAR))


def ports(asking: TaskInfo | ExecutorInfo, name: str) -> PortSet:
    """Which ports.

    :raises ParseError: they are none.
    """
    ranges = (range_ for each in _resources(asking, name, Value.RANGES) for range_ in each.ranges.range)
    return PortSet(PortRange(range_.begin, range_.end) for range_ in ranges)


def _resources(asking: TaskInfo | ExecutorInfo, name: str, kind: "Value.Type") -> list[Resource]:
    return [each for each in asking.resources if each.name == name and each.type == kind]


def _our_executor() -> tuple[str, ...]:
    if find_spec(_PROGRAM) is None:
        raise ContainerError("Task groups and checks need the default executor, which is not part of this installation")
    command: tuple[str, ...] = importlib.import_module(_PROGRAM).command()
    return command


def _command(command: CommandInfo) -> tuple[str, ...]:
    if not command.value:
        raise ContainerError("The task has no command")
    if command.shell:
        return "sh", "-c", command.value
    return command.value, *command.arguments[1:]  # the first is the name that the program is to see


def _user(name: str) -> tuple[int, int]:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ContainerError(f"There is no user '{name}' on this host") from None
    return entry.pw_uid, entry.pw_gid


def _allocation_role(resources: Iterable[Resource]) -> dict[str, str]:
    roles = {each.allocation_info.role for each in resources if each.allocation_info.role}
    return {"MESOS_ALLOCATION_ROLE": min(roles)} if roles else {}


def _environment(environment: Environment) -> dict[str, str]:
    for variable in environment.variables:
        if variable.type != Environment.Variable.VALUE:
            raise ContainerError(f"The environment variable '{variable.name}' is a secret: there are none yet")
    return {variable.name: variable.value for variable in environment.variables}
