"""Agents' life: registered, disconnected, unreachable, back with their tasks, removed.

What they say over the wire, and when a connection counts as lost, is in agents.py.
"""

import logging
import time
from collections.abc import Iterable

from portslice.engines.master.bundle import Bundle
from portslice.engines.master.cluster import Cluster
from portslice.engines.master.executors import Executors
from portslice.engines.master.model import OVER, Agent
from portslice.engines.master.offers import Offers
from portslice.engines.master.subscriptions import Subscriptions
from portslice.engines.master.tasks import Tasks
from portslice.engines.mesos.meta import checked_id
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.schema.mesos_pb2 import (
    TASK_GONE,
    TASK_LOST,
    TASK_UNREACHABLE,
    ExecutorInfo,
    SlaveInfo,
    Task,
    TaskState,
    TaskStatus,
)
from portslice.engines.mesos.wire import Pid

log = logging.getLogger(__name__)

MAX_UNREACHABLE = 1000  # of which it is known


class Membership:
    """All agents of a cluster."""

    def __init__(
        self, cluster: Cluster, offers: Offers, tasks: Tasks, executors: Executors, subscriptions: Subscriptions
    ) -> None:
        self._cluster = cluster
        self._offers = offers
        self._tasks = tasks
        self._executors = executors
        self._subscriptions = subscriptions

    def give_up_recovered(self) -> None:
        """Agents that did not come back in time are nobody any more; nor are their tasks waited for."""
        for agent_id in self._cluster.recovered:
            log.warning("Agent %s has not come back", agent_id)
            self._cluster.registry.remove_agent(agent_id)

    def register(self, info: SlaveInfo, pid: Pid, version: str, capabilities: list[str], blocks: int | None) -> Agent:
        """A new one.

        :raises ParseError: its resources are none.
        """
        total = Bundle.of(info.resources)
        info.id.value = self._cluster.registry.new_agent_id()
        agent = self._put(Agent(info.id.value, info, pid, version, capabilities, total, blocks))
        self._cluster.counted["slave_registrations"] += 1
        log.info("Registered agent %s at %s (%s)", agent.id, pid, info.hostname)
        return agent

    def reregister(
        self, message: messages.ReregisterSlaveMessage, pid: Pid, capabilities: list[str], blocks: int | None
    ) -> tuple[Agent, list[messages.ReconcileTasksMessage]]:
        """One that was registered, here or with an earlier master; and what it does not tell of although it should.

        :raises ParseError: its resources are none, or what its tasks and executors have, or its id.
        """
        info = message.slave
        total = Bundle.of(info.resources)
        holders: list[Task | ExecutorInfo] = [*message.tasks, *message.executor_infos]
        for each in holders:
            Bundle.of(each.resources)
        agent_id, cluster = checked_id(info.id.value), self._cluster
        known = cluster.agents.get(agent_id) or cluster.unreachable.pop(agent_id, None)
        agent = Agent(agent_id, info, pid, message.version, capabilities, total, blocks)
        if known is not None:
            self._offers.rescind_of_agent(known)
            agent.registered = known.registered
        agent.reregistered = time.time()
        for framework in message.frameworks:
            self._subscriptions.learn(framework)
        self._executors.restore(agent, message.executor_infos)
        for task in message.tasks:
            if (owner := self._cluster.frameworks.get(task.framework_id.value)) is not None:
                self._tasks.put(owner, agent, task)
        missing: dict[str, messages.ReconcileTasksMessage] = {}
        for key, task in (known.tasks if known is not None else {}).items():
            if key in agent.tasks:
                continue
            if task.state in OVER:
                self._tasks.forget(task)
                continue
            agent.tasks[key] = task
            status = TaskStatus(task_id=task.task_id, state=task.state, slave_id=task.slave_id)
            reconciliation = messages.ReconcileTasksMessage(framework_id=task.framework_id, statuses=[status])
            missing.setdefault(key[0], reconciliation)
            if missing[key[0]] is not reconciliation:
                missing[key[0]].statuses.append(status)
            reconciled = self._cluster.frameworks.get(key[0])
            if reconciled is not None:
                missing[key[0]].framework.CopyFrom(reconciled.info)
        if known is not None:
            agent.kills = {key: kill for key, kill in known.kills.items() if key in agent.tasks}
        self._cluster.counted["slave_reregistrations"] += 1
        log.info("Re-registered agent %s at %s (%s)", agent.id, pid, info.hostname)
        return self._put(agent), list(missing.values())

    def _put(self, agent: Agent) -> Agent:
        new = agent.id not in self._cluster.agents
        self._cluster.agents[agent.id] = agent
        if new:
            self._cluster.happened("AGENT_ADDED", agent)
        self._cluster.registry.put_agent(agent.id, {"hostname": agent.info.hostname, "pid": str(agent.pid)})
        return agent

    def welcome(self, agent: Agent, ended: Iterable[str]) -> None:
        """It is connected, and has its answer.

        :param ended: frameworks whose tasks it told of although they have ended.
        """
        for framework in self._cluster.frameworks.values():
            if framework.connected:
                agent.send(
                    messages.UpdateFrameworkMessage(
                        framework_id={"value": framework.id}, pid="@0.0.0.0:0", framework_info=framework.info
                    )
                )
        for kill in agent.kills.values():
            agent.send(kill)
        for framework_id in ended:
            agent.send(messages.ShutdownFrameworkMessage(framework_id={"value": framework_id}))
        self._offers.soon()

    def disconnected(self, agent: Agent) -> None:
        """The connection to it has ended; it may come back."""
        log.warning("Agent %s at %s (%s) is disconnected", agent.id, agent.pid, agent.info.hostname)
        self._offers.rescind_of_agent(agent)
        frameworks = self._cluster.frameworks
        checkpointed = {each.id for each in frameworks.values() if each.info.checkpoint and agent.info.checkpoint}
        message, reason = f"Agent {agent.info.hostname} disconnected", TaskStatus.REASON_SLAVE_DISCONNECTED
        for task in [each for each in agent.tasks.values() if each.framework_id.value not in checkpointed]:
            self._tasks.lose(task, TASK_LOST, message, reason)
        for framework_id in {owner for owner, _ in agent.executors} - checkpointed:
            self._executors.forget(agent, framework_id)

    def lost(self, agent: Agent) -> None:
        """It does not answer; its tasks may come back with it."""
        log.warning("Marking agent %s at %s (%s) unreachable", agent.id, agent.pid, agent.info.hostname)
        self._cluster.counted["slave_unreachable_completed"] += 1
        self._take_away(agent, TASK_UNREACHABLE, "is unreachable")
        unreachable = self._cluster.unreachable
        unreachable[agent.id] = agent
        for agent_id in list(unreachable)[:-MAX_UNREACHABLE]:
            del unreachable[agent_id]

    def remove(self, agent: Agent, reason: str) -> None:
        """It has gone for good.

        :param reason: `unregistered` or `registered`, anew.
        """
        log.info("Removing agent %s at %s (%s): %s", agent.id, agent.pid, agent.info.hostname, reason)
        self._cluster.counted["slave_removals"] += 1
        self._cluster.counted[f"slave_removals/reason_{reason}"] += 1
        self._take_away(agent, TASK_GONE, "has been removed")
        self._cluster.registry.remove_agent(agent.id)

    def _take_away(self, agent: Agent, state: "TaskState", how: str) -> None:
        self._offers.rescind_of_agent(agent)
        for task in list(agent.tasks.values()):
            message = f"Agent {agent.info.hostname} {how}"
            self._tasks.lose(task, state, message, TaskStatus.REASON_SLAVE_REMOVED)
        self._executors.forget(agent)
        self._cluster.agents.pop(agent.id, None)
        self._cluster.happened("AGENT_REMOVED", agent)
        for framework in self._cluster.frameworks.values():
            framework.tell("FAILURE", failure={"agent_id": {"value": agent.id}})
