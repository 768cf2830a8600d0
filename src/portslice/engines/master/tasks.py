"""Tasks once they are launched: what becomes of them, for their frameworks.

An update reaches the framework only through the agent, which repeats it until it is acknowledged; the task is kept
until its framework has acknowledged the last one. What the master says itself of a task nobody acknowledges.
"""

import logging
import time

from portslice.engines.master.cluster import Cluster
from portslice.engines.master.model import OVER, Agent, Framework
from portslice.engines.master.offers import Offers
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.schema.mesos_pb2 import (
    TASK_DROPPED,
    TASK_GONE,
    TASK_LOST,
    TASK_UNKNOWN,
    TASK_UNREACHABLE,
    FrameworkInfo,
    KillPolicy,
    SlaveID,
    Task,
    TaskID,
    TaskState,
    TaskStatus,
)
from portslice.engines.mesos.v1 import to_json

log = logging.getLogger(__name__)

_OF_PARTITIONS = {TASK_DROPPED, TASK_GONE, TASK_UNKNOWN, TASK_UNREACHABLE}


class Tasks:
    """All tasks of a cluster."""

    def __init__(self, cluster: Cluster, offers: Offers) -> None:
        self._cluster = cluster
        self._offers = offers

    def put(self, framework: Framework, agent: Agent, task: Task) -> None:
        """There is this one now, or it is back."""
        task_id = task.task_id.value
        new = task_id not in framework.tasks
        agent.tasks[framework.id, task_id] = framework.tasks[task_id] = task
        if new:
            self._cluster.happened("TASK_ADDED", task)

    def updated(self, agent: Agent, update: messages.StatusUpdate) -> None:
        """A task's state, for its framework."""
        self._cluster.counted["messages_status_update"] += 1
        framework = self._cluster.frameworks.get(update.framework_id.value)
        if framework is None or update.slave_id.value != agent.id:
            self._cluster.counted["invalid_status_updates"] += 1
            log.warning("Ignoring a status update of task %s of no framework here", update.status.task_id.value[:100])
            return
        self._cluster.counted["valid_status_updates"] += 1
        status = TaskStatus()
        status.CopyFrom(update.status)
        status.slave_id.value = agent.id
        status.uuid = update.uuid
        task = agent.tasks.get((framework.id, status.task_id.value))
        if task is not None:
            latest = update.latest_state if update.HasField("latest_state") else status.state
            if latest in OVER and task.state not in OVER:
                self._cluster.counted[f"tasks_{_short(latest)}"] += 1
            task.state = latest
            task.status_update_state = status.state
            task.status_update_uuid = update.uuid
            _remember(task, status)
            self._cluster.happened("TASK_UPDATED", (task, status))
            if latest in OVER:
                self._offers.soon()
        framework.tell("UPDATE", update={"status": to_json(status)})

    def acknowledge(self, framework: Framework, agent_id: str, task_id: TaskID, uuid: bytes) -> None:
        """It has an update."""
        self._cluster.counted["messages_status_update_acknowledgement"] += 1
        agent = self._cluster.agents.get(agent_id)
        if agent is None:
            self._cluster.counted["invalid_status_update_acknowledgements"] += 1
            return
        self._cluster.counted["valid_status_update_acknowledgements"] += 1
        task = agent.tasks.get((framework.id, task_id.value))
        if task is not None and task.status_update_uuid == uuid and task.status_update_state in OVER:
            self.forget(task)
        agent.send(
            messages.StatusUpdateAcknowledgementMessage(
                slave_id={"value": agent_id}, framework_id={"value": framework.id}, task_id=task_id, uuid=uuid
            )
        )

    def kill(self, task: Task, policy: KillPolicy | None) -> None:
        """End one; an agent that is not connected, or dies before it hears it, is told when it is back."""
        if (agent := self._cluster.agents.get(task.slave_id.value)) is not None:
            kill = messages.KillTaskMessage(framework_id=task.framework_id, task_id=task.task_id, kill_policy=policy)
            agent.kills[task.framework_id.value, task.task_id.value] = kill
            agent.send(kill)

    def lose(self, task: Task, state: "TaskState", message: str, reason: "TaskStatus.Reason") -> None:
        """Its agent has gone, or may have; or its framework has."""
        framework = self._cluster.frameworks.get(task.framework_id.value)
        if task.state not in OVER:
            task.state = known_to(framework, state)
            if framework is not None:
                status = self.say(framework, task.task_id, task.slave_id, task.state, message, reason)
                self._cluster.happened("TASK_UPDATED", (task, status))
        self.forget(task)

    def say(
        self,
        framework: Framework,
        task_id: TaskID,
        slave_id: SlaveID,
        state: "TaskState",
        message: str,
        reason: "TaskStatus.Reason",
        task: Task | None = None,
    ) -> TaskStatus:
        """The master's own word on a task, which nobody acknowledges."""
        status = TaskStatus(
            task_id=task_id,
            state=state,
            message=message,
            source=TaskStatus.SOURCE_MASTER,
            reason=reason,
            timestamp=time.time(),
        )
        if slave_id.value:
            status.slave_id.CopyFrom(slave_id)
        if task is not None and task.statuses and task.statuses[-1].HasField("container_status"):
            status.container_status.CopyFrom(task.statuses[-1].container_status)
        framework.tell("UPDATE", update={"status": to_json(status)})
        return status

    def forget(self, task: Task) -> None:
        """It is over, and its framework knows; it is still shown."""
        framework_id, task_id = task.framework_id.value, task.task_id.value
        agent = self._cluster.agents.get(task.slave_id.value)
        if agent is not None:
            agent.tasks.pop((framework_id, task_id), None)
            agent.kills.pop((framework_id, task_id), None)
        framework = self._cluster.frameworks.get(framework_id)
        if framework is not None and framework.tasks.pop(task_id, None) is not None:
            framework.completed.append(task)


def _remember(task: Task, status: TaskStatus) -> None:
    """The last status of each state that it had in a row, without its data: as in Mesos, an executor may send any
    number."""
    if any(each.uuid == status.uuid for each in task.statuses):
        return
    if task.statuses and task.statuses[-1].state == status.state:
        del task.statuses[-1]
    task.statuses.append(status)
    task.statuses[-1].ClearField("data")


def known_to(framework: Framework | None, state: "TaskState") -> "TaskState":
    """Frameworks that do not know of partitions hear TASK_LOST instead."""
    aware = framework is not None and framework.has(FrameworkInfo.Capability.PARTITION_AWARE)
    return TASK_LOST if state in _OF_PARTITIONS and not aware else state


def _short(state: "TaskState") -> str:
    return TaskState.Name(state).removeprefix("TASK_").lower()
