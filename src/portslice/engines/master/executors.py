"""Executors: what frameworks want of them."""

from portslice.engines.master.cluster import Cluster
from portslice.engines.master.model import Framework
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.schema.mesos_pb2 import ExecutorID


class Executors:
    """All executors of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def shut_down(self, framework: Framework, agent_id: str, executor_id: ExecutorID) -> None:
        """End an executor; a command task's is called as the task."""
        if (agent := self._cluster.agents.get(agent_id)) is not None:
            agent.send(
                messages.ShutdownExecutorMessage(executor_id=executor_id, framework_id={"value": framework.id})
            )

    def message(self, framework: Framework, agent_id: str, executor_id: ExecutorID, data: bytes) -> None:
        """Tell an executor something."""
        if (agent := self._cluster.agents.get(agent_id)) is not None:
            agent.send(
                messages.FrameworkToExecutorMessage(
                    slave_id={"value": agent_id},
                    framework_id={"value": framework.id},
                    executor_id=executor_id,
                    data=data,
                )
            )
