"""What the agent's endpoints say of the cluster (portslice.agent.cluster).

They ask in threads of their own while records change here. So a record is copied before it is read, in one step: as
bytes, which Python's lock makes one.
"""

from typing import Any, TypeVar

from portslice.containers.container import Container
from portslice.engines.mesos import records, v1
from portslice.engines.mesos.meta import Meta
from portslice.engines.mesos.registration import Registration
from portslice.engines.mesos.schema.mesos_pb2 import SlaveInfo, TaskState
from portslice.engines.mesos.schema.record_pb2 import ExecutorRecord, TaskRecord
from portslice.engines.mesos.tasks import Tasks

_R = TypeVar("_R", TaskRecord, ExecutorRecord)


class View:
    """The cluster as this agent knows it."""

    def __init__(
        self,
        meta: Meta,
        registration: Registration,
        tasks: Tasks,
        capabilities: "tuple[SlaveInfo.Capability.Type, ...]",
    ) -> None:
        self._meta = meta
        self._registration = registration
        self._tasks = tasks
        self._capabilities = tuple(map(SlaveInfo.Capability.Type.Name, capabilities))

    @property
    def agent_id(self) -> str | None:
        slave_id = self._meta.slave_id
        return None if slave_id is None else slave_id.value

    @property
    def master_hostname(self) -> str | None:
        return self._registration.master_hostname

    @property
    def registered(self) -> bool:
        return self._registration.registered

    @property
    def capabilities(self) -> tuple[str, ...]:
        return self._capabilities

    def framework(self, framework_id: str) -> dict[str, Any] | None:
        if (task := self._tasks.ledger.known_framework(framework_id)) is not None:
            return v1.to_json(_copy(task).framework)
        executor = self._tasks.executors.known_framework(framework_id)
        return None if executor is None else v1.to_json(_copy(executor).framework)

    def executor(self, container: Container) -> dict[str, Any] | None:
        record = self._tasks.executors.of_container(container)
        return None if record is None else v1.to_json(_copy(record).executor)

    def task_states(self, container: Container) -> list[str] | None:
        found = self._tasks.ledger.of_container(container)
        if not found and self._tasks.executors.of_container(container) is None:
            return None
        return [TaskState.Name(records.state(record)) for record in found]

    def tasks(self, container: Container) -> list[dict[str, Any]] | None:
        found = self._tasks.ledger.of_container(container)
        if not found and self._tasks.executors.of_container(container) is None:
            return None
        return [v1.to_json(records.task(_copy(record))) for record in found]


def _copy(record: _R) -> _R:
    return type(record).FromString(record.SerializePartialToString())
