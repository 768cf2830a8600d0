"""Status updates: what a framework is told of a task, in the words of Mesos' command executor and agent."""

import signal
import time
import uuid
from collections.abc import Iterable
from dataclasses import astuple
from typing import NamedTuple

from portslice.containers.container import Container
from portslice.engines.mesos.schema.mesos_pb2 import (
    TASK_DROPPED,
    TASK_ERROR,
    TASK_FAILED,
    TASK_FINISHED,
    TASK_KILLED,
    TASK_LOST,
    ContainerStatus,
    FrameworkID,
    FrameworkInfo,
    Resource,
    SlaveID,
    TaskID,
    TaskResourceLimitation,
    TaskState,
    TaskStatus,
    Value,
)
from portslice.engines.mesos.schema.messages_pb2 import StatusUpdate

_LIMITATIONS = {
    "mem": TaskStatus.REASON_CONTAINER_LIMITATION_MEMORY,
    "disk": TaskStatus.REASON_CONTAINER_LIMITATION_DISK,
}
TERMINAL = frozenset((TASK_FINISHED, TASK_FAILED, TASK_KILLED, TASK_LOST, TASK_ERROR, TASK_DROPPED))


def update(
    framework_id: FrameworkID,
    task_id: TaskID,
    slave_id: SlaveID,
    state: "TaskState",
    *,
    message: str = "",
    reason: "TaskStatus.Reason | None" = None,
    limitation: TaskResourceLimitation | None = None,
    container: ContainerStatus | None = None,
) -> StatusUpdate:
    """A new update. What has a reason was found by the agent, what has none comes from the (imagined) executor."""
    now, number = time.time(), uuid.uuid4().bytes
    status = TaskStatus(
        task_id=task_id,
        state=state,
        slave_id=slave_id,
        executor_id={"value": task_id.value},
        timestamp=now,
        uuid=number,
        source=TaskStatus.SOURCE_EXECUTOR if reason is None else TaskStatus.SOURCE_SLAVE,
        reason=reason,
        message=message or None,
        limitation=limitation,
        container_status=container,
    )
    return StatusUpdate(
        framework_id=framework_id,
        executor_id={"value": task_id.value},
        slave_id=slave_id,
        status=status,
        timestamp=now,
        uuid=number,
        latest_state=state,
    )


def container_status(container: Container, ip: str | None) -> ContainerStatus:
    """Where the task runs: with port mapping it has the host's address."""
    status = ContainerStatus(container_id={"value": container.id})
    if container.init is not None:
        status.executor_pid = container.init.pid
    if ip is not None:
        status.network_infos.add().ip_addresses.add(ip_address=ip)
    return status


class End(NamedTuple):
    """How a task ended. What has a reason was found by the agent."""

    state: "TaskState"
    message: str
    reason: "TaskStatus.Reason | None" = None
    limitation: TaskResourceLimitation | None = None


def end_of(container: Container, *, killed: bool) -> End:
    """How the task of a container ended that has ended.

    :param killed: as in `end`.
    """
    if container.limitation is not None and not killed:
        resource, amount, message = astuple(container.limitation)
        limited = Resource(name=resource, type=Value.SCALAR, scalar={"value": amount / (1 << 20)}, role="*")
        return End(TASK_FAILED, message, _LIMITATIONS[resource], TaskResourceLimitation(resources=[limited]))
    if container.exit_status is None:
        return End(TASK_FAILED, "Failed to get exit status for Command")
    return End(*end(container.exit_status, killed=killed))


def end(exit_status: int, *, killed: bool) -> tuple["TaskState", str]:
    """How a command ended: state and message.

    :param exit_status: 0-255, 128 + n after signal n.
    :param killed: somebody wanted its end.
    """
    name = signal.strsignal(exit_status - 128) if exit_status - 128 in signal.valid_signals() else None
    how = f"terminated with signal {name}" if name else f"exited with status {exit_status}"
    failed = TASK_KILLED if killed else TASK_FAILED
    return (failed if exit_status else TASK_FINISHED), f"Command {how}"


def never_ran(frameworks: Iterable[FrameworkInfo]) -> "TaskState":
    """The state of a task that did not come to run: TASK_DROPPED to frameworks that know it (PARTITION_AWARE)."""
    knows = any(
        capability.type == FrameworkInfo.Capability.PARTITION_AWARE
        for framework in frameworks
        for capability in framework.capabilities
    )
    return TASK_DROPPED if knows else TASK_LOST
