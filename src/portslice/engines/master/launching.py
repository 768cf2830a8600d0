"""Offers are accepted or declined, and tasks launched on them."""

import logging
from collections.abc import Iterable

from portslice.engines.master import validation
from portslice.engines.master.bundle import Bundle
from portslice.engines.master.cluster import Cluster
from portslice.engines.master.model import Agent, Framework, Offer
from portslice.engines.master.offers import Offers
from portslice.engines.master.tasks import Tasks, known_to
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.schema.mesos_pb2 import TASK_DROPPED, TASK_ERROR, TaskInfo, TaskStatus
from portslice.errors import ParseError

log = logging.getLogger(__name__)


class Launching:
    """What frameworks answer to offers."""

    def __init__(self, cluster: Cluster, offers: Offers, tasks: Tasks) -> None:
        self._cluster = cluster
        self._offers = offers
        self._tasks = tasks

    def accept(
        self, framework: Framework, offer_ids: Iterable[str], tasks: Iterable[TaskInfo], refuse_secs: float
    ) -> None:
        """Launch tasks on offers of one agent."""
        offers, problem = self._taken(framework, offer_ids)
        if problem is not None:
            state, reason = known_to(framework, TASK_DROPPED), TaskStatus.REASON_INVALID_OFFERS
            message = f"Task launched with invalid offers: {problem}"
            for info in tasks:
                self._tasks.say(framework, info.task_id, info.slave_id, state, message, reason)
            self._offers.soon()
            return
        agent, role = offers[0].agent, offers[0].role
        left = sum((each.bundle for each in offers), Bundle())
        for info in tasks:
            left -= self._launch(framework, agent, role, left, info)
        self._offers.refuse(framework, agent, role, left, refuse_secs)
        self._offers.soon()

    def _launch(self, framework: Framework, agent: Agent, role: str, left: Bundle, info: TaskInfo) -> Bundle:
        """What it takes; nothing if it is not launched."""
        validation.allocate(info, role)
        self._cluster.counted["messages_launch_tasks"] += 1
        try:
            takes = validation.check(info, framework, agent, left)
        except ParseError as error:
            self._cluster.counted["tasks_error"] += 1
            reason = TaskStatus.REASON_TASK_INVALID
            self._tasks.say(framework, info.task_id, info.slave_id, TASK_ERROR, str(error), reason)
            return Bundle()
        limit = self._cluster.limit(agent)
        if limit is not None and len(agent.alive()) >= limit:
            state = known_to(framework, TASK_DROPPED)
            message = f"Agent {agent.info.hostname} has reached the maximum number of executors, {limit}"
            self._tasks.say(framework, info.task_id, info.slave_id, state, message, TaskStatus.REASON_INVALID_OFFERS)
            return Bundle()
        task = validation.new_task(info, framework.id)
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
