"""From a task or an executor to a container: what a TaskInfo or an ExecutorInfo asks for, as a request to the agent.

As in Mesos a *command task* gets an executor of its own, whose id, name and source follow from the task; the container
is given a tenth of a CPU and 32 MB for it besides what the task asks for. There is no such process here: the shell that
waits for the command is all there is, so the task has the whole. What a shell cannot do, checks and a time limit, needs
an executor with a process: ours (portslice.executor), which also runs task groups.

The container of an executor has what the executor and its living tasks ask for, all together.
"""

import math
import os
import pwd
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from portslice.containers.container import Request, command_executor_name
from portslice.containers.fetcher import Uri
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
from portslice.executor import command as our_command
from portslice.ports import PortRange, PortSet

EXECUTOR_CPUS = 0.1
EXECUTOR_MEM = 32  # MB
_CONTAINER = "container images and volumes (ContainerInfo)"
_WATCHED = ("health_check", "check", "max_completion_time")


def request(
    framework: FrameworkInfo, task: TaskInfo, environment: Mapping[str, str], *, switch_user: bool
) -> Request:
    """The container of a command task.

    :param environment: of the agent's, for its executors.
    :param switch_user: run as the task's user, or the framework's; otherwise as the agent.
    :raises PortsliceError: there can be no such container here, and why.
    """
    if task.HasField("container"):
        raise ContainerError(f"{_CONTAINER} are not supported yet: task '{task.task_id.value}' asks for them")
    uid, gid = _user(task.command.user or framework.user) if switch_user else (os.geteuid(), os.getegid())
    return Request(
        command=_command(task.command),
        uid=uid,
        gid=gid,
        name=task.task_id.value,
        framework_id=framework.id.value,
        cpus=round(scalar(task, "cpus") + EXECUTOR_CPUS, 3),
        mem=math.floor((scalar(task, "mem") + EXECUTOR_MEM) * (1 << 20)),
        disk=math.floor(scalar(task, "disk") * (1 << 20)) or None,
        ports=ports(task, "ports"),
        uris=tuple(map(_uri, task.command.uris)),
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
    return any(task.HasField(field) for field in _WATCHED)


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
    user = executor.command.user or framework.user
    uid, gid = _user(user) if switch_user else (os.geteuid(), os.getegid())
    has = amounts(executor, begun)
    return Request(
        command=our_command(switch_user=switch_user) if ours else _command(executor.command),
        uid=uid,
        gid=gid,
        name=executor.executor_id.value,
        framework_id=framework.id.value,
        executor=(executor.name, executor.source),
        cpus=has.cpus,
        mem=has.mem,
        disk=has.disk,
        ports=has.ports,
        uris=tuple(map(_uri, executor.command.uris)),
        environment={
            **environment,
            **_allocation_role([*executor.resources, *(each for task in begun for each in task.resources)]),
            **_environment(executor.command.environment),
        },
    )


class Amounts(NamedTuple):
    """What a container has.

    :param mem: bytes.
    :param disk: bytes; None: not limited.
    """

    cpus: float
    mem: int
    disk: int | None
    ports: PortSet


def amounts(executor: ExecutorInfo, tasks: Iterable[TaskInfo]) -> Amounts:
    """What an executor and its tasks ask for.

    :raises ParseError: that is not to be had, and why.
    """
    parts: list[TaskInfo | ExecutorInfo] = [executor, *tasks]
    cpus = math.fsum(scalar(each, "cpus") for each in parts)
    mem, disk = (math.floor(math.fsum(scalar(each, name) for each in parts) * (1 << 20)) for name in ("mem", "disk"))
    wanted = PortSet(range_ for each in parts for range_ in ports(each, "ports").ranges)
    return Amounts(max(round(cpus, 3), 0.001), mem, disk or None, wanted)


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


def _command(command: CommandInfo) -> tuple[str, ...]:
    if not command.value:
        raise ContainerError("The task has no command")
    if command.shell:
        return "sh", "-c", command.value
    return command.value, *command.arguments[1:]  # the first is the name that the program is to see


def _uri(uri: CommandInfo.URI) -> Uri:
    output_file = uri.output_file if uri.HasField("output_file") else None
    return Uri(uri.value, executable=uri.executable, extract=uri.extract, output_file=output_file)


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
