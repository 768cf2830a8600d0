"""The cluster that the agent belongs to, as far as its endpoints tell of it: an engine knows."""

from typing import Any, Protocol

from portslice.containers.container import Container


class Cluster(Protocol):
    """What an engine knows. May be asked in any thread."""

    @property
    def agent_id(self) -> str | None:
        """What the master calls this agent; None: it never had one."""

    @property
    def master_hostname(self) -> str | None:
        """Of the leading master; None: it is not known now."""

    @property
    def registered(self) -> bool:
        """Whether the agent is registered with the master now."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What the agent told the master that it can (Mesos' `SlaveInfo.Capability.Type`)."""

    def framework(self, framework_id: str) -> dict[str, Any] | None:
        """A framework with tasks or executors here, as `FrameworkInfo` of the v1 API; None: nobody knows it any
        more."""

    def executor(self, container: Container) -> dict[str, Any] | None:
        """The executor that a container is, as `ExecutorInfo` of the v1 API; None: only an imagined one, of a command
        task, or nobody knows it any more."""

    def task_states(self, container: Container) -> list[str] | None:
        """The states of a container's tasks (Mesos' `TaskState`); None as in `tasks`."""

    def tasks(self, container: Container) -> list[dict[str, Any]] | None:
        """The tasks of a container, as `Task` of the v1 API; None: it is of no framework, or nobody knows it any
        more."""


class Alone:
    """No cluster."""

    agent_id: str | None = None
    master_hostname: str | None = None
    registered = False
    capabilities: tuple[str, ...] = ()

    def framework(self, framework_id: str) -> dict[str, Any] | None:
        """None."""

    def executor(self, container: Container) -> dict[str, Any] | None:
        """None."""

    def task_states(self, container: Container) -> list[str] | None:
        """None."""

    def tasks(self, container: Container) -> list[dict[str, Any]] | None:
        """None."""
