"""Executors that frameworks bring: from the first task to the exit, which the agent tells of.

An executor's resources are taken once, however many tasks it has. A command task has none of its own here: what the
agent runs for it is its own affair, and that one's exit is nobody's.
"""

import logging
from collections.abc import Iterable

from portslice.engines.master.cluster import Cluster
from portslice.engines.master.model import Agent, Framework
from portslice.engines.master.offers import Offers
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.schema.mesos_pb2 import ExecutorID, ExecutorInfo
from portslice.engines.mesos.v1 import to_json

log = logging.getLogger(__name__)


class Executors:
    """All executors of a cluster."""

    def __init__(self, cluster: Cluster, offers: Offers) -> None:
        self._cluster = cluster
        self._offers = offers

    def put(self, framework: Framework, agent: Agent, info: ExecutorInfo) -> bool:
        """There is this one now. Whether it is new."""
        key = framework.id, info.executor_id.value
        new = key not in agent.executors
        agent.executors[key] = framework.executors[agent.id, info.executor_id.value] = info
        return new

    def restore(self, agent: Agent, infos: Iterable[ExecutorInfo]) -> None:
        """An agent that is back has these, and no others that were known of it."""
        for framework in self._cluster.frameworks.values():
            for key in [key for key in framework.executors if key[0] == agent.id]:
                del framework.executors[key]
        for info in infos:
            if (owner := self._cluster.frameworks.get(info.framework_id.value)) is not None:
                self.put(owner, agent, info)

    def forget(self, agent: Agent, framework_id: str | None = None) -> None:
        """Those of an agent have gone; or only a framework's there."""
        for key in [key for key in agent.executors if framework_id in (None, key[0])]:
            self._remove(agent, *key)

    def exited(self, agent: Agent, message: messages.ExitedExecutorMessage) -> None:
        """The agent says so; the tasks' last updates are messages of their own."""
        framework_id, executor_id = message.framework_id.value, message.executor_id.value
        if not self._remove(agent, framework_id, executor_id):
            return
        log.info(
            "Executor %s of framework %s on agent %s exited with status %s",
            executor_id, framework_id, agent.id, message.status,
        )  # fmt: skip
        self._offers.soon()
        if (framework := self._cluster.frameworks.get(framework_id)) is not None:
            failure = {
                "agent_id": {"value": agent.id},
                "executor_id": to_json(message.executor_id),
                "status": message.status,
            }
            framework.tell("FAILURE", failure=failure)

    def shut_down(self, framework: Framework, agent_id: str, executor_id: ExecutorID) -> None:
        """End an executor; a command task's is called as the task."""
        if (agent := self._cluster.agents.get(agent_id)) is not None:
            agent.send(
                messages.ShutdownExecutorMessage(executor_id=executor_id, framework_id={"value": framework.id})
            )

    def message(self, framework: Framework, agent_id: str, executor_id: ExecutorID, data: bytes) -> None:
        """Tell an executor something."""
        if (agent := self._cluster.agents.get(agent_id)) is not None:
            self._cluster.counted["messages_framework_to_executor"] += 1
            agent.send(
                messages.FrameworkToExecutorMessage(
                    slave_id={"value": agent_id},
                    framework_id={"value": framework.id},
                    executor_id=executor_id,
                    data=data,
                )
            )

    def said(self, agent: Agent, message: messages.ExecutorToFrameworkMessage) -> None:
        """Tell a framework what its executor says."""
        framework = self._cluster.frameworks.get(message.framework_id.value)
        if framework is None or message.slave_id.value != agent.id:
            log.warning("Ignoring a message of executor %s of no framework here", message.executor_id.value[:100])
            return
        said = {
            to: value
            for to, value in to_json(message).items()
            if to in ("agent_id", "executor_id", "data")
        }
        framework.tell("MESSAGE", message=said)

    def _remove(self, agent: Agent, framework_id: str, executor_id: str) -> bool:
        framework = self._cluster.frameworks.get(framework_id)
        if framework is not None:
            framework.executors.pop((agent.id, executor_id), None)
        return agent.executors.pop((framework_id, executor_id), None) is not None
