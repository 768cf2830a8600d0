"""The life of executors: processes of a framework's own, or ours, that run tasks in one container.

    run ──▶ record ──▶ launch ──▶ it subscribes ──▶ LAUNCH, KILL, MESSAGE ... ──▶ the container ends ──▶ forget
                         │  └─ not in time: destroyed ──────────────────────────────┤
                         └─ fails ──▶ its tasks FAILED ─────────────────────────────┘

A task waits in a queue until its executor has subscribed, is written down as delivered, and only then is sent. So of
an agent that dies at any moment the next one knows which tasks the executor cannot have: these it delivers. A delivered
one of which nothing was heard, and of which the executor does not say on subscribing again that it has it, is dropped,
as in Mesos. What an executor says of a task is written down before the executor hears that it was (ACKNOWLEDGED), and
what it says twice is known by its uuid.

An executor lives until it ends by itself, or its framework wants its end (SHUTDOWN, and after the grace period
SIGKILL), or it does not subscribe in time. Its living tasks end with it.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from portslice.agent.service import Agent
from portslice.background import Background
from portslice.containers.container import Container, State
from portslice.engines.mesos import commands, status
from portslice.engines.mesos.delivery import Delivery, unit_of
from portslice.engines.mesos.executor import Executor, Subscription
from portslice.engines.mesos.ledger import Entry, Key, Ledger
from portslice.engines.mesos.meta import Meta
from portslice.engines.mesos.schema.executor_pb2 import Call, Event
from portslice.engines.mesos.schema.mesos_pb2 import (
    TASK_FAILED,
    TASK_KILLED,
    ExecutorID,
    ExecutorInfo,
    FrameworkID,
    FrameworkInfo,
    KillPolicy,
    SlaveInfo,
    TaskInfo,
    TaskStatus,
)
from portslice.engines.mesos.schema.messages_pb2 import ExitedExecutorMessage
from portslice.engines.mesos.schema.record_pb2 import ExecutorRecord
from portslice.errors import PortsliceError
from portslice.executor import check_readable
from portslice.units import Duration

log = logging.getLogger(__name__)

MAX_WAITING = 1000  # updates of a task that wait for its framework, at which only its end is taken any more
MAX_RECORD = 8 << 20  # bytes of its record, likewise


class Executors:
    """All executors with a process on this agent.

    :param environment: of the agent's, for its executors.
    :param exited: tells the master that one has ended.
    """

    def __init__(
        self,
        agent: Agent,
        meta: Meta,
        ledger: Ledger,
        *,
        environment: Callable[[], Mapping[str, str]],
        exited: Callable[[ExitedExecutorMessage], None],
    ) -> None:
        self._agent = agent
        self._meta = meta
        self._ledger = ledger
        self._environment = environment
        self._exited = exited
        self._delivery = Delivery(agent, ledger)
        self._living: dict[Key, Executor] = {}
        self._ended: dict[Key, Executor] = {}
        self._background = Background()

    # What the master wants

    def run(
        self,
        framework: FrameworkInfo,
        info: ExecutorInfo,
        tasks: Collection[TaskInfo],
        *,
        group: bool = False,
        launch: bool = True,
        command: bool = False,
    ) -> None:
        """Run tasks by an executor.

        :param group: they are a task group: delivered together, or none.
        :param launch: the executor is to be launched if there is none.
        :param command: the executor is an imagined one.
        """
        key = framework.id.value, info.executor_id.value
        executor = self._living.get(key)
        new = executor is None
        if executor is None and launch:
            executor = self._take(
                ExecutorRecord(
                    framework=framework,
                    executor=info,
                    slave_id=self._meta.slave_id,
                    received=time.time(),
                    command=command,
                )
            )
            executor.record.executor.framework_id.CopyFrom(framework.id)
            self._ended.pop(key, None)
            self._meta.write(executor.record)
        members = [task.task_id for task in tasks] if group else []
        found = [self._ledger.admit(framework, task, executor=info.executor_id, group=members) for task in tasks]
        entries = [entry for entry in found if entry is not None]
        if executor is None:
            self._drop(entries, "No executor is expected to launch and there is none running")
        elif executor.record.ending:
            self._drop(entries, f"Executor '{key[1]}' is terminating")
        elif new:
            self._background.start(self._live(executor))
        else:
            self._background.start(self._delivery.deliver(executor))

    def kill(self, entry: Entry, policy: KillPolicy | None) -> None:
        """End a task: what is not delivered yet ends at once, of the others the executor is told."""
        if entry.ended:
            return
        executor = self._living.get(entry.executor_key)
        if not entry.record.delivered:
            self._kill_queued(entry, executor)
            return
        entry.record.killed = True
        if policy is not None:
            entry.record.kill_policy.CopyFrom(policy)
        self._ledger.save(entry)
        if executor is not None:
            executor.kill(entry)

    def _kill_queued(self, entry: Entry, executor: Executor | None) -> None:
        reason = TaskStatus.REASON_TASK_KILLED_DURING_LAUNCH
        for each in self._ledger.of_executor(entry.executor_key):
            if each is entry:
                self._ledger.say(each, TASK_KILLED, message="Killed before delivery to the executor", reason=reason)
            elif entry.record.task.task_id in each.record.group and not each.ended:
                text = "A task within the task group was killed before delivery to the executor"
                self._ledger.say(each, TASK_KILLED, message=text, reason=reason)
        if executor is not None:
            self._end_unused(executor)

    def _end_unused(self, executor: Executor) -> None:
        """End an executor that was never sent a task, if all of them have ended before."""
        began = executor.record.received  # tasks of an earlier one of this id came before
        entries = (
            each for each in self._ledger.of_executor(executor.key, completed=True) if each.record.received >= began
        )
        if all(each.ended and not each.record.delivered for each in entries):
            log.info("Shutting down the %s: it has no tasks and was never sent one", executor)
            self._shut_down(executor)

    def tell(self, framework_id: FrameworkID, executor_id: ExecutorID, data: bytes) -> None:
        """Hand an executor a message of its framework."""
        executor = self._living.get((framework_id.value, executor_id.value))
        if executor is None or not executor.send(Event(type=Event.MESSAGE, message={"data": data})):
            log.warning("Dropping a message to executor '%s': it is not subscribed", executor_id.value)

    def shut_down(self, framework_id: FrameworkID, executor_id: ExecutorID) -> bool:
        """End an executor, and its tasks with it; whether there is one."""
        executor = self._living.get((framework_id.value, executor_id.value))
        if executor is not None:
            self._shut_down(executor)
        return executor is not None

    def shut_down_all(self, framework_id: str | None = None) -> None:
        """End all of a framework, or of all frameworks."""
        for key, executor in list(self._living.items()):
            if framework_id in (None, key[0]):
                self._shut_down(executor)

    # What executors say

    def find(self, framework_id: FrameworkID, executor_id: ExecutorID) -> Executor | None:
        """A living one."""
        return self._living.get((framework_id.value, executor_id.value))

    def update_framework(self, framework_id: FrameworkID, info: FrameworkInfo) -> None:
        """A framework has changed."""
        for key, executor in self._living.items():
            if key[0] == framework_id.value:
                executor.record.framework.CopyFrom(info)
                executor.record.framework.id.CopyFrom(framework_id)
                self._meta.write(executor.record)

    def has_framework(self, framework_id: FrameworkID) -> bool:
        """Whether it has living executors here."""
        return any(key[0] == framework_id.value for key in self._living)

    async def subscribe(
        self,
        executor: Executor,
        container: Container,
        missed: Call.Subscribe,
        subscription: Subscription,
        agent: SlaveInfo,
    ) -> None:
        """Take an executor's subscription.

        :param missed: what it has that nobody acknowledged. It may be much: others have their turn in between.
        """
        if executor.subscription is not None:
            log.info("Closing already existing HTTP connection from %s", executor)
            executor.hang_up()
        executor.subscription = subscription
        executor.container = executor.container or container
        record = executor.record
        if not record.ending:
            executor.disarm()
        if not record.subscribed:
            record.subscribed = True
            self._meta.write(record)
        executor.send(
            Event(
                type=Event.SUBSCRIBED,
                subscribed=Event.Subscribed(
                    executor_info=record.executor,
                    framework_info=record.framework,
                    slave_info=agent,
                    container_id={"value": container.id},
                ),
            )
        )
        for update in missed.unacknowledged_updates:
            await asyncio.sleep(0)
            if executor.subscription is not subscription:
                return  # it has ended, or another one has come
            self.update(executor, update.status)
        if record.ending:
            executor.send(Event(type=Event.SHUTDOWN))
            return
        self._reconcile(executor, missed.unacknowledged_tasks)
        self._end_unused(executor)
        self._background.start(self._delivery.deliver(executor))

    def unsubscribed(self, executor: Executor, subscription: Subscription) -> None:
        """A subscription has ended."""
        if executor.subscription is subscription:
            executor.subscription = None
            log.info("The %s is not connected any more", executor)

    def update(self, executor: Executor, said: TaskStatus) -> None:
        """Take what an executor says of a task; what the agent has it acknowledges."""
        entry = self._ledger.find(executor.record.framework.id, said.task_id)
        if entry is None or entry.executor_key != executor.key or not entry.record.delivered:
            name = said.task_id.value
            executor.complaints.warning("Ignoring an update of the %s: it has no task %.100r", executor, name)
        elif entry.ended:
            executor.complaints.warning("Ignoring an update of the task '%s', which has ended", entry.key[1])
        elif _is_full(entry) and said.state not in status.TERMINAL:
            text = "Not taking an update of the task '%s': too many wait for its framework"
            executor.complaints.warning(text, entry.key[1])
            return
        elif all(update.uuid != said.uuid for update in entry.record.updates):
            self._ledger.hear(entry, said)
            if said.state in status.TERMINAL:
                self._background.start(self._delivery.shrink(executor))
        acknowledged = Event.Acknowledged(task_id=said.task_id, uuid=said.uuid)
        executor.send(Event(type=Event.ACKNOWLEDGED, acknowledged=acknowledged))

    def _reconcile(self, executor: Executor, has: Iterable[TaskInfo]) -> None:
        """Repeat what it may have missed, and drop what it does not know."""
        known = {task.task_id.value for task in has}
        for entry in self._ledger.of_executor(executor.key):
            if entry.ended or not entry.record.delivered:
                continue
            if not entry.record.updates and entry.key[1] not in known:
                log.warning("Dropping the task '%s': it is unknown to the %s", entry.key[1], executor)
                self._ledger.say(
                    entry,
                    status.never_ran([entry.record.framework]),
                    message="Task launched during agent restart",
                    reason=TaskStatus.REASON_SLAVE_RESTARTED,
                )
                self._background.start(self._delivery.shrink(executor))
            elif entry.record.killed:
                executor.kill(entry)

    # What the master is told when the agent registers again

    def infos(self) -> list[ExecutorInfo]:
        """Of all that are a framework's own."""
        return [each.record.executor for each in self._living.values() if not each.record.command]

    def frameworks(self) -> list[FrameworkInfo]:
        """Of these."""
        return [each.record.framework for each in self._living.values() if not each.record.command]

    # What is told of them; in any thread

    def of_container(self, container: Container) -> ExecutorRecord | None:
        """The record of the executor that a container is; None: it is none, or nobody knows of it any more."""
        key = container.framework_id, container.name
        executor = self._living.get(key) or self._ended.get(key)
        if executor is None or executor.record.received > container.created:
            return None
        return executor.record

    def known_framework(self, framework_id: str) -> ExecutorRecord | None:
        """A record of an executor of this framework."""
        found = [*list(self._living.values()), *list(self._ended.values())]
        return next((each.record for each in found if each.key[0] == framework_id), None)

    # The agent's own life

    def recover(self, containers: Mapping[Key, Container]) -> set[str]:
        """Go on with the executors on record, whose tasks are in the ledger.

        :param containers: of frameworks, by framework and name.
        :return: ids of the containers that are executors.
        """
        known = set()
        for record in self._meta.executors():
            executor = self._take(record)
            container = containers.get(executor.key)
            if container is not None and container.created < record.received:
                container = None  # of an earlier one that had this id
            executor.container = container
            for entry in self._ledger.of_executor(executor.key):
                self._recover(entry, container)
            self._mend_groups(executor)
            if container is not None:
                known.add(container.id)
            if record.ended or container is None:
                self._end(executor, None)
                continue
            if not record.framework.checkpoint:
                record.ending = True
                self._destroy(executor)
            self._background.start(self._follow(executor, container))
        for entry in self._ledger.living():
            if entry.has_process and entry.executor_key not in self._living and entry.container is None:
                self._recover(entry, None)
                if not entry.ended:
                    self._never_ran(entry)
        return known

    def _recover(self, entry: Entry, container: Container | None) -> None:
        entry.container = container
        entry.abandoned = not entry.record.framework.checkpoint
        if entry.ended and (entry.abandoned or entry.stream.pending is None):
            self._ledger.complete(entry)

    def _mend_groups(self, executor: Executor) -> None:
        """An agent has ended while it wrote down of a task group that it had come, or was to be delivered. The executor
        has heard of none of its tasks then."""
        groups: dict[tuple[str, ...], list[Entry]] = {}
        for entry in self._ledger.of_executor(executor.key):
            if entry.record.group:
                groups.setdefault(unit_of(entry), []).append(entry)
        for names, entries in groups.items():
            delivered = [entry for entry in entries if entry.record.delivered]
            if not delivered and (len(entries) < len(names) or any(entry.ended for entry in entries)):
                for entry in entries:
                    if not entry.ended:
                        self._never_ran(entry)
            elif delivered and len(delivered) < len(entries):
                for entry in delivered:
                    entry.record.delivered = False
                    self._ledger.save(entry)

    def _never_ran(self, entry: Entry) -> None:
        self._ledger.say(
            entry,
            status.never_ran([entry.record.framework]),
            message="The agent restarted before the task was launched",
            reason=TaskStatus.REASON_SLAVE_RESTARTED,
        )

    async def end(self) -> None:
        """Wait until nothing is at work any more."""
        await self._background.wait()

    def close(self) -> None:
        """The agent stops; the executors go on."""
        for executor in self._living.values():
            executor.disarm()
            executor.hang_up()
        self._background.cancel()

    # Inside

    def _take(self, record: ExecutorRecord) -> Executor:
        executor = Executor(record)
        self._living[executor.key] = executor
        return executor

    def _drop(self, entries: Iterable[Entry], why: str) -> None:
        for entry in entries:
            state = status.never_ran([entry.record.framework])
            self._ledger.say(entry, state, message=why, reason=TaskStatus.REASON_EXECUTOR_TERMINATED)

    async def _live(self, executor: Executor) -> None:
        """Launch an executor, with what its queued tasks need, and see it to its end."""
        record, entries = executor.record, self._ledger.of_executor(executor.key)
        tasks = [entry.record.task for entry in entries if not entry.ended]
        grace = record.executor.shutdown_grace_period
        flags = self._agent.flags
        own = {
            "MESOS_FRAMEWORK_ID": record.framework.id.value,
            "MESOS_SLAVE_ID": record.slave_id.value,
            "MESOS_CHECKPOINT": "1" if record.framework.checkpoint else "0",
        }
        if record.executor.HasField("shutdown_grace_period"):
            own["MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD"] = str(Duration(grace.nanoseconds))
        if record.framework.checkpoint:
            own["MESOS_RECOVERY_TIMEOUT"] = str(flags.recovery_timeout)
            own["MESOS_SUBSCRIPTION_BACKOFF_MAX"] = str(flags.executor_reregistration_timeout)
        ours = record.command or record.executor.type == ExecutorInfo.DEFAULT
        try:
            request = commands.executor_request(
                record.framework,
                record.executor,
                tasks,
                {**self._environment(), **own},
                ours=ours,
                switch_user=flags.switch_user,
            )
            if self._agent.port_mapping is None:
                raise PortsliceError("an executor is known by its ports, so it needs --isolation=network/port_mapping")
            if ours:
                await asyncio.to_thread(check_readable, request.uid, request.gid)
            executor.has = commands.amounts(record.executor, tasks)
            async with executor.delivering:  # it may subscribe before the launch is known to have succeeded
                container = await self._agent.launch(request, lambda: record.ending)
        except Exception as error:  # whatever it is, nobody is to wait for ever
            log.error("Failed to launch the %s: %s", executor, error, exc_info=not isinstance(error, PortsliceError))
            executor.why = TaskStatus.REASON_CONTAINER_LAUNCH_FAILED, f"Failed to launch container: {error}"
            self._end(executor, None)
            return
        await self._follow(executor, container)

    async def _follow(self, executor: Executor, container: Container) -> None:
        executor.container = container
        for entry in self._ledger.of_executor(executor.key):
            entry.container = container
        if executor.record.ending:
            self._shut_down(executor)
        elif executor.subscription is None:
            self._expect(executor)
        self._end(executor, await self._agent.wait(container))

    def _expect(self, executor: Executor) -> None:
        """Destroy it if it does not subscribe in time."""
        if executor.record.subscribed:
            patience = self._agent.flags.executor_reregistration_timeout
            reason, what = TaskStatus.REASON_EXECUTOR_REREGISTRATION_TIMEOUT, "reregister"
        else:
            patience = self._agent.flags.executor_registration_timeout
            reason, what = TaskStatus.REASON_EXECUTOR_REGISTRATION_TIMEOUT, "register"

        def give_up() -> None:
            executor.why = reason, f"Executor did not {what} within {patience}"
            log.warning("Destroying the %s: it did not %s within %s", executor, what, patience)
            self._destroy(executor)

        executor.deadline = asyncio.get_running_loop().call_later(patience.seconds, give_up)

    def _shut_down(self, executor: Executor) -> None:
        record = executor.record
        if not record.ending:
            record.ending = True
            self._meta.write(record)
        executor.disarm()
        executor.send(Event(type=Event.SHUTDOWN))
        if executor.container is None:  # it is, as soon as it is launched
            self._agent.stop_fetching(executor.key[1], executor.key[0])
        else:
            grace_secs = self._agent.flags.executor_shutdown_grace_period.seconds
            if record.executor.HasField("shutdown_grace_period"):
                grace_secs = record.executor.shutdown_grace_period.nanoseconds / 1e9
            executor.deadline = asyncio.get_running_loop().call_later(grace_secs, self._destroy, executor)

    def _destroy(self, executor: Executor) -> None:
        if executor.container is not None and executor.container.state is not State.EXITED:
            self._background.start(self._agent.kill(executor.container, signal.SIGKILL))

    def _end(self, executor: Executor, container: Container | None) -> None:
        """An executor has ended, with this container."""
        executor.disarm()
        executor.hang_up()
        record, key = executor.record, executor.key
        executor.container = container or executor.container
        reason, message = executor.why or (TaskStatus.REASON_EXECUTOR_TERMINATED, "Executor terminated")
        limitation = None
        if container is not None and container.limitation is not None:
            reason, message, limitation = status.limited(container.limitation)
        never_launched = executor.container is None and executor.why is None
        for entry in self._ledger.of_executor(key):
            if entry.ended:
                continue
            if never_launched and not entry.record.updates:
                self._never_ran(entry)
            else:
                self._ledger.say(entry, TASK_FAILED, message=message, reason=reason, limitation=limitation)
        del self._living[key]
        if not record.ended:
            self._exited(
                ExitedExecutorMessage(
                    slave_id=record.slave_id,
                    framework_id=record.framework.id,
                    executor_id=record.executor.executor_id,
                    status=status.wait_status(container.exit_status if container is not None else None),
                )
            )
        if executor.container is None:
            self._meta.forget(record)
            return
        record.ended = True
        self._meta.write(record)
        self._ended[key] = executor
        remembered = {each.id for each in self._agent.containerizer.all()}
        for old in list(self._ended.values()):
            if old.container is not None and old.container.id not in remembered:
                del self._ended[old.key]
                self._meta.forget(old.record)


def _is_full(entry: Entry) -> bool:
    record = entry.record
    return len(record.updates) - record.acknowledged >= MAX_WAITING or record.ByteSize() > MAX_RECORD
