"""A task by its record: how it is, and as others are told of it."""

from portslice.engines.mesos import status
from portslice.engines.mesos.schema.mesos_pb2 import TASK_STAGING, ExecutorID, Task, TaskState
from portslice.engines.mesos.schema.record_pb2 import TaskRecord


def state(record: TaskRecord) -> "TaskState":
    """What its latest update says, whether or not the framework has it."""
    return record.updates[-1].status.state if record.updates else TASK_STAGING


def ended(record: TaskRecord) -> bool:
    """No other state will follow."""
    return state(record) in status.TERMINAL


def executor_id(record: TaskRecord) -> ExecutorID:
    """Of what runs it: a command task's executor has the task's id."""
    if record.HasField("executor_id"):
        return record.executor_id
    return ExecutorID(value=record.task.task_id.value)


def of_command(record: TaskRecord) -> bool:
    """Whether the framework knows of no executor: then the master is told of none."""
    return not record.task.HasField("executor") and not record.group


def task(record: TaskRecord) -> Task:
    """As the master is told of it when the agent registers again, and everybody in /state."""
    info = record.task
    shown = Task(
        name=info.name,
        task_id=info.task_id,
        framework_id=record.framework.id,
        executor_id=None if of_command(record) else record.executor_id,
        slave_id=info.slave_id,
        state=state(record),
        resources=info.resources,
        user=info.command.user or None,
    )
    for field in ("labels", "discovery", "container", "health_check", "kill_policy"):
        if info.HasField(field):
            getattr(shown, field).CopyFrom(getattr(info, field))
    _tell(shown, record)
    if record.updates:
        known = record.updates[min(record.acknowledged, len(record.updates) - 1)]
        shown.status_update_state = known.status.state
        shown.status_update_uuid = known.uuid
    return shown


def _tell(shown: Task, record: TaskRecord) -> None:
    """The last status of each state that it had in a row, without its data, as Mesos' master has it: an executor may
    send any number, and all that is told of all tasks when the agent registers again is one message."""
    for update in record.updates:
        if shown.statuses and shown.statuses[-1].state == update.status.state:
            del shown.statuses[-1]
        shown.statuses.append(update.status)
        shown.statuses[-1].ClearField("data")
