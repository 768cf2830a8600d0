"""From a task to a container: what a TaskInfo asks for, as a request to the agent.

As in Mesos a *command task* gets an executor of its own, whose id, name and source follow from the task; the container
is given a tenth of a CPU and 32 MB for it besides what the task asks for. There is no such process here: the shell that
waits for the command is all there is, so the task has the whole.
"""

import math
import os
import pwd
from collections.abc import Mapping

from portslice.containers.container import Request
from portslice.containers.fetcher import Uri
from portslice.engines.mesos.schema.mesos_pb2 import CommandInfo, Environment, FrameworkInfo, Resource, TaskInfo, Value
from portslice.errors import ContainerError
from portslice.ports import PortRange, PortSet

EXECUTOR_CPUS = 0.1
EXECUTOR_MEM = 32  # MB
_NOT_YET = {
    "executor": "executors of a framework's own",
    "container": "container images and volumes (ContainerInfo)",
    "health_check": "health checks",
    "check": "checks",
    "max_completion_time": "a maximum completion time",
}


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
            **_allocation_role(task),
            **_environment(task.command.environment),
        },
    )


def scalar(task: TaskInfo, name: str) -> float:
    """How much of a resource the task has, over all roles."""
    return math.fsum(each.scalar.value for each in _resources(task, name, Value.SCALAR))


def ports(task: TaskInfo, name: str) -> PortSet:
    """Which ports.

    :raises ParseError: they are none.
    """
    ranges = (range_ for each in _resources(task, name, Value.RANGES) for range_ in each.ranges.range)
    return PortSet(PortRange(range_.begin, range_.end) for range_ in ranges)


def _resources(task: TaskInfo, name: str, kind: "Value.Type") -> list[Resource]:
    return [each for each in task.resources if each.name == name and each.type == kind]


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


def _allocation_role(task: TaskInfo) -> dict[str, str]:
    roles = {each.allocation_info.role for each in task.resources if each.allocation_info.role}
    return {"MESOS_ALLOCATION_ROLE": min(roles)} if roles else {}


def _environment(environment: Environment) -> dict[str, str]:
    for variable in environment.variables:
        if variable.type != Environment.Variable.VALUE:
            raise ContainerError(f"The environment variable '{variable.name}' is a secret: there are none yet")
    return {variable.name: variable.value for variable in environment.variables}
