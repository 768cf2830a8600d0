"""Reconciliation: frameworks ask what has become of their tasks."""

import logging
from collections.abc import Iterable

from portslice.engines.master.cluster import Cluster
from portslice.engines.master.model import Framework
from portslice.engines.master.tasks import Tasks, known_to
from portslice.engines.mesos.schema.mesos_pb2 import (
    TASK_GONE,
    TASK_UNKNOWN,
    TASK_UNREACHABLE,
    KillPolicy,
    SlaveID,
    TaskID,
    TaskStatus,
)

log = logging.getLogger(__name__)


class Reconciliation:
    """The answers."""

    def __init__(self, cluster: Cluster, tasks: Tasks) -> None:
        self._cluster = cluster
        self._tasks = tasks

    def reconcile(self, framework: Framework, wanted: Iterable[tuple[TaskID, str | None]]) -> None:
        """Tell the states of tasks, or of all."""
        self._cluster.counted["messages_reconcile_tasks"] += 1
        tasks = list(wanted)
        for task_id, agent_id in tasks:
            self._reconcile(framework, task_id, agent_id)
        if not tasks:
            for task in framework.tasks.values():
                self._reconcile(framework, task.task_id, None)

    def _reconcile(self, framework: Framework, task_id: TaskID, agent_id: str | None) -> None:
        task = framework.tasks.get(task_id.value)
        if task is not None:
            state, slave_id, message = task.state, task.slave_id, "Reconciliation: Latest task state"
        elif (agent_id in self._cluster.recovered) if agent_id else self._cluster.recovered:
            return  # its agent may still tell
        else:
            state = TASK_GONE if agent_id in self._cluster.agents else TASK_UNKNOWN
            state = TASK_UNREACHABLE if agent_id in self._cluster.unreachable else state
            state, slave_id = known_to(framework, state), SlaveID(value=agent_id or "")
            message = "Reconciliation: Task is unknown"
        self._tasks.say(framework, task_id, slave_id, state, message, TaskStatus.REASON_RECONCILIATION, task)

    def kill(self, framework: Framework, task_id: TaskID, policy: KillPolicy | None) -> None:
        """End a task; the framework hears what has become of one that is unknown."""
        self._cluster.counted["messages_kill_task"] += 1
        if (task := framework.tasks.get(task_id.value)) is not None:
            self._tasks.kill(task, policy)
        else:
            log.warning("Framework %s kills an unknown task, %s", framework.id, task_id.value[:100])
            self._reconcile(framework, task_id, None)
