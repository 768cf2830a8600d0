"""May a task be launched on an offer? Mesos' checks and texts (master/validation.cpp), as far as they apply."""

from portslice.engines.master.bundle import Bundle
from portslice.engines.master.model import Agent, Framework
from portslice.engines.mesos.meta import checked_id
from portslice.engines.mesos.schema.mesos_pb2 import TASK_STAGING, FrameworkID, Task, TaskInfo
from portslice.errors import ParseError


def allocate(info: TaskInfo, role: str) -> None:
    """Its resources belong to the role that the offer was for."""
    for each in info.resources:
        if not each.allocation_info.role:
            each.allocation_info.role = role


def check(info: TaskInfo, framework: Framework, agent: Agent, left: Bundle) -> Bundle:
    """What it takes of what is left of the offer.

    :raises ParseError: it may not be launched, and why.
    """
    task_id = info.task_id.value
    try:
        checked_id(task_id)
    except ParseError:
        raise ParseError(f"TaskID '{task_id[:100]}' contains invalid characters") from None
    if task_id in framework.tasks:
        raise ParseError(f"Task has duplicate ID: {task_id}")
    if info.slave_id.value != agent.id:
        raise ParseError(f"Task uses invalid agent {info.slave_id.value[:100]} while agent {agent.id} is expected")
    if info.HasField("executor"):
        raise ParseError("Executors of a framework's own are not supported by this master: give the task a 'command'")
    if not info.HasField("command"):
        raise ParseError("Task should have at least one (but not both) of CommandInfo or ExecutorInfo present")
    try:
        takes = Bundle.of(info.resources)
    except ParseError as error:
        raise ParseError(f"Task uses invalid resources: {error}") from None
    if any(resource.name == "ephemeral_ports" for resource in info.resources):
        raise ParseError("Task uses invalid resources: ephemeral_ports are given by the agent")
    if not takes.amounts:
        raise ParseError("Task uses no resources")
    if not takes <= left:
        raise ParseError(
            f"Total resources {takes} required by task and its executor is more than available {left}"
        )
    return takes


def new_task(info: TaskInfo, framework_id: str) -> Task:
    """As the master keeps it."""
    task = Task(
        name=info.name,
        task_id=info.task_id,
        framework_id=FrameworkID(value=framework_id),
        slave_id=info.slave_id,
        state=TASK_STAGING,
        resources=info.resources,
        user=info.command.user or None,
    )
    for field in ("labels", "discovery", "kill_policy"):
        if info.HasField(field):
            getattr(task, field).CopyFrom(getattr(info, field))
    return task
