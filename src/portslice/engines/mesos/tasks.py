"""The life of tasks: from a master's wish to a container, and from the container's end to an update that is
acknowledged.

    run ──▶ record ──▶ launch ──▶ STARTING, RUNNING ──▶ the container ends ──▶ FINISHED, FAILED or KILLED ──▶ forget
                          └─ fails ──▶ FAILED ────────────────────────────────────────────────────────────────┘

This is how it goes with command tasks, each of which has a container of its own, whose executor is only imagined. Those
of an executor with a process are `executors`' affair. Both kinds are in the `ledger`.

A task is known by its framework and its own id, and so is its container: its framework and name. That is all that ties
them together, so no crash can come between. An agent that starts finds for each record the container, which lives, or
has ended and says how, or was never launched: then the task is dropped, not run, since the framework may have given it
up long ago. Tasks of frameworks that do not want checkpoints end with the agent, as in Mesos, where the master has told
the framework that they are lost; and so does a framework's container without a record, of which nobody knows.
"""

import logging
import signal
from collections.abc import Callable, Mapping

from portslice.agent.service import Agent
from portslice.background import Background
from portslice.containers.container import Container, State
from portslice.containers.launcher import FetchError
from portslice.engines.mesos import commands, status
from portslice.engines.mesos.executors import Executors
from portslice.engines.mesos.ledger import Entry, Key, Ledger
from portslice.engines.mesos.meta import Meta
from portslice.engines.mesos.schema.mesos_pb2 import (
    TASK_FAILED,
    TASK_KILLED,
    TASK_KILLING,
    TASK_RUNNING,
    TASK_STARTING,
    ExecutorID,
    ExecutorInfo,
    FrameworkID,
    FrameworkInfo,
    KillPolicy,
    Task,
    TaskGroupInfo,
    TaskID,
    TaskInfo,
    TaskStatus,
)
from portslice.engines.mesos.schema.messages_pb2 import ExitedExecutorMessage, ReconcileTasksMessage, StatusUpdate
from portslice.errors import PortsliceError

log = logging.getLogger(__name__)

_LAUNCH_FAILED = TaskStatus.REASON_CONTAINER_LAUNCH_FAILED
KILL_GRACE_SECS = 3.0  # of Mesos' command executor, where neither task nor kill has a kill policy


class Tasks:
    """All tasks of all frameworks on this agent.

    :param send: sends an update to the master, or nowhere.
    :param exited: tells the master that an executor has ended.
    :param ip: the address at which others find this host, if known by now.
    :param environment: of the agent's, for its executors.
    """

    def __init__(
        self,
        agent: Agent,
        meta: Meta,
        *,
        send: Callable[[StatusUpdate], None],
        exited: Callable[[ExitedExecutorMessage], None],
        ip: Callable[[], str | None],
        environment: Callable[[], Mapping[str, str]],
    ) -> None:
        self._agent = agent
        self._meta = meta
        self._exited = exited
        self._environment = environment
        self.ledger = Ledger(agent, meta, send=send, ip=ip)
        self.executors = Executors(agent, meta, self.ledger, environment=environment, exited=exited)
        self.recovered = False
        self._background = Background()

    # What the master wants

    def run(self, framework: FrameworkInfo, info: TaskInfo, *, launch_executor: bool = True) -> None:
        """Launch a task.

        :param launch_executor: its executor is to be launched if there is none.
        """
        if info.HasField("executor"):
            self.executors.run(framework, info.executor, [info], launch=launch_executor)
        elif commands.needs_process(info):
            self._run_by_process(framework, info)
        elif (entry := self.ledger.admit(framework, info)) is not None:
            self._background.start(self._launch(entry))

    def _run_by_process(self, framework: FrameworkInfo, info: TaskInfo) -> None:
        try:
            executor = commands.imagined(framework, info)
        except PortsliceError as error:
            self._fail(framework, info, f"Failed to launch container: {error}")
        else:
            self.executors.run(framework, executor, [info], command=True)

    def _fail(self, framework: FrameworkInfo, info: TaskInfo, why: str) -> None:
        if (entry := self.ledger.admit(framework, info)) is not None:
            self.ledger.say(entry, TASK_FAILED, message=why, reason=TaskStatus.REASON_CONTAINER_LAUNCH_FAILED)

    def run_group(
        self, framework: FrameworkInfo, executor: ExecutorInfo, group: TaskGroupInfo, *, launch_executor: bool = True
    ) -> None:
        """Launch a task group."""
        self.executors.run(framework, executor, group.tasks, group=True, launch=launch_executor)

    def kill(self, framework_id: FrameworkID, task_id: TaskID, policy: KillPolicy | None = None) -> None:
        """End a task: a command task by SIGTERM, and after the grace period SIGKILL."""
        entry = self.ledger.find(framework_id, task_id)
        if entry is not None and entry.has_process:
            self.executors.kill(entry, policy)
        elif entry is not None:
            self._kill(entry, policy)
        elif frameworks := self.ledger.frameworks_of(framework_id.value):
            self.ledger.send_once(
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
        entry = self.ledger.find(framework_id, task_id)
        update = entry.stream.acknowledge(uuid) if entry is not None else None
        if entry is None or update is None:
            log.info("Ignoring an acknowledgement of task %s: its update is not on its way", task_id.value)
        elif update.status.state in status.TERMINAL:
            self.ledger.complete(entry)
            if not entry.has_process:
                self._exited(
                    ExitedExecutorMessage(
                        slave_id=entry.record.task.slave_id,
                        framework_id=framework_id,
                        executor_id={"value": task_id.value},
                        status=0,
                    )
                )

    def shut_down_executor(self, framework_id: FrameworkID, executor_id: ExecutorID) -> None:
        """End an executor and its tasks; a command task's has the task's id."""
        if not self.executors.shut_down(framework_id, executor_id):
            self.kill(framework_id, TaskID(value=executor_id.value))

    def shut_down(self, framework_id: FrameworkID) -> None:
        """A framework is gone: end its tasks and executors, and tell nobody."""
        for entry in self.ledger.of_framework(framework_id.value):
            self._abandon(entry)
        self.executors.shut_down_all(framework_id.value)

    def reconcile(self, message: ReconcileTasksMessage) -> None:
        """Say of tasks that only the master knows that they are not here."""
        for each in message.statuses:
            if self.ledger.find(message.framework_id, each.task_id) is None:
                self.ledger.send_once(
                    message.framework_id,
                    each.task_id,
                    status.never_ran([message.framework] if message.HasField("framework") else []),
                    "Reconciliation: task unknown to the agent",
                    TaskStatus.REASON_RECONCILIATION,
                )

    # What the master is told when the agent registers again

    def tasks(self) -> list[Task]:
        """Every task whose end the framework has not acknowledged."""
        return self.ledger.tasks()

    def frameworks(self) -> list[FrameworkInfo]:
        """Of these tasks, and of executors."""
        told = (*self.executors.frameworks(), *self.ledger.frameworks())
        return list({framework.id.value: framework for framework in told}.values())

    # The agent's own life

    def recover(self) -> None:
        """Go on with the tasks and executors on record."""
        known: dict[Key, Container] = {
            (each.framework_id, each.name): each for each in self._agent.containerizer.all() if each.framework_id
        }
        orphans = {each.id: each for each in known.values() if each.state is State.RUNNING}
        for record in self._meta.tasks():
            entry = self.ledger.take(record)
            container = known.get(entry.executor_key)
            if container is not None and container.created < record.received and not entry.has_process:
                container = None  # of an earlier task that had this id
            if not entry.has_process:
                if container is not None and not entry.ended:
                    orphans.pop(container.id, None)
                self._recover(entry, container)
        taken = self.executors.recover(known)
        for container in orphans.values():
            if container.id not in taken:
                log.warning("Ending the container %s (%s), of which there is no record", container.id, container.name)
                self._background.start(self._agent.kill(container, signal.SIGKILL))
        self.recovered = True

    def _recover(self, entry: Entry, container: Container | None) -> None:
        record = entry.record
        if not record.framework.checkpoint:  # the master has said that it is lost
            entry.abandoned = True
            record.killed = True
        if entry.ended:
            entry.container = container
            if entry.abandoned or entry.stream.pending is None:
                self.ledger.complete(entry)
            return
        if container is not None:
            self._background.start(self._follow(entry, container))
        elif entry.abandoned:
            self.ledger.complete(entry)
        elif record.updates:
            self.ledger.say(
                entry, TASK_FAILED, message="Executor terminated", reason=TaskStatus.REASON_EXECUTOR_TERMINATED
            )
        else:
            self.ledger.say(
                entry,
                status.never_ran([record.framework]),
                message="The agent restarted before the task was launched",
                reason=TaskStatus.REASON_SLAVE_RESTARTED,
            )

    async def end_all(self) -> None:
        """End all tasks and executors, telling nobody, and wait for it."""
        for entry in self.ledger.living():
            self._abandon(entry)
        self.executors.shut_down_all()
        await self._background.wait()
        await self.executors.end()

    def close(self) -> None:
        """The agent stops; the containers go on."""
        for entry in self.ledger.living():
            entry.stream.stop()
        self.executors.close()
        self._background.cancel()

    # Command tasks

    async def _launch(self, entry: Entry) -> None:
        record = entry.record
        try:
            request = commands.request(
                record.framework, record.task, self._environment(), switch_user=self._agent.flags.switch_user
            )
            if ignored := commands.ports(record.task, "ephemeral_ports"):
                log.warning("Ignoring the specified ephemeral_ports '%s' for executor '%s'", ignored, request.name)
            container = await self._agent.launch(request, lambda: record.killed)
        except Exception as error:  # whatever it is, nobody is to wait for ever
            unforeseen = not isinstance(error, PortsliceError)
            log.error("Failed to launch task %s: %s", record.task.task_id.value, error, exc_info=unforeseen)
            killed = record.killed and isinstance(error, FetchError)
            self.ledger.say(
                entry,
                TASK_KILLED if killed else TASK_FAILED,
                message=f"Failed to launch container: {error}",
                reason=TaskStatus.REASON_TASK_KILLED_DURING_LAUNCH if killed else _LAUNCH_FAILED,
            )
            return
        await self._follow(entry, container)

    async def _follow(self, entry: Entry, container: Container) -> None:
        """See a container to its end."""
        entry.container = container
        if not entry.record.updates and not entry.abandoned:
            self.ledger.say(entry, TASK_STARTING, TASK_RUNNING)
        if entry.record.killed:
            await self._end(entry, container)
        ended = await self._agent.wait(container)
        end = status.end_of(ended, killed=entry.record.killed)
        self.ledger.say(entry, end.state, message=end.message, reason=end.reason, limitation=end.limitation)

    def _kill(self, entry: Entry, policy: KillPolicy | None) -> None:
        if policy is not None and policy.HasField("grace_period"):
            entry.grace_secs = policy.grace_period.nanoseconds / 1e9
        if entry.ended:
            return
        if not entry.record.killed:
            entry.record.killed = True
            self.ledger.save(entry)
            if entry.record.updates and _has(entry.record.framework, FrameworkInfo.Capability.TASK_KILLING_STATE):
                self.ledger.say(entry, TASK_KILLING)
        self._stop(entry)

    def _abandon(self, entry: Entry) -> None:
        self.ledger.abandon(entry)
        if entry.ended or entry.has_process:
            return
        entry.grace_secs = self._agent.flags.executor_shutdown_grace_period.seconds
        entry.record.killed = True
        self.ledger.save(entry)
        self._stop(entry)

    def _stop(self, entry: Entry) -> None:
        if entry.container is not None:
            self._background.start(self._end(entry, entry.container))
        else:  # otherwise as soon as it is launched
            framework_id, name = entry.key
            self._agent.stop_fetching(name, framework_id)

    async def _end(self, entry: Entry, container: Container) -> None:
        if container.state is State.RUNNING:
            await self._agent.kill(container, signal.SIGTERM, _grace_secs(entry))


def _grace_secs(entry: Entry) -> float:
    """From SIGTERM to SIGKILL."""
    if entry.grace_secs is not None:
        return entry.grace_secs
    policy = entry.record.task.kill_policy
    return policy.grace_period.nanoseconds / 1e9 if policy.HasField("grace_period") else KILL_GRACE_SECS


def _has(framework: FrameworkInfo, capability: "FrameworkInfo.Capability.Type") -> bool:
    return any(each.type == capability for each in framework.capabilities)
