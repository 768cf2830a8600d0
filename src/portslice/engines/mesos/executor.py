"""One executor on this agent: its record, its connection, and what is going on with it."""

import asyncio
import logging
from typing import Protocol

from portslice.complaints import Complaints
from portslice.containers.container import Container
from portslice.engines.mesos.commands import Amounts
from portslice.engines.mesos.ledger import Entry, Key
from portslice.engines.mesos.schema.executor_pb2 import Event
from portslice.engines.mesos.schema.mesos_pb2 import TaskStatus
from portslice.engines.mesos.schema.record_pb2 import ExecutorRecord

log = logging.getLogger(__name__)

_COMPLAINT_SECS = 1.0


class Subscription(Protocol):
    """The stream of an executor's events."""

    def put(self, event: Event) -> None:
        """Send one."""

    def end(self) -> None:
        """Hang up behind what was put."""


class Executor:
    """An executor that is expected, lives, or has ended."""

    def __init__(self, record: ExecutorRecord) -> None:
        self.record = record
        self.container: Container | None = None
        self.subscription: Subscription | None = None
        self.deadline: asyncio.TimerHandle | None = None  # by when it is to have subscribed, or ended
        self.why: tuple[TaskStatus.Reason, str] | None = None  # it is destroyed for
        self.has: Amounts | None = None  # its container's
        self.delivering = asyncio.Lock()  # or changing its container
        self.complaints = Complaints(log, _COMPLAINT_SECS)

    @property
    def key(self) -> Key:
        return self.record.framework.id.value, self.record.executor.executor_id.value

    def __str__(self) -> str:
        return f"executor '{self.key[1]}' of framework {self.key[0]}"

    def send(self, event: Event) -> bool:
        """Send an event, if it is subscribed; whether it is."""
        if self.subscription is not None:
            self.subscription.put(event)
        return self.subscription is not None

    def kill(self, entry: Entry) -> None:
        """Tell it to end a task, if it is subscribed."""
        record = entry.record
        policy = record.kill_policy if record.HasField("kill_policy") else None
        self.send(Event(type=Event.KILL, kill=Event.Kill(task_id=record.task.task_id, kill_policy=policy)))

    def hang_up(self) -> None:
        """End its subscription."""
        if self.subscription is not None:
            self.subscription.end()
            self.subscription = None

    def disarm(self) -> None:
        """Wait for nothing."""
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
