"""The book of tasks: each with its record on disk and its stream of updates, from when it comes until it is forgotten.

A task lives until its framework has acknowledged how it ended. Then it is completed: it stays in the book for the
endpoints that tell of it, as long as the agent remembers its container, and of each executor the last ones.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator

from portslice.agent.service import Agent
from portslice.containers.container import Container, State
from portslice.engines.mesos import records, status
from portslice.engines.mesos.meta import Meta
from portslice.engines.mesos.schema.mesos_pb2 import (
    ExecutorID,
    FrameworkID,
    FrameworkInfo,
    SlaveID,
    Task,
    TaskID,
    TaskInfo,
    TaskResourceLimitation,
    TaskState,
    TaskStatus,
)
from portslice.engines.mesos.schema.messages_pb2 import StatusUpdate
from portslice.engines.mesos.schema.record_pb2 import TaskRecord
from portslice.engines.mesos.updates import Stream

log = logging.getLogger(__name__)

KEPT_COMPLETED = 200  # of an executor's tasks, as Mesos' MAX_COMPLETED_TASKS_PER_EXECUTOR

Key = tuple[str, str]  # of a framework, and of its task or executor


class Entry:
    """A task on this agent: its record and what is going on."""

    def __init__(self, record: TaskRecord, stream: Stream) -> None:
        self.record = record
        self.stream = stream
        self.container: Container | None = None
        self.grace_secs: float | None = None  # from SIGTERM to SIGKILL, where it is not the task's own
        self.abandoned = False  # nobody wants to hear of it any more

    @property
    def key(self) -> Key:
        return self.record.framework.id.value, self.record.task.task_id.value

    @property
    def executor_key(self) -> Key:
        return self.record.framework.id.value, records.executor_id(self.record).value

    @property
    def has_process(self) -> bool:
        """Whether an executor's process runs it, instead of a container of its own."""
        return self.record.HasField("executor_id")

    @property
    def ended(self) -> bool:
        return records.ended(self.record)


class Ledger:
    """All tasks of all frameworks on this agent.

    :param send: sends an update to the master, or nowhere.
    :param ip: the address at which others find this host, if known by now.
    """

    def __init__(
        self,
        agent: Agent,
        meta: Meta,
        *,
        send: Callable[[StatusUpdate], None],
        ip: Callable[[], str | None],
    ) -> None:
        self._agent = agent
        self._meta = meta
        self._send = send
        self._ip = ip
        self._run = uuid.uuid4()  # of the agent's
        self._living: dict[Key, Entry] = {}
        self._completed: dict[Key, Entry] = {}
        self._by_executor: dict[Key, dict[str, Entry]] = {}  # all of them

    # Looking

    def find(self, framework_id: FrameworkID, task_id: TaskID) -> Entry | None:
        """A living one."""
        return self._living.get((framework_id.value, task_id.value))

    def living(self) -> list[Entry]:
        """All that live."""
        return list(self._living.values())

    def of_framework(self, framework_id: str) -> list[Entry]:
        """Those of them that a framework has."""
        return [entry for key, entry in self._living.items() if key[0] == framework_id]

    def of_executor(self, key: Key, *, completed: bool = False) -> list[Entry]:
        """Those of them that an executor's process has, in the order in which they came, or also its completed ones. A
        command task may be called like an executor and is none of its tasks."""
        entries = (each for each in self._by_executor.get(key, {}).values() if each.has_process)
        return [each for each in entries if completed or self._living.get(each.key) is each]

    def frameworks_of(self, framework_id: str) -> list[FrameworkInfo]:
        """A framework as its living tasks know it."""
        return [entry.record.framework for entry in self.of_framework(framework_id)]

    # Coming and going

    def admit(
        self,
        framework: FrameworkInfo,
        info: TaskInfo,
        *,
        executor: ExecutorID | None = None,
        group: Iterable[TaskID] = (),
    ) -> Entry | None:
        """A new task, on record from now on.

        :param executor: with a process; None: a container of its own is to run it.
        :param group: all tasks of its task group.
        """
        key = framework.id.value, info.task_id.value
        if key in self._living:
            log.warning("Ignoring the task '%s' of framework %s: there is one of this id", key[1], key[0])
            return None
        entry = self.take(
            TaskRecord(framework=framework, task=info, received=time.time(), executor_id=executor, group=group)
        )
        if (old := self._completed.pop(key, None)) is not None and old.executor_key != entry.executor_key:
            self._by_executor[old.executor_key].pop(key[1], None)
        self.save(entry)
        return entry

    def take(self, record: TaskRecord) -> Entry:
        """A task that is on record."""
        entry = Entry(record, Stream(record, self._meta.write, self._send))
        self._living[entry.key] = entry
        self._by_executor.setdefault(entry.executor_key, {})[entry.key[1]] = entry
        return entry

    def save(self, entry: Entry) -> None:
        """Write down what has changed."""
        self._meta.write(entry.record)

    def complete(self, entry: Entry) -> None:
        """It is over, and nobody waits to hear it."""
        entry.stream.stop()
        self._living.pop(entry.key, None)
        if entry.container is None:
            self._forget(entry)
            return
        entry.record.acknowledged = len(entry.record.updates)
        self.save(entry)
        self._completed[entry.key] = entry
        remembered = {each.id for each in self._agent.containerizer.all()}
        for old in list(self._completed.values()):
            if old.container is not None and old.container.id not in remembered:
                self._forget(old)
        siblings = [each for each in self._by_executor[entry.executor_key].values() if each.key in self._completed]
        for old in siblings[:-KEPT_COMPLETED]:
            self._forget(old)

    def abandon(self, entry: Entry) -> None:
        """Tell nobody of it any more."""
        entry.abandoned = True
        entry.stream.stop()
        if entry.ended:
            self.complete(entry)

    def _forget(self, entry: Entry) -> None:
        self._completed.pop(entry.key, None)
        siblings = self._by_executor.get(entry.executor_key, {})
        if siblings.get(entry.key[1]) is entry:
            del siblings[entry.key[1]]
            if not siblings:
                del self._by_executor[entry.executor_key]
        self._meta.forget(entry.record)

    # What is said of them

    def say(
        self,
        entry: Entry,
        *states: "TaskState",
        message: str = "",
        reason: "TaskStatus.Reason | None" = None,
        limitation: TaskResourceLimitation | None = None,
    ) -> None:
        """Tell the framework how the task is; if it wants to hear of it no more, only the record."""
        record = entry.record
        where = status.container_status(entry.container, self._ip()) if entry.container else None
        updates = [
            status.update(
                record.framework.id,
                record.task.task_id,
                record.task.slave_id,
                state,
                executor_id=records.executor_id(record),
                message=message,
                reason=reason,
                limitation=limitation,
                container=where,
            )
            for state in states
        ]
        self._agent.status_updates += len(updates) if reason is None else 0
        self._tell(entry, updates)

    def hear(self, entry: Entry, said: TaskStatus) -> None:
        """Hand on what its executor says of it."""
        record = entry.record
        where = status.container_status(entry.container, self._ip()) if entry.container else None
        ids = record.framework.id, record.task.slave_id, records.executor_id(record)
        self._agent.status_updates += 1
        self._tell(entry, [status.of_executor(*ids, said, where)])

    def _tell(self, entry: Entry, updates: list[StatusUpdate]) -> None:
        states = [update.status.state for update in updates]
        self._agent.ended.update(TaskState.Name(state) for state in states if state in status.TERMINAL)
        if entry.abandoned:
            entry.record.updates.extend(updates)
        else:
            entry.stream.add(updates)
        if entry.abandoned and entry.ended:
            self.complete(entry)

    def send_once(
        self,
        framework_id: FrameworkID,
        task_id: TaskID,
        state: "TaskState",
        message: str,
        reason: "TaskStatus.Reason",
    ) -> None:
        """Of a task that is not here; the master asks again if it does not hear it. As it may ask twice, by a kill,
        too, before it does, what is said again has the same uuid: it is no second end."""
        slave_id = self._meta.slave_id or SlaveID(value="")
        update = status.update(framework_id, task_id, slave_id, state, message=message, reason=reason)
        update.uuid = update.status.uuid = uuid.uuid5(self._run, f"{framework_id.value}/{task_id.value}").bytes
        self._send(update)

    def update_framework(self, framework_id: FrameworkID, info: FrameworkInfo) -> None:
        """A framework has changed."""
        for entry in self.of_framework(framework_id.value):
            entry.record.framework.CopyFrom(info)
            entry.record.framework.id.CopyFrom(framework_id)
            self.save(entry)

    # What the master is told when the agent registers again

    def tasks(self) -> list[Task]:
        """Every task whose end the framework has not acknowledged."""
        return [records.task(entry.record) for entry in self._living.values() if not entry.abandoned]

    def frameworks(self) -> Iterator[FrameworkInfo]:
        """Of these tasks."""
        return (entry.record.framework for entry in self._living.values() if not entry.abandoned)

    def resend(self) -> None:
        """There is a master now: send all that is on its way."""
        for entry in self._living.values():
            if not entry.abandoned:
                entry.stream.resend()

    # What is told of them; in any thread

    def of_container(self, container: Container) -> list[TaskRecord]:
        """The records of the tasks of a container; none: nobody knows of it any more."""
        entries = list(self._by_executor.get((container.framework_id, container.name), {}).values())
        return [entry.record for entry in entries if _is_in(entry, container)]

    def known_framework(self, framework_id: str) -> TaskRecord | None:
        """A record of a task of this framework, which has it as it was last heard of."""
        entries = [*list(self._living.values()), *reversed(list(self._completed.values()))]
        return next((each.record for each in entries if each.key[0] == framework_id), None)


def _is_in(entry: Entry, container: Container) -> bool:
    if entry.container is not None:
        return entry.container.id == container.id
    return container.state is not State.EXITED and (entry.has_process or entry.record.received <= container.created)
