"""Frameworks' life: subscribed, disconnected, back with the same id, torn down.

    subscribes ──▶ connected ── its stream ends ──▶ disconnected ── failover_timeout ──▶ torn down, its tasks killed
                       ▲                                 │
                       └──── subscribes with its id ─────┘

One of which an agent tells, or the registry, is disconnected until it subscribes.
"""

import asyncio
import logging
import time
from collections.abc import Iterable

from portslice.engines.master.cluster import RECOVERED_SECS, Cluster
from portslice.engines.master.executors import Executors
from portslice.engines.master.model import Framework, Stream
from portslice.engines.master.offers import Offers
from portslice.engines.master.tasks import Tasks
from portslice.engines.mesos.meta import checked_id
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.schema.mesos_pb2 import TASK_KILLED, FrameworkInfo, TaskStatus
from portslice.engines.mesos.v1 import from_json, to_json
from portslice.errors import ConflictError, ParseError

log = logging.getLogger(__name__)

_BAD_IN_ROLES = frozenset("/\\ \t\n\r\v\f\x7f")


class Subscriptions:
    """All frameworks of a cluster."""

    def __init__(self, cluster: Cluster, offers: Offers, tasks: Tasks, executors: Executors) -> None:
        self._cluster = cluster
        self._offers = offers
        self._tasks = tasks
        self._executors = executors
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def recover(self) -> None:
        """Expect back those of the registry."""
        for framework_id, info in self._cluster.registry.frameworks.items():
            try:
                self._expect(framework_id, from_json(FrameworkInfo, info))
            except ParseError as error:
                log.error("The registry's framework %s cannot be read: %s", framework_id, error)

    def learn(self, info: FrameworkInfo) -> None:
        """Expect back one whose tasks an agent has."""
        framework_id = info.id.value
        if framework_id not in self._cluster.frameworks and not self._cluster.registry.is_removed(framework_id):
            self._expect(framework_id, info)

    def subscribe(self, info: FrameworkInfo, suppressed: Iterable[str], stream: Stream) -> Framework:
        """A framework, new or with its id.

        :raises ParseError, ConflictError: it cannot be one.
        """
        _check_framework(info)
        framework_id = info.id.value
        if framework_id and self._cluster.registry.is_removed(framework_id):
            raise ConflictError("Framework has been removed")
        if not framework_id:
            framework_id = info.id.value = self._cluster.registry.new_framework_id()
        known = self._cluster.frameworks.get(framework_id)
        if known is not None and known.info.principal != info.principal:
            raise ConflictError("Changing framework's principal is not allowed.")
        framework = known or Framework(framework_id, info)
        if known is not None:
            known.reregistered = time.time()
            if known.stream is not None:
                known.tell("ERROR", error={"message": "Framework failed over"})
                known.stream.end()
            self._offers.drop_of_framework(known)
        self._expire_not(framework)
        framework.info, framework.stream, framework.recovered = info, stream, False
        framework.suppressed = set(suppressed)
        self._cluster.frameworks[framework_id] = framework
        self._cluster.registry.put_framework(framework_id, to_json(info))
        self._cluster.happened("FRAMEWORK_ADDED" if known is None else "FRAMEWORK_UPDATED", framework)
        log.info("Subscribed framework %s (%s)", framework_id, info.name)
        for agent in self._cluster.agents.values():
            agent.send(
                messages.UpdateFrameworkMessage(
                    framework_id={"value": framework_id}, pid="@0.0.0.0:0", framework_info=info
                )
            )
        self._offers.soon()
        return framework

    def unsubscribed(self, framework: Framework, stream: Stream) -> None:
        """A stream has ended; the framework may subscribe again."""
        if framework.stream is not stream:
            return
        framework.stream = None
        log.info("Framework %s (%s) is disconnected", framework.id, framework.info.name)
        self._offers.drop_of_framework(framework)
        if framework.id in self._cluster.frameworks:
            self._cluster.happened("FRAMEWORK_UPDATED", framework)
            self._expire_later(framework, framework.info.failover_timeout)
            self._offers.soon()

    def tear_down(self, framework: Framework) -> None:
        """End it and its tasks."""
        log.info("Removing framework %s (%s)", framework.id, framework.info.name)
        self._expire_not(framework)
        self._offers.drop_of_framework(framework)
        if framework.stream is not None:
            framework.stream.end()
        for agent in self._cluster.agents.values():
            agent.send(messages.ShutdownFrameworkMessage(framework_id={"value": framework.id}))
            self._executors.forget(agent, framework.id)
        for task in list(framework.tasks.values()):
            reason = TaskStatus.REASON_FRAMEWORK_REMOVED
            self._tasks.lose(task, TASK_KILLED, f"Framework {framework.id} removed", reason)
        framework.unregistered = time.time()
        del self._cluster.frameworks[framework.id]
        self._cluster.completed.append(framework)
        self._cluster.happened("FRAMEWORK_REMOVED", framework)
        self._cluster.registry.remove_framework(framework.id)
        self._offers.soon()

    def _expect(self, framework_id: str, info: FrameworkInfo) -> None:
        framework = self._cluster.frameworks[framework_id] = Framework(framework_id, info, recovered=True)
        self._cluster.happened("FRAMEWORK_ADDED", framework)
        self._expire_later(framework, max(info.failover_timeout, RECOVERED_SECS))

    def _expire_later(self, framework: Framework, seconds: float) -> None:
        self._expire_not(framework)
        loop = asyncio.get_running_loop()
        self._timers[framework.id] = loop.call_later(min(seconds, 1e8), self.tear_down, framework)

    def _expire_not(self, framework: Framework) -> None:
        if (timer := self._timers.pop(framework.id, None)) is not None:
            timer.cancel()


def _check_framework(info: FrameworkInfo) -> None:
    if info.id.value:
        try:
            checked_id(info.id.value)
        except ParseError as error:
            raise ParseError(f"'FrameworkInfo.id' is invalid: {error}") from None
    multi = any(each.type == FrameworkInfo.Capability.MULTI_ROLE for each in info.capabilities)
    if multi and info.HasField("role"):
        raise ParseError("'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable")
    if not multi and info.roles:
        raise ParseError("'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable")
    if not 0 <= info.failover_timeout < 1e12:
        raise ParseError(f"The framework failover_timeout ({info.failover_timeout:g}) is invalid")
    if len(set(info.roles)) < len(info.roles):
        raise ParseError("'FrameworkInfo.roles' contains duplicate items")
    for role in [*info.roles, info.role]:
        if role in ("", ".", "..") or role.startswith("-") or _BAD_IN_ROLES & set(role):
            raise ParseError(f"Role '{role[:100]}' is invalid")
