"""Status updates: what a framework is told of a task, in the words of Mesos' command executor and agent."""

import signal
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
    ExecutorID,
    FrameworkID,
    FrameworkInfo,
    SlaveID,
    TaskID,
    TaskState,
    TaskStatus,
)
from portslice.engines.mesos.schema.messages_pb2 import StatusUpdate

TERMINAL = frozenset((TASK_FINISHED, TASK_FAILED, TASK_KILLED, TASK_LOST, TASK_ERROR, TASK_DROPPED))


def update(
    framework_id: FrameworkID,
    task_id: TaskID,
    slave_id: SlaveID,
    state: "TaskState",
    *,
    executor_id: ExecutorID | None = None,
    message: str = "",
    reason: "TaskStatus.Reason | None" = None,
    container: ContainerStatus | None = None,
) -> StatusUpdate:
    """A new update. What has a reason was found by the agent, what has none comes from the (imagined) executor.

    :param executor_id: without one, a command task's.
    """
    now, number = time.time(), uuid.uuid4().bytes
    executor = executor_id or ExecutorID(value=task_id.value)
    status = TaskStatus(
        task_id=task_id,
        state=state,
        slave_id=slave_id,
        executor_id=executor,
        timestamp=now,
        uuid=number,
        source=TaskStatus.SOURCE_EXECUTOR if reason is None else TaskStatus.SOURCE_SLAVE,
        reason=reason,
        message=message or None,
        container_status=container,
    )
    return StatusUpdate(
        framework_id=framework_id,
        executor_id=executor,
        slave_id=slave_id,
        status=status,
        timestamp=now,
        uuid=number,
        latest_state=state,
    )


def of_executor(
    framework_id: FrameworkID,
    slave_id: SlaveID,
    executor_id: ExecutorID,
    said: TaskStatus,
    container: ContainerStatus | None,
) -> StatusUpdate:
    """What an executor says, as an update; the agent adds who it is and where it runs."""
    status = TaskStatus()
    status.CopyFrom(said)
    status.slave_id.CopyFrom(slave_id)
    status.executor_id.CopyFrom(executor_id)
    status.source = TaskStatus.SOURCE_EXECUTOR
    status.timestamp = said.timestamp or time.time()
    status.ClearField("limitation")  # the agent's to say, and the master's
    status.ClearField("unreachable_time")
    if container is not None:
        status.container_status.CopyFrom(container)
    return StatusUpdate(
        framework_id=framework_id,
        executor_id=executor_id,
        slave_id=slave_id,
        status=status,
        timestamp=status.timestamp,
        uuid=said.uuid,
        latest_state=said.state,
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
    """How a command ended: state and message.

    :param exit_status: 0-255, 128 + n after signal n.
    :param killed: somebody wanted its end.
    """
    name = signal.strsignal(exit_status - 128) if exit_status - 128 in signal.valid_signals() else None
    how = f"terminated with signal {name}" if name else f"exited with status {exit_status}"
    failed = TASK_KILLED if killed else TASK_FAILED
    return (failed if exit_status else TASK_FINISHED), f"Command {how}"


def wait_status(exit_status: int | None) -> int:
    """The exit status of a container as wait(2) has it, and ExitedExecutorMessage; -1 if it is not known."""
    if exit_status is None:
        return -1
    number = exit_status - 128
    return number if number in signal.valid_signals() else exit_status << 8


def never_ran(frameworks: Iterable[FrameworkInfo]) -> "TaskState":
    """The state of a task that did not come to run: TASK_DROPPED to frameworks that know it (PARTITION_AWARE)."""
    knows = any(
        capability.type == FrameworkInfo.Capability.PARTITION_AWARE
        for framework in frameworks
        for capability in framework.capabilities
    )
    return TASK_DROPPED if knows else TASK_LOST
