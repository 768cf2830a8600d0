"""The master: what agents and frameworks want of each other.

    agents.py ──▶ register, reregister, update, lost ──▶ Master ◀── subscribe, accept, kill, … ◀── scheduler.py
                                                           │
                                              offers.py: what is free

State is soft, as in Mesos: a master that starts knows the ids that it gave (registry.py), and learns the rest as agents
come back with their tasks, and frameworks subscribe. A task is kept until its framework has acknowledged its last
update; an update reaches the framework only through the agent, which repeats it until it is acknowledged.
"""

import asyncio
import logging
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from portslice.engines.master import launching
from portslice.engines.master.bundle import Bundle
from portslice.engines.master.flags import MasterFlags
from portslice.engines.master.model import OVER, Agent, Framework, Offer, Stream
from portslice.engines.master.offers import Offers
from portslice.engines.master.registry import Registry
from portslice.engines.mesos.meta import checked_id
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.schema.mesos_pb2 import (
    TASK_DROPPED,
    TASK_ERROR,
    TASK_GONE,
    TASK_KILLED,
    TASK_LOST,
    TASK_UNKNOWN,
    TASK_UNREACHABLE,
    ExecutorID,
    FrameworkInfo,
    KillPolicy,
    SlaveID,
    SlaveInfo,
    Task,
    TaskID,
    TaskInfo,
    TaskState,
    TaskStatus,
)
from portslice.engines.mesos.v1 import from_json, to_json
from portslice.engines.mesos.wire import Pid
from portslice.errors import ConflictError, ParseError
from portslice.http.monitor import MESOS_VERSION

log = logging.getLogger(__name__)

HEARTBEAT_SECS = 15.0
_RECOVERED_SECS = 600.0  # Mesos' --agent_reregister_timeout
_COMPLETED = 50
_BAD_IN_ROLES = frozenset("/\\ \t\n\r\v\f\x7f")
PARTITION_AWARE = FrameworkInfo.Capability.PARTITION_AWARE


class Master:
    """The state of a cluster."""

    def __init__(self, flags: MasterFlags, registry: Registry) -> None:
        self.flags = flags
        self.registry = registry
        self.id = registry.id
        self.started = time.time()
        self.agents: dict[str, Agent] = {}
        self.unreachable: dict[str, Agent] = {}
        self.frameworks: dict[str, Framework] = {}
        self.completed: deque[Framework] = deque(maxlen=_COMPLETED)
        self.counted: Counter[str] = Counter()
        self.offers = Offers(self.id, self.agents, self.frameworks, self.limit)
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def run(self) -> None:
        """Make offers, for ever."""
        self._recover()
        asyncio.get_running_loop().call_later(_RECOVERED_SECS, self._give_up_recovered)
        while True:
            self.offers.make()
            await asyncio.sleep(self.flags.allocation_interval.seconds)

    def info(self, ip: str) -> dict[str, Any]:
        """The MasterInfo, as JSON.

        :param ip: the address at which whoever asks reaches it.
        """
        port, hostname = self.flags.port, self.flags.hostname or ip
        return {
            "id": self.id,
            "ip": int.from_bytes(socket.inet_aton(ip), "little"),
            "port": port,
            "pid": f"master@{ip}:{port}",
            "hostname": hostname,
            "version": MESOS_VERSION,
            "address": {"hostname": hostname, "ip": ip, "port": port},
        }

    @property
    def hostname(self) -> str:
        return self.flags.hostname or self.flags.ip

    @property
    def pid(self) -> str:
        return f"master@{self.flags.ip}:{self.flags.port}"

    def limit(self, agent: Agent) -> int | None:
        """How many tasks it may have at once."""
        given = self.flags.max_executors_per_agent
        return agent.blocks if given is None else given if agent.blocks is None else min(given, agent.blocks)

    @property
    def recovered(self) -> list[str]:
        """Agents that were here before a restart, and are not back yet."""
        return [each for each in self.registry.agents if each not in self.agents and each not in self.unreachable]

    def _recover(self) -> None:
        for framework_id, info in self.registry.frameworks.items():
            try:
                framework = Framework(framework_id, from_json(FrameworkInfo, info), recovered=True)
            except ParseError as error:
                log.error("The registry's framework %s cannot be read: %s", framework_id, error)
                continue
            self.frameworks[framework_id] = framework
            self._expire_later(framework, max(framework.info.failover_timeout, _RECOVERED_SECS))

    def _give_up_recovered(self) -> None:
        """Agents that did not come back in time are nobody any more; nor are their tasks waited for."""
        for agent_id in self.recovered:
            log.warning("Agent %s has not come back", agent_id)
            self.registry.remove_agent(agent_id)

    # Agents

    def register(self, info: SlaveInfo, pid: Pid, version: str, capabilities: list[str], blocks: int | None) -> Agent:
        """A new one.

        :raises ParseError: its resources are none.
        """
        total = Bundle.of(info.resources)
        info.id.value = self.registry.new_agent_id()
        agent = self._put_agent(Agent(info.id.value, info, pid, version, capabilities, total, blocks))
        self.counted["slave_registrations"] += 1
        log.info("Registered agent %s at %s (%s)", agent.id, pid, info.hostname)
        return agent

    def reregister(
        self, message: messages.ReregisterSlaveMessage, pid: Pid, capabilities: list[str], blocks: int | None
    ) -> tuple[Agent, list[messages.ReconcileTasksMessage]]:
        """One that was registered, here or with an earlier master; and what it does not tell of although it should.

        :raises ParseError: its resources are none, or its id.
        """
        info = message.slave
        total = Bundle.of(info.resources)
        known = self.agents.get(checked_id(info.id.value)) or self.unreachable.pop(info.id.value, None)
        agent = Agent(info.id.value, info, pid, message.version, capabilities, total, blocks)
        if known is not None:
            self.offers.rescind_of_agent(known)
            agent.registered = known.registered
        agent.reregistered = time.time()
        for framework in message.frameworks:
            self._learn_framework(framework)
        for task in message.tasks:
            if (owner := self.frameworks.get(task.framework_id.value)) is not None:
                agent.tasks[task.framework_id.value, task.task_id.value] = task
                owner.tasks[task.task_id.value] = task
        missing: dict[str, messages.ReconcileTasksMessage] = {}
        for key, task in (known.tasks if known is not None else {}).items():
            if key in agent.tasks:
                continue
            if task.state in OVER:
                self._forget(task)
                continue
            agent.tasks[key] = task
            status = TaskStatus(task_id=task.task_id, state=task.state, slave_id=task.slave_id)
            reconciliation = messages.ReconcileTasksMessage(framework_id=task.framework_id, statuses=[status])
            missing.setdefault(key[0], reconciliation)
            if missing[key[0]] is not reconciliation:
                missing[key[0]].statuses.append(status)
            reconciled = self.frameworks.get(key[0])
            if reconciled is not None:
                missing[key[0]].framework.CopyFrom(reconciled.info)
        self.counted["slave_reregistrations"] += 1
        log.info("Re-registered agent %s at %s (%s)", agent.id, pid, info.hostname)
        return self._put_agent(agent), list(missing.values())

    def _put_agent(self, agent: Agent) -> Agent:
        self.agents[agent.id] = agent
        self.registry.put_agent(agent.id, {"hostname": agent.info.hostname, "pid": str(agent.pid)})
        return agent

    def welcome(self, agent: Agent, ended: Iterable[str]) -> None:
        """It is connected, and has its answer.

        :param ended: frameworks whose tasks it told of although they have ended.
        """
        for framework in self.frameworks.values():
            if framework.connected:
                agent.send(
                    messages.UpdateFrameworkMessage(
                        framework_id={"value": framework.id}, pid="@0.0.0.0:0", framework_info=framework.info
                    )
                )
        for framework_id in ended:
            agent.send(messages.ShutdownFrameworkMessage(framework_id={"value": framework_id}))
        self.offers.soon()

    def disconnected(self, agent: Agent) -> None:
        """The connection to it has ended; it may come back."""
        log.warning("Agent %s at %s (%s) is disconnected", agent.id, agent.pid, agent.info.hostname)
        self.offers.rescind_of_agent(agent)
        for task in list(agent.tasks.values()):
            framework = self.frameworks.get(task.framework_id.value)
            if framework is None or not (framework.info.checkpoint and agent.info.checkpoint):
                self._lose(
                    task, agent, TASK_LOST, f"Agent {agent.info.hostname} disconnected",
                    TaskStatus.REASON_SLAVE_DISCONNECTED,
                )

    def lost(self, agent: Agent) -> None:
        """It does not answer; its tasks may come back with it."""
        log.warning("Marking agent %s at %s (%s) unreachable", agent.id, agent.pid, agent.info.hostname)
        self.counted["slave_unreachable_completed"] += 1
        self._take_away(agent, TASK_UNREACHABLE, "is unreachable")
        self.unreachable[agent.id] = agent

    def remove(self, agent: Agent, reason: str) -> None:
        """It has gone for good.

        :param reason: `unregistered` or `registered`, anew.
        """
        log.info("Removing agent %s at %s (%s): %s", agent.id, agent.pid, agent.info.hostname, reason)
        self.counted["slave_removals"] += 1
        self.counted[f"slave_removals/reason_{reason}"] += 1
        self._take_away(agent, TASK_GONE, "has been removed")
        self.registry.remove_agent(agent.id)

    def _take_away(self, agent: Agent, state: "TaskState", how: str) -> None:
        self.offers.rescind_of_agent(agent)
        for task in list(agent.tasks.values()):
            message = f"Agent {agent.info.hostname} {how}"
            self._lose(task, agent, state, message, TaskStatus.REASON_SLAVE_REMOVED)
        self.agents.pop(agent.id, None)
        for framework in self.frameworks.values():
            framework.tell("FAILURE", failure={"agent_id": {"value": agent.id}})

    def _lose(
        self, task: Task, agent: Agent, state: "TaskState", message: str, reason: "TaskStatus.Reason"
    ) -> None:
        framework = self.frameworks.get(task.framework_id.value)
        if task.state not in OVER:
            task.state = _known_to(framework, state)
            if framework is not None:
                self._say(framework, task.task_id, task.slave_id, task.state, message, reason)
        self._forget(task)

    def updated(self, agent: Agent, update: messages.StatusUpdate) -> None:
        """A task's state, for its framework."""
        self.counted["messages_status_update"] += 1
        framework = self.frameworks.get(update.framework_id.value)
        if framework is None or update.slave_id.value != agent.id:
            self.counted["invalid_status_updates"] += 1
            log.warning("Ignoring a status update of task %s of no framework here", update.status.task_id.value[:100])
            return
        self.counted["valid_status_updates"] += 1
        status = TaskStatus()
        status.CopyFrom(update.status)
        status.slave_id.value = agent.id
        status.uuid = update.uuid
        task = agent.tasks.get((framework.id, status.task_id.value))
        if task is not None:
            latest = update.latest_state if update.HasField("latest_state") else status.state
            if latest in OVER and task.state not in OVER:
                self.counted[f"tasks_{_short(latest)}"] += 1
            task.state = latest
            task.status_update_state = status.state
            task.status_update_uuid = update.uuid
            if not any(each.uuid == status.uuid for each in task.statuses):
                task.statuses.append(status)
            if latest in OVER:
                self.offers.soon()
        framework.tell("UPDATE", update={"status": to_json(status)})

    # Frameworks

    def subscribe(self, info: FrameworkInfo, suppressed: Iterable[str], stream: Stream) -> Framework:
        """A framework, new or with its id.

        :raises ParseError, ConflictError: it cannot be one.
        """
        _check_framework(info)
        framework_id = info.id.value
        if framework_id and self.registry.is_removed(framework_id):
            raise ConflictError("Framework has been removed")
        if not framework_id:
            framework_id = info.id.value = self.registry.new_framework_id()
        known = self.frameworks.get(framework_id)
        if known is not None and known.info.principal != info.principal:
            raise ConflictError("Changing framework's principal is not allowed.")
        framework = known or Framework(framework_id, info)
        if known is not None:
            known.reregistered = time.time()
            if known.stream is not None:
                known.tell("ERROR", error={"message": "Framework failed over"})
                known.stream.end()
            self.offers.drop_of_framework(known)
        self._expire_not(framework)
        framework.info, framework.stream, framework.recovered = info, stream, False
        framework.suppressed = set(suppressed)
        self.frameworks[framework_id] = framework
        self.registry.put_framework(framework_id, to_json(info))
        log.info("Subscribed framework %s (%s)", framework_id, info.name)
        for agent in self.agents.values():
            agent.send(
                messages.UpdateFrameworkMessage(
                    framework_id={"value": framework_id}, pid="@0.0.0.0:0", framework_info=info
                )
            )
        self.offers.soon()
        return framework

    def unsubscribed(self, framework: Framework, stream: Stream) -> None:
        """A stream has ended; the framework may subscribe again."""
        if framework.stream is not stream:
            return
        framework.stream = None
        log.info("Framework %s (%s) is disconnected", framework.id, framework.info.name)
        self.offers.drop_of_framework(framework)
        if framework.id in self.frameworks:
            self._expire_later(framework, framework.info.failover_timeout)
            self.offers.soon()

    def tear_down(self, framework: Framework) -> None:
        """End it and its tasks."""
        log.info("Removing framework %s (%s)", framework.id, framework.info.name)
        self._expire_not(framework)
        self.offers.drop_of_framework(framework)
        for agent in self.agents.values():
            agent.send(messages.ShutdownFrameworkMessage(framework_id={"value": framework.id}))
        for task in list(framework.tasks.values()):
            if task.state not in OVER:
                task.state = TASK_KILLED
            self._forget(task)
        framework.unregistered = time.time()
        del self.frameworks[framework.id]
        self.completed.append(framework)
        self.registry.remove_framework(framework.id)
        if framework.stream is not None:
            framework.stream.end()
        self.offers.soon()

    def _learn_framework(self, info: FrameworkInfo) -> None:
        """One whose tasks an agent has, and which has not subscribed yet."""
        framework_id = info.id.value
        if framework_id not in self.frameworks and not self.registry.is_removed(framework_id):
            framework = self.frameworks[framework_id] = Framework(framework_id, info, recovered=True)
            self._expire_later(framework, max(info.failover_timeout, _RECOVERED_SECS))

    def _expire_later(self, framework: Framework, seconds: float) -> None:
        self._expire_not(framework)
        loop = asyncio.get_running_loop()
        self._timers[framework.id] = loop.call_later(min(seconds, 1e8), self.tear_down, framework)

    def _expire_not(self, framework: Framework) -> None:
        if (timer := self._timers.pop(framework.id, None)) is not None:
            timer.cancel()

    # What frameworks want

    def accept(
        self, framework: Framework, offer_ids: Iterable[str], tasks: Iterable[TaskInfo], refuse_secs: float
    ) -> None:
        """Launch tasks on offers of one agent."""
        offers, problem = self._taken(framework, offer_ids)
        if problem is not None:
            state, reason = _known_to(framework, TASK_DROPPED), TaskStatus.REASON_INVALID_OFFERS
            message = f"Task launched with invalid offers: {problem}"
            for info in tasks:
                self._say(framework, info.task_id, info.slave_id, state, message, reason)
            self.offers.soon()
            return
        agent, role = offers[0].agent, offers[0].role
        left = sum((each.bundle for each in offers), Bundle())
        for info in tasks:
            left -= self._launch(framework, agent, role, left, info)
        self.offers.refuse(framework, agent, role, left, refuse_secs)
        self.offers.soon()

    def _launch(self, framework: Framework, agent: Agent, role: str, left: Bundle, info: TaskInfo) -> Bundle:
        """What it takes; nothing if it is not launched."""
        launching.allocate(info, role)
        self.counted["messages_launch_tasks"] += 1
        try:
            takes = launching.check(info, framework, agent, left)
        except ParseError as error:
            self.counted["tasks_error"] += 1
            reason = TaskStatus.REASON_TASK_INVALID
            self._say(framework, info.task_id, info.slave_id, TASK_ERROR, str(error), reason)
            return Bundle()
        limit = self.limit(agent)
        if limit is not None and len(agent.alive()) >= limit:
            state = _known_to(framework, TASK_DROPPED)
            message = f"Agent {agent.info.hostname} has reached the maximum number of executors, {limit}"
            self._say(framework, info.task_id, info.slave_id, state, message, TaskStatus.REASON_INVALID_OFFERS)
            return Bundle()
        task = launching.new_task(info, framework.id)
        agent.tasks[framework.id, info.task_id.value] = framework.tasks[info.task_id.value] = task
        log.info("Launching task %s of framework %s on agent %s", info.task_id.value, framework.id, agent.id)
        agent.send(
            messages.RunTaskMessage(
                framework_id={"value": framework.id}, framework=framework.info, pid="@0.0.0.0:0", task=info
            )
        )
        return takes

    def decline(self, framework: Framework, offer_ids: Iterable[str], refuse_secs: float) -> None:
        """Not want offers."""
        for offer_id in offer_ids:
            if (offer := framework.offers.get(offer_id)) is not None:
                self.offers.take(offer)
                self.offers.refuse(framework, offer.agent, offer.role, offer.bundle, refuse_secs)
        self.offers.soon()

    def _taken(self, framework: Framework, offer_ids: Iterable[str]) -> tuple[list[Offer], str | None]:
        offers, problem = [], None
        for offer_id in offer_ids:
            offer = framework.offers.get(offer_id)
            if offer is None:
                problem = f"Offer {offer_id[:100]} is no longer valid"
            else:
                self.offers.take(offer)
                offers.append(offer)
        if not offers:
            problem = problem or "No offers specified"
        elif len({each.agent.id for each in offers}) > 1:
            problem = problem or "Offers are of several agents"
        elif len({each.role for each in offers}) > 1:
            problem = problem or "Offers are allocated to several roles"
        return offers, problem

    def revive(self, framework: Framework, roles: Iterable[str]) -> None:
        """Be offered everything again."""
        for role in set(roles) or set(framework.roles):
            framework.suppressed.discard(role)
            for key in [key for key in framework.filters if key[1] == role]:
                del framework.filters[key]
        self.offers.soon()

    def suppress(self, framework: Framework, roles: Iterable[str]) -> None:
        """Be offered nothing."""
        framework.suppressed |= set(roles) or set(framework.roles)

    def kill(self, framework: Framework, task_id: TaskID, policy: KillPolicy | None) -> None:
        """End a task."""
        self.counted["messages_kill_task"] += 1
        task = framework.tasks.get(task_id.value)
        if task is None:
            log.warning("Framework %s kills an unknown task, %s", framework.id, task_id.value[:100])
            self._reconcile(framework, task_id, None)
        elif (agent := self.agents.get(task.slave_id.value)) is not None:
            agent.send(
                messages.KillTaskMessage(
                    framework_id={"value": framework.id}, task_id=task_id, kill_policy=policy
                )
            )

    def shut_down_executor(self, framework: Framework, agent_id: str, executor_id: ExecutorID) -> None:
        """End an executor; a command task's is called as the task."""
        if (agent := self.agents.get(agent_id)) is not None:
            agent.send(
                messages.ShutdownExecutorMessage(executor_id=executor_id, framework_id={"value": framework.id})
            )

    def message(self, framework: Framework, agent_id: str, executor_id: ExecutorID, data: bytes) -> None:
        """Tell an executor something."""
        if (agent := self.agents.get(agent_id)) is not None:
            agent.send(
                messages.FrameworkToExecutorMessage(
                    slave_id={"value": agent_id},
                    framework_id={"value": framework.id},
                    executor_id=executor_id,
                    data=data,
                )
            )

    def acknowledge(self, framework: Framework, agent_id: str, task_id: TaskID, uuid: bytes) -> None:
        """It has an update."""
        self.counted["messages_status_update_acknowledgement"] += 1
        agent = self.agents.get(agent_id)
        if agent is None:
            self.counted["invalid_status_update_acknowledgements"] += 1
            return
        self.counted["valid_status_update_acknowledgements"] += 1
        task = agent.tasks.get((framework.id, task_id.value))
        if task is not None and task.status_update_uuid == uuid and task.status_update_state in OVER:
            self._forget(task)
        agent.send(
            messages.StatusUpdateAcknowledgementMessage(
                slave_id={"value": agent_id}, framework_id={"value": framework.id}, task_id=task_id, uuid=uuid
            )
        )

    def reconcile(self, framework: Framework, wanted: Iterable[tuple[TaskID, str | None]]) -> None:
        """Tell the states of tasks, or of all."""
        self.counted["messages_reconcile_tasks"] += 1
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
        elif (agent_id in self.recovered) if agent_id else self.recovered:
            return  # its agent may still tell
        else:
            state = TASK_GONE if agent_id in self.agents else TASK_UNKNOWN
            state = TASK_UNREACHABLE if agent_id in self.unreachable else state
            state, slave_id = _known_to(framework, state), SlaveID(value=agent_id or "")
            message = "Reconciliation: Task is unknown"
        self._say(framework, task_id, slave_id, state, message, TaskStatus.REASON_RECONCILIATION, task)

    # Inside

    def _say(
        self,
        framework: Framework,
        task_id: TaskID,
        slave_id: SlaveID,
        state: "TaskState",
        message: str,
        reason: "TaskStatus.Reason",
        task: Task | None = None,
    ) -> None:
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

    def _forget(self, task: Task) -> None:
        framework_id, task_id = task.framework_id.value, task.task_id.value
        agent = self.agents.get(task.slave_id.value)
        if agent is not None:
            agent.tasks.pop((framework_id, task_id), None)
        framework = self.frameworks.get(framework_id)
        if framework is not None and framework.tasks.pop(task_id, None) is not None:
            framework.completed.append(task)


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


def _known_to(framework: Framework | None, state: "TaskState") -> "TaskState":
    """Frameworks that do not know of partitions hear TASK_LOST instead."""
    return state if framework is not None and framework.has(PARTITION_AWARE) else TASK_LOST


def _short(state: "TaskState") -> str:
    return TaskState.Name(state).removeprefix("TASK_").lower()
