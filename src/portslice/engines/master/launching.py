"""Offers are accepted or declined, and tasks launched on them."""

import logging
from collections.abc import Iterable, Sequence

from portslice.engines.master import validation
from portslice.engines.master.bundle import Bundle
from portslice.engines.master.cluster import Cluster
from portslice.engines.master.executors import Executors
from portslice.engines.master.model import Agent, Framework, Offer
from portslice.engines.master.offers import Offers
from portslice.engines.master.tasks import Tasks, known_to
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.schema.mesos_pb2 import TASK_DROPPED, TASK_ERROR, ExecutorInfo, TaskInfo, TaskStatus
from portslice.engines.mesos.schema.scheduler_pb2 import Operation
from portslice.errors import ParseError

log = logging.getLogger(__name__)


class Launching:
    """What frameworks answer to offers."""

    def __init__(self, cluster: Cluster, offers: Offers, tasks: Tasks, executors: Executors) -> None:
        self._cluster = cluster
        self._offers = offers
        self._tasks = tasks
        self._executors = executors

    def accept(
        self, framework: Framework, offer_ids: Iterable[str], operations: Sequence[Operation], refuse_secs: float
    ) -> None:
        """Launch tasks on offers of one agent, alone (LAUNCH) or in groups (LAUNCH_GROUP)."""
        offers, problem = self._taken(framework, offer_ids)
        if problem is not None:
            tasks = [info for each in operations for info in (*each.launch.task_infos, *_group(each))]
            self._drop(framework, tasks, f"Task launched with invalid offers: {problem}")
            self._offers.soon()
            return
        agent, role = offers[0].agent, offers[0].role
        left = sum((each.bundle for each in offers), Bundle())
        for operation in operations:
            for info in operation.launch.task_infos:
                left -= self._launch(framework, agent, role, left, info)
            if operation.HasField("launch_group"):
                left -= self._launch_group(framework, agent, role, left, operation.launch_group)
        self._offers.refuse(framework, agent, role, left, refuse_secs)
        self._offers.soon()

    def _launch(self, framework: Framework, agent: Agent, role: str, left: Bundle, info: TaskInfo) -> Bundle:
        """What it takes; nothing if it is not launched."""
        validation.allocate(info, role)
        if info.HasField("executor"):
            validation.allocate(info.executor, role)
            if not info.executor.HasField("framework_id"):
                info.executor.framework_id.value = framework.id
        try:
            takes = validation.check(info, framework, agent, left)
        except ParseError as error:
            self._refuse(framework, [info], str(error), TaskStatus.REASON_TASK_INVALID)
            return Bundle()
        executor = info.executor if info.HasField("executor") else None
        launched = self._put(framework, agent, [info], executor)
        if launched is None:
            return Bundle()
        agent.send(
            messages.RunTaskMessage(
                framework_id={"value": framework.id},
                framework=framework.info,
                pid="@0.0.0.0:0",
                task=info,
                launch_executor=launched,
            )
        )
        return takes

    def _launch_group(
        self, framework: Framework, agent: Agent, role: str, left: Bundle, group: Operation.LaunchGroup
    ) -> Bundle:
        """What it takes: all of its tasks are launched, or none."""
        executor, tasks = group.executor, group.task_group.tasks
        validation.allocate(executor, role)
        for info in tasks:
            validation.allocate(info, role)
            if info.HasField("executor"):
                validation.allocate(info.executor, role)
        try:
            takes = validation.check_group(tasks, executor, framework, agent, left)
        except ParseError as error:
            self._refuse(framework, tasks, str(error), TaskStatus.REASON_TASK_GROUP_INVALID)
            return Bundle()
        for each in tasks:
            each.executor.CopyFrom(executor)
        launched = self._put(framework, agent, tasks, executor)
        if launched is None:
            return Bundle()
        agent.send(
            messages.RunTaskGroupMessage(
                framework=framework.info, executor=executor, task_group=group.task_group, launch_executor=launched
            )
        )
        return takes

    def _put(
        self, framework: Framework, agent: Agent, tasks: Sequence[TaskInfo], executor: ExecutorInfo | None
    ) -> bool | None:
        """There are these tasks now. Whether their executor is new; None if the agent has no room for it."""
        limit = self._cluster.limit(agent)
        new = executor is None or (framework.id, executor.executor_id.value) not in agent.executors
        if new and limit is not None and agent.containers() >= limit:
            host = agent.info.hostname
            self._drop(framework, tasks, f"Agent {host} has reached the maximum number of executors, {limit}")
            return None
        if executor is not None:
            self._executors.put(framework, agent, executor)
        for info in tasks:
            log.info("Launching task %s of framework %s on agent %s", info.task_id.value, framework.id, agent.id)
            self._tasks.put(framework, agent, validation.new_task(info, framework.id))
        return new

    def _refuse(
        self, framework: Framework, tasks: Iterable[TaskInfo], message: str, reason: "TaskStatus.Reason"
    ) -> None:
        for info in tasks:
            self._cluster.counted["tasks_error"] += 1
            self._tasks.say(framework, info.task_id, info.slave_id, TASK_ERROR, message, reason)

    def _drop(self, framework: Framework, tasks: Iterable[TaskInfo], message: str) -> None:
        state, reason = known_to(framework, TASK_DROPPED), TaskStatus.REASON_INVALID_OFFERS
        for info in tasks:
            self._tasks.say(framework, info.task_id, info.slave_id, state, message, reason)

    def decline(self, framework: Framework, offer_ids: Iterable[str], refuse_secs: float) -> None:
        """Not want offers."""
        for offer_id in offer_ids:
            if (offer := framework.offers.get(offer_id)) is not None:
                self._offers.take(offer)
                self._offers.refuse(framework, offer.agent, offer.role, offer.bundle, refuse_secs)
        self._offers.soon()

    def _taken(self, framework: Framework, offer_ids: Iterable[str]) -> tuple[list[Offer], str | None]:
        offers, problem = [], None
        for offer_id in offer_ids:
            offer = framework.offers.get(offer_id)
            if offer is None:
                problem = f"Offer {offer_id[:100]} is no longer valid"
            else:
                self._offers.take(offer)
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
        self._offers.soon()

    def suppress(self, framework: Framework, roles: Iterable[str]) -> None:
        """Be offered nothing."""
        framework.suppressed |= set(roles) or set(framework.roles)


def _group(operation: Operation) -> Iterable[TaskInfo]:
    return operation.launch_group.task_group.tasks
