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
        """A framework with tasks here, as `FrameworkInfo` of the v1 API; None: nobody knows it any more."""

    def task_state(self, container: Container) -> str | None:
        """The state of a container's task (Mesos' `TaskState`); None as in `task`."""

    def task(self, container: Container) -> dict[str, Any] | None:
        """The task of a container, as `Task` of the v1 API; None: it is none, or nobody knows it any more."""


class Alone:
    """No cluster."""

    agent_id: str | None = None
    master_hostname: str | None = None
    registered = False
    capabilities: tuple[str, ...] = ()

    def framework(self, framework_id: str) -> dict[str, Any] | None:
        """None."""

    def task_state(self, container: Container) -> str | None:
        """None."""

    def task(self, container: Container) -> dict[str, Any] | None:
        """None."""
