"""The life of tasks: from a master's wish to a container, and from the container's end to an update that is
acknowledged.

    run ──▶ record ──▶ launch ──▶ STARTING, RUNNING ──▶ the container ends ──▶ FINISHED, FAILED or KILLED ──▶ forget
                          └─ fails ──▶ FAILED ────────────────────────────────────────────────────────────────┘

What is over stays on record for the endpoints that tell of it, as long as the agent remembers its container.

A task is known by its framework and its own id, and so is its container: its framework and name. That is all that ties
them together, so no crash can come between. An agent that starts finds for each record the container, which lives, or
has ended and says how, or was never launched: then the task is dropped, not run, since the framework may have given it
up long ago. Tasks of frameworks that do not want checkpoints end with the agent, as in Mesos, where the master has told
the framework that they are lost; and so does a framework's container without a record, of which nobody knows.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from portslice.agent.service import Agent
from portslice.containers.container import Container, State
from portslice.containers.launcher import FetchError
from portslice.engines.mesos import commands, records, status
from portslice.engines.mesos.meta import Meta
from portslice.engines.mesos.schema.mesos_pb2 import (
    TASK_FAILED,
    TASK_KILLED,
    TASK_KILLING,
    TASK_RUNNING,
    TASK_STARTING,
    FrameworkID,
    FrameworkInfo,
    KillPolicy,
    SlaveID,
    Task,
    TaskID,
    TaskInfo,
    TaskResourceLimitation,
    TaskState,
    TaskStatus,
)
from portslice.engines.mesos.schema.messages_pb2 import ReconcileTasksMessage, StatusUpdate
from portslice.engines.mesos.schema.record_pb2 import TaskRecord
from portslice.engines.mesos.updates import Stream
from portslice.errors import NotFoundError, PortsliceError

log = logging.getLogger(__name__)

_LAUNCH_FAILED = TaskStatus.REASON_CONTAINER_LAUNCH_FAILED
_LOOK_SECS = 1.0
KILL_GRACE_SECS = 3.0  # of Mesos' command executor, where neither task nor kill has a kill policy


class _Running:
    """A task on this agent: its record and what is going on."""

    def __init__(self, record: TaskRecord, stream: Stream) -> None:
        self.record = record
        self.stream = stream
        self.container: Container | None = None
        self.grace_secs = _grace_secs(record.task.kill_policy) or KILL_GRACE_SECS
        self.abandoned = False  # nobody wants to hear of it any more

    @property
    def ended(self) -> bool:
        return records.ended(self.record)


class Tasks:
    """All tasks of all frameworks on this agent.

    :param send: sends an update to the master, or nowhere.
    :param exited: tells the master that an executor has ended.
    :param ip: the address at which others find this host, if known by now.
    """

    def __init__(
        self,
        agent: Agent,
        meta: Meta,
        *,
        send: Callable[[StatusUpdate], None],
        exited: Callable[[TaskRecord], None],
        ip: Callable[[], str | None],
        environment: Callable[[], Mapping[str, str]],
    ) -> None:
        self._agent = agent
        self._meta = meta
        self._send = send
        self._exited = exited
        self._ip = ip
        self._environment = environment
        self._tasks: dict[tuple[str, str], _Running] = {}
        self._completed: dict[tuple[str, str], tuple[TaskRecord, str]] = {}  # with the container's id
        self._at_work: set[asyncio.Task[None]] = set()

    # What the master wants

    def run(self, framework: FrameworkInfo, info: TaskInfo) -> None:
        """Launch a task."""
        if (running := self._admit(framework, info)) is not None:
            self._start(self._launch(running))

    def refuse(self, framework: FrameworkInfo, info: TaskInfo, why: str) -> None:
        """Have a task fail without a launch."""
        if (running := self._admit(framework, info)) is not None:
            self._say(running, TASK_FAILED, message=why, reason=TaskStatus.REASON_CONTAINER_LAUNCH_FAILED)

    def kill(self, framework_id: FrameworkID, task_id: TaskID, policy: KillPolicy | None = None) -> None:
        """End a task: SIGTERM, and after the grace period SIGKILL."""
        running = self._tasks.get((framework_id.value, task_id.value))
        if running is not None:
            if policy is not None:
                running.grace_secs = _grace_secs(policy) or running.grace_secs
            self._kill(running)
        elif frameworks := self._frameworks(framework_id.value):
            self._send_once(
                framework_id,
                task_id,
                status.never_ran(frameworks),
                "Cannot find executor",
                TaskStatus.REASON_EXECUTOR_TERMINATED,
            )
        else:
            log.warning("Ignoring kill task %s: framework %s has no tasks here", task_id.value, framework_id.value)

    def acknowledge(self, framework_id: FrameworkID, task_id: TaskID, uuid: bytes) -> None:
        """A framework has an update."""
        running = self._tasks.get((framework_id.value, task_id.value))
        update = running.stream.acknowledge(uuid) if running is not None else None
        if running is None or update is None:
            log.info("Ignoring an acknowledgement of task %s: its update is not on its way", task_id.value)
        elif update.status.state in status.TERMINAL:
            self._complete(running)
            self._exited(running.record)

    def update_framework(self, framework_id: FrameworkID, info: FrameworkInfo) -> None:
        """A framework has changed."""
        for running in self._of(framework_id.value):
            running.record.framework.CopyFrom(info)
            running.record.framework.id.CopyFrom(framework_id)
            self._meta.write(running.record)

    def shut_down(self, framework_id: FrameworkID) -> None:
        """A framework is gone: end its tasks, and tell nobody."""
        for running in self._of(framework_id.value):
            self._abandon(running)

    def reconcile(self, message: ReconcileTasksMessage) -> None:
        """Say of tasks that only the master knows that they are not here."""
        for each in message.statuses:
            if (message.framework_id.value, each.task_id.value) not in self._tasks:
                self._send_once(
                    message.framework_id,
                    each.task_id,
                    status.never_ran([message.framework] if message.HasField("framework") else []),
                    "Reconciliation: task unknown to the agent",
                    TaskStatus.REASON_RECONCILIATION,
                )

    # What the master is told when the agent registers again

    def tasks(self) -> list[Task]:
        """Every task whose end the framework has not acknowledged."""
        return [records.task(running.record) for running in self._tasks.values() if not running.abandoned]

    def frameworks(self) -> list[FrameworkInfo]:
        """Of these tasks."""
        told = (running.record.framework for running in self._tasks.values() if not running.abandoned)
        return list({framework.id.value: framework for framework in told}.values())

    def resend(self) -> None:
        """There is a master now: send all that is on its way."""
        for running in self._tasks.values():
            if not running.abandoned:
                running.stream.resend()

    # What is told of them; in any thread

    def of_container(self, container: Container) -> TaskRecord | None:
        """The record of the task that a container is; None: there is none any more."""
        key = container.framework_id, container.name
        running, completed = self._tasks.get(key), self._completed.get(key)
        record = running.record if running is not None else completed[0] if completed is not None else None
        return record if record is not None and record.received <= container.created else None

    def known_framework(self, framework_id: str) -> TaskRecord | None:
        """A record of a task of this framework, which has it as it was last heard of."""
        living = [running.record for running in list(self._tasks.values())]
        completed = [record for record, _ in list(self._completed.values())]
        return next((each for each in (*living, *reversed(completed)) if each.framework.id.value == framework_id), None)

    # The agent's own life

    def recover(self) -> None:
        """Go on with the tasks on record."""
        known = {(each.framework_id, each.name): each for each in self._agent.containerizer.all() if each.framework_id}
        orphans = {each.id: each for each in known.values() if each.state is State.RUNNING}
        for record in self._meta.load():
            running = self._take(record)
            container = known.get((record.framework.id.value, record.task.task_id.value))
            if container is not None and container.created < record.received:
                container = None  # of an earlier task that had this id
            if running.ended:
                running.container = container
                if running.stream.pending is None:
                    self._complete(running)
                continue
            if not record.framework.checkpoint:
                running.abandoned = True
                running.record.killed = True
            if container is not None:
                orphans.pop(container.id, None)
                self._start(self._follow(running, container))
            elif running.abandoned:
                self._complete(running)
            elif record.updates:
                self._say(
                    running, TASK_FAILED, message="Executor terminated", reason=TaskStatus.REASON_EXECUTOR_TERMINATED
                )
            else:
                self._say(
                    running,
                    status.never_ran([record.framework]),
                    message="The agent restarted before the task was launched",
                    reason=TaskStatus.REASON_SLAVE_RESTARTED,
                )
        for container in orphans.values():
            log.warning("Ending the container %s (%s), of whose task there is no record", container.id, container.name)
            self._start(self._agent.kill(container, signal.SIGKILL))

    async def end_all(self) -> None:
        """End all tasks, telling nobody, and wait for it."""
        for running in list(self._tasks.values()):
            self._abandon(running)
        while self._at_work:
            for running in list(self._tasks.values()):
                self._stop_fetching(running)
            await asyncio.wait(self._at_work, timeout=_LOOK_SECS)

    def close(self) -> None:
        """The agent stops; the containers go on."""
        for running in self._tasks.values():
            running.stream.stop()
        for work in self._at_work:
            work.cancel()

    # Inside

    def _admit(self, framework: FrameworkInfo, info: TaskInfo) -> _Running | None:
        """A new task, on record from now on."""
        key = framework.id.value, info.task_id.value
        if key in self._tasks:
            log.warning("Ignoring the task '%s' of framework %s: there is one of this id", key[1], key[0])
            return None
        running = self._take(TaskRecord(framework=framework, task=info, received=time.time()))
        self._completed.pop(key, None)
        self._meta.write(running.record)
        return running

    def _take(self, record: TaskRecord) -> _Running:
        running = _Running(record, Stream(record, self._meta.write, self._send))
        self._tasks[_key(record)] = running
        return running

    def _complete(self, running: _Running) -> None:
        """It is over, and nobody waits to hear it."""
        running.stream.stop()
        record = running.record
        self._tasks.pop(_key(record), None)
        if running.container is None:
            self._meta.forget(record)
            return
        record.acknowledged = len(record.updates)
        self._meta.write(record)
        self._completed[_key(record)] = record, running.container.id
        remembered = {each.id for each in self._agent.containerizer.all()}
        for key, (old, container_id) in list(self._completed.items()):
            if container_id not in remembered:
                del self._completed[key]
                self._meta.forget(old)

    async def _launch(self, running: _Running) -> None:
        record = running.record
        try:
            request = commands.request(
                record.framework, record.task, self._environment(), switch_user=self._agent.flags.switch_user
            )
            if ignored := commands.ports(record.task, "ephemeral_ports"):
                log.warning("Ignoring the specified ephemeral_ports '%s' for executor '%s'", ignored, request.name)
            container = await self._agent.launch(request)
        except PortsliceError as error:
            log.error("Failed to launch task %s: %s", record.task.task_id.value, error)
            if running.abandoned:
                self._complete(running)
                return
            killed = running.record.killed and isinstance(error, FetchError)
            self._say(
                running,
                TASK_KILLED if killed else TASK_FAILED,
                message=f"Failed to launch container: {error}",
                reason=TaskStatus.REASON_TASK_KILLED_DURING_LAUNCH if killed else _LAUNCH_FAILED,
            )
            return
        await self._follow(running, container)

    async def _follow(self, running: _Running, container: Container) -> None:
        """See a container to its end."""
        running.container = container
        if not running.record.updates and not running.abandoned:
            self._say(running, TASK_STARTING, TASK_RUNNING)
        if running.record.killed:
            await self._end(running, container)
        ended = await self._agent.wait(container)
        end = status.end_of(ended, killed=running.record.killed)
        self._say(running, end.state, message=end.message, reason=end.reason, limitation=end.limitation)
        if running.abandoned:
            self._complete(running)

    def _kill(self, running: _Running) -> None:
        if running.ended:
            return
        if not running.record.killed:
            running.record.killed = True
            self._meta.write(running.record)
            if running.record.updates and _has(running.record.framework, FrameworkInfo.Capability.TASK_KILLING_STATE):
                self._say(running, TASK_KILLING)
        self._stop(running)

    def _abandon(self, running: _Running) -> None:
        running.abandoned = True
        running.stream.stop()
        running.grace_secs = self._agent.flags.executor_shutdown_grace_period.seconds
        if running.ended:
            self._complete(running)
        else:
            running.record.killed = True
            self._meta.write(running.record)
            self._stop(running)

    def _stop(self, running: _Running) -> None:
        if running.container is not None:
            self._start(self._end(running, running.container))
        else:  # otherwise as soon as it is launched
            self._stop_fetching(running)

    def _stop_fetching(self, running: _Running) -> None:
        framework_id, name = _key(running.record)
        with suppress(NotFoundError):
            self._agent.containerizer.stop_fetching(self._agent.containerizer.find(name, framework_id))

    async def _end(self, running: _Running, container: Container) -> None:
        if container.state is State.RUNNING:
            await self._agent.kill(container, signal.SIGTERM, running.grace_secs)

    def _say(
        self,
        running: _Running,
        *states: "TaskState",
        message: str = "",
        reason: "TaskStatus.Reason | None" = None,
        limitation: TaskResourceLimitation | None = None,
    ) -> None:
        """Tell the framework how the task is; if it wants to hear of it no more, only the record."""
        record = running.record
        where = status.container_status(running.container, self._ip()) if running.container else None
        updates = [
            status.update(
                record.framework.id,
                record.task.task_id,
                record.task.slave_id,
                state,
                message=message,
                reason=reason,
                limitation=limitation,
                container=where,
            )
            for state in states
        ]
        self._agent.status_updates += len(updates) if reason is None else 0
        self._agent.ended.update(TaskState.Name(state) for state in states if state in status.TERMINAL)
        if running.abandoned:
            record.updates.extend(updates)
        else:
            running.stream.add(updates)

    def _send_once(
        self,
        framework_id: FrameworkID,
        task_id: TaskID,
        state: "TaskState",
        message: str,
        reason: "TaskStatus.Reason",
    ) -> None:
        """Of a task that is not here; the master asks again if it does not hear it."""
        slave_id = self._meta.slave_id or SlaveID(value="")
        self._send(status.update(framework_id, task_id, slave_id, state, message=message, reason=reason))

    def _of(self, framework_id: str) -> list[_Running]:
        return [running for key, running in self._tasks.items() if key[0] == framework_id]

    def _frameworks(self, framework_id: str) -> list[FrameworkInfo]:
        return [running.record.framework for running in self._of(framework_id)]

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._at_work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("Unexpected error: %s", error, exc_info=error)


def _key(record: TaskRecord) -> tuple[str, str]:
    return record.framework.id.value, record.task.task_id.value


def _grace_secs(policy: KillPolicy) -> float | None:
    return policy.grace_period.nanoseconds / 1e9 if policy.HasField("grace_period") else None


def _has(framework: FrameworkInfo, capability: "FrameworkInfo.Capability.Type") -> bool:
    return any(each.type == capability for each in framework.capabilities)
