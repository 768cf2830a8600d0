"""What a master knows: agents, frameworks, their tasks and the offers that are out."""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from google.protobuf.message import Message

from portslice.engines.master.bundle import ANYBODY, Bundle
from portslice.engines.mesos.schema.mesos_pb2 import (
    TASK_ERROR,
    TASK_GONE,
    TASK_UNREACHABLE,
    ExecutorInfo,
    FrameworkInfo,
    SlaveInfo,
    Task,
)
from portslice.engines.mesos.schema.messages_pb2 import KillTaskMessage
from portslice.engines.mesos.status import TERMINAL
from portslice.engines.mesos.wire import Link, Pid

OVER = TERMINAL | {TASK_ERROR, TASK_GONE, TASK_UNREACHABLE}
"""States in which a task holds no resources."""
_REMEMBERED = 1000


@dataclass
class Offer:
    """What of an agent a framework may take, in one of its roles."""

    id: str
    agent: "Agent"
    framework: "Framework"
    role: str
    bundle: Bundle


@dataclass
class Agent:
    """An agent that is registered; `connected` while there is a connection to it."""

    id: str
    info: SlaveInfo
    pid: Pid
    version: str
    capabilities: list[str]
    total: Bundle
    blocks: int | None = None
    """Containers that it has blocks of ephemeral ports for."""
    link: Link | None = None
    master: Pid | None = None
    """The master, by the address at which this agent knows it."""
    registered: float = field(default_factory=time.time)
    reregistered: float | None = None
    tasks: dict[tuple[str, str], Task] = field(default_factory=dict)
    """By framework and id, until their last update is acknowledged."""
    executors: dict[tuple[str, str], ExecutorInfo] = field(default_factory=dict)
    """By framework and id: those that frameworks brought, from their first task to their exit."""
    offers: dict[str, Offer] = field(default_factory=dict)
    kills: dict[tuple[str, str], KillTaskMessage] = field(default_factory=dict)
    """Of these tasks that their frameworks want ended, as they said so last."""

    @property
    def connected(self) -> bool:
        return self.link is not None

    def send(self, message: Message, process: str = "master") -> None:
        """Send it a message from one of the master's processes; without a connection it is lost."""
        if self.link is not None and self.master is not None:
            self.link.send(self.master._replace(name=process), self.pid.name, message)

    def alive(self) -> list[Task]:
        """The tasks that hold resources."""
        return [each for each in self.tasks.values() if each.state not in OVER]

    def containers(self) -> int:
        """How many there are: a framework's executor has one for all its tasks, and each command task has one."""
        own = (each for each in self.alive() if (each.framework_id.value, each.executor_id.value) not in self.executors)
        return len(self.executors) + sum(1 for _ in own)

    def used(self) -> Bundle:
        """By tasks and executors."""
        return _used(self.alive(), self.executors.values())

    def offered(self) -> Bundle:
        """In offers that are out."""
        return sum((each.bundle for each in self.offers.values()), Bundle())


class Stream(Protocol):
    """What a framework reads its events from."""

    id: str

    def put(self, kind: str, body: dict[str, Any]) -> None:
        """An event."""

    def end(self) -> None:
        """After what was put."""


@dataclass
class Framework:
    """A framework; `stream` while it is subscribed."""

    id: str
    info: FrameworkInfo
    stream: Stream | None = None
    registered: float = field(default_factory=time.time)
    reregistered: float | None = None
    unregistered: float = 0.0
    recovered: bool = False
    suppressed: set[str] = field(default_factory=set)
    filters: dict[tuple[str, str], tuple[Bundle, float]] = field(default_factory=dict)
    """By agent and role: what it does not want, and until when."""
    served: dict[str, float] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    completed: deque[Task] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    executors: dict[tuple[str, str], ExecutorInfo] = field(default_factory=dict)
    """By agent and id."""
    offers: dict[str, Offer] = field(default_factory=dict)

    @property
    def connected(self) -> bool:
        return self.stream is not None

    @property
    def roles(self) -> list[str]:
        if self.has(FrameworkInfo.Capability.MULTI_ROLE):
            return list(dict.fromkeys(self.info.roles))
        return [self.info.role or ANYBODY]

    def has(self, capability: "FrameworkInfo.Capability.Type") -> bool:
        return any(each.type == capability for each in self.info.capabilities)

    def tell(self, kind: str, **body: Any) -> None:
        """Have it read an event; lost if it is not subscribed."""
        if self.stream is not None:
            self.stream.put(kind, body)

    def used(self) -> Bundle:
        """By its tasks and executors."""
        return _used(self.living(), self.executors.values())

    def used_as(self, role: str) -> Bundle:
        """The part that is allocated to a role."""
        executors = (each for each in self.executors.values() if role_of(each) == role)
        return _used((each for each in self.living() if role_of(each) == role), executors)

    def living(self) -> list[Task]:
        """Its tasks that hold resources."""
        return [each for each in self.tasks.values() if each.state not in OVER]

    def offered(self) -> Bundle:
        """To it."""
        return sum((each.bundle for each in self.offers.values()), Bundle())


def role_of(holder: Task | ExecutorInfo) -> str:
    """The role that its resources are allocated to."""
    return next((r.allocation_info.role for r in holder.resources if r.allocation_info.role), ANYBODY)


def _used(tasks: Iterable[Task], executors: Iterable[ExecutorInfo]) -> Bundle:
    held = (*(each.resources for each in tasks), *(each.resources for each in executors))
    return sum(map(Bundle.of, held), Bundle())
