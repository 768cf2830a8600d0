"""Status updates: what a framework is told of a task, in the words of Mesos' command executor and agent."""

import time
import uuid
from collections.abc import Iterable

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
    SlaveID,
    TaskID,
    TaskState,
    TaskStatus,
)
from portslice.engines.mesos.schema.messages_pb2 import StatusUpdate
from portslice.executor.ending import ended

_ENDS = {TaskState.Name(state): state for state in (TASK_FINISHED, TASK_FAILED, TASK_KILLED)}
TERMINAL = frozenset((TASK_FINISHED, TASK_FAILED, TASK_KILLED, TASK_LOST, TASK_ERROR, TASK_DROPPED))


def update(
    framework_id: FrameworkID,
    task_id: TaskID,
    slave_id: SlaveID,
    state: "TaskState",
    *,
    message: str = "",
    reason: "TaskStatus.Reason | None" = None,
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


def end(exit_status: int, *, killed: bool) -> tuple["TaskState", str]:
    """How a command ended: state and message; see `ended`."""
    state, message = ended(exit_status, killed=killed)
    return _ENDS[state], message


def never_ran(frameworks: Iterable[FrameworkInfo]) -> "TaskState":
    """The state of a task that did not come to run: TASK_DROPPED to frameworks that know it (PARTITION_AWARE)."""
    knows = any(
        capability.type == FrameworkInfo.Capability.PARTITION_AWARE
        for framework in frameworks
        for capability in framework.capabilities
    )
    return TASK_DROPPED if knows else TASK_LOST
