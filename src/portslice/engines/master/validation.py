"""May a task be launched on an offer? Mesos' checks and texts (master/validation.cpp), as far as they apply."""

from collections.abc import Sequence

from portslice.engines.master.bundle import Bundle
from portslice.engines.master.model import Agent, Framework
from portslice.engines.mesos.meta import checked_id
from portslice.engines.mesos.schema.mesos_pb2 import TASK_STAGING, ExecutorInfo, FrameworkID, Task, TaskInfo
from portslice.errors import ParseError

_MIN_CPUS, _MIN_MEM = 0.01, 32


def allocate(info: TaskInfo | ExecutorInfo, role: str) -> None:
    """Its resources belong to the role that the offer was for."""
    for each in info.resources:
        if not each.allocation_info.role:
            each.allocation_info.role = role


def check(info: TaskInfo, framework: Framework, agent: Agent, left: Bundle) -> Bundle:
    """What a task, with its executor if that is new, takes of what is left of the offer.

    :raises ParseError: it may not be launched, and why.
    """
    _check_ids(info, framework, agent)
    if info.HasField("executor") == info.HasField("command"):
        raise ParseError("Task should have at least one (but not both) of CommandInfo or ExecutorInfo present")
    parts = [_resources(info, "Task")]
    if info.HasField("executor"):
        if info.executor.HasField("type") and info.executor.type != ExecutorInfo.CUSTOM:
            raise ParseError("'ExecutorInfo.type' must be 'CUSTOM'")
        if not info.executor.HasField("command"):
            raise ParseError("'ExecutorInfo.command' must be set")
        parts.append(_executor(info.executor, framework, agent))
    return _total(parts, left, "task and its executor is")


def check_group(
    tasks: Sequence[TaskInfo], executor: ExecutorInfo, framework: Framework, agent: Agent, left: Bundle
) -> Bundle:
    """What the tasks of a group, with their executor if that is new, take of what is left of the offer.

    :raises ParseError: they may not be launched, and why.
    """
    name = executor.executor_id.value[:100]
    if not executor.HasField("type"):
        raise ParseError("'ExecutorInfo.type' must be set")
    if not executor.HasField("framework_id"):
        raise ParseError("'ExecutorInfo.framework_id' must be set")
    if executor.type == ExecutorInfo.DEFAULT and executor.HasField("command"):
        raise ParseError("'ExecutorInfo.command' must not be set for 'DEFAULT' executor")
    if executor.type != ExecutorInfo.DEFAULT and not executor.HasField("command"):
        raise ParseError("'ExecutorInfo.command' must be set for 'CUSTOM' executor")
    parts = [_executor(executor, framework, agent)]
    _check_least(name, _resources(executor, "Executor", some=False))
    if len({each.task_id.value for each in tasks}) < len(tasks):
        raise ParseError("Task has duplicate ID: a task group may not name two tasks alike")
    for each in tasks:
        _check_ids(each, framework, agent)
        if each.HasField("executor") and each.executor != executor:
            raise ParseError(f"The `ExecutorInfo` of task '{each.task_id.value}' is different from executor '{name}'")
        parts.append(_resources(each, "Task"))
    return _total(parts, left, "task group and its executor are")


def new_task(info: TaskInfo, framework_id: str) -> Task:
    """As the master keeps it."""
    command = info.executor.command if info.HasField("executor") else info.command
    task = Task(
        name=info.name,
        task_id=info.task_id,
        framework_id=FrameworkID(value=framework_id),
        executor_id=info.executor.executor_id if info.HasField("executor") else None,
        slave_id=info.slave_id,
        state=TASK_STAGING,
        resources=info.resources,
        user=command.user or None,
    )
    for field in ("labels", "discovery", "kill_policy"):
        if info.HasField(field):
            getattr(task, field).CopyFrom(getattr(info, field))
    return task


def _check_ids(info: TaskInfo, framework: Framework, agent: Agent) -> None:
    task_id = info.task_id.value
    try:
        checked_id(task_id)
    except ParseError:
        raise ParseError(f"TaskID '{task_id[:100]}' contains invalid characters") from None
    if task_id in framework.tasks:
        raise ParseError(f"Task has duplicate ID: {task_id}")
    if info.slave_id.value != agent.id:
        raise ParseError(f"Task uses invalid agent {info.slave_id.value[:100]} while agent {agent.id} is expected")


def _executor(info: ExecutorInfo, framework: Framework, agent: Agent) -> Bundle:
    """What an executor takes: nothing if the agent has it already."""
    try:
        executor_id = checked_id(info.executor_id.value)
    except ParseError:
        raise ParseError(f"'{info.executor_id.value[:100]}' contains invalid characters") from None
    if info.framework_id.value != framework.id:
        raise ParseError(
            f"ExecutorInfo has an invalid FrameworkID (Actual: {info.framework_id.value[:100]} vs Expected: "
            f"{framework.id})"
        )
    takes = _resources(info, "Executor", some=False)
    known = agent.executors.get((framework.id, executor_id))
    if known is None:
        return takes
    if not _is_same(known, info):
        line = "-" * 60
        raise ParseError(
            "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID.\n"
            f"{line}\nExisting ExecutorInfo:\n{known}\n{line}\nExecutorInfo:\n{info}\n{line}\n"
        )
    return Bundle()


def _is_same(one: ExecutorInfo, other: ExecutorInfo) -> bool:
    """An agent may tell of the same resources in other words."""
    found = []
    for each in (one, other):
        rest = ExecutorInfo()
        rest.CopyFrom(each)
        rest.ClearField("resources")
        found.append((rest, Bundle.of(each.resources)))
    return found[0] == found[1]


def _check_least(name: str, has: Bundle) -> None:
    """Mesos wants this of a task group's executor; of another one it only warns."""
    for scalar, what, least, unit in (("cpus", "CPUs", _MIN_CPUS, ""), ("mem", "memory", _MIN_MEM, "MB")):
        amount = has.scalar(scalar)
        if amount < least:
            given = f"{amount:g}{unit}" if amount else "None"
            raise ParseError(
                f"Executor '{name}' uses less {what} ({given}) than the minimum required ({least:g}{unit})"
            )
    if not has.scalar("disk"):
        raise ParseError(f"Executor '{name}' uses no disk")


def _total(parts: Sequence[Bundle], left: Bundle, whose: str) -> Bundle:
    """The sum; no two may have the same port."""
    total, rest, fit = Bundle(), left, True
    for each in parts:
        fit = fit and each <= rest
        total, rest = total + each, rest - each
    if not fit:
        raise ParseError(f"Total resources {total} required by {whose} more than available {left}")
    return total


def _resources(holder: TaskInfo | ExecutorInfo, what: str, *, some: bool = True) -> Bundle:
    try:
        takes = Bundle.of(holder.resources)
    except ParseError as error:
        raise ParseError(f"{what} uses invalid resources: {error}") from None
    if any(resource.name == "ephemeral_ports" for resource in holder.resources):
        raise ParseError(f"{what} uses invalid resources: ephemeral_ports are given by the agent")
    if some and not takes.amounts:
        raise ParseError(f"{what} uses no resources")
    return takes
