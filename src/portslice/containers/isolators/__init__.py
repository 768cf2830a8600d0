"""Isolators, one file each, as in Mesos: each keeps containers apart in one respect and measures them in it.

What takes too long to be measured for a request, or is about a stretch of time, is sampled in the background: an
isolator has a `Sampler` for it, and `usage` tells of the last round.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from portslice.containers.container import Change, Container, Limitation, Request

Statistics = dict[str, Any]


@dataclass(frozen=True)
class Launch:
    """What an isolator adds to the launch of a container.

    :param namespace: the network namespace to start in.
    :param join_files: `cgroup.procs` files for the first process to join.
    """

    namespace: Path | None = None
    join_files: tuple[Path, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


class Containers(Protocol):
    """What a sampler may know of the containers, and do to them."""

    def living(self) -> list[Container]:
        """Those that run."""

    def holding(self, container_id: str) -> AbstractContextManager[Container | None]:
        """The container as it is, and so it stays inside the block; None: it does not run any more. Nothing else can
        be done to any container meanwhile, so the block is to be short."""

    def limit(self, container: Container, limitation: Limitation) -> None:
        """End a container that has had more than its due. Nothing happens to one that has changed, or ended, since it
        was looked at."""


@dataclass(frozen=True)
class Sampler:
    """Something that is measured in the background, over and over.

    :param pause_secs: from the end of one round to the beginning of the next, so that a host that lags has fewer.
    :param sample: one round. It runs in the agent's event loop: what blocks is for threads and processes, and when it
        is cancelled, its processes end. That a container ends meanwhile is no error.
    """

    pause_secs: float
    sample: Callable[[Containers], Awaitable[None]]


class Isolator(Protocol):
    """One respect in which containers are kept apart."""

    name: str

    def allocate(self, container: Container, request: Request) -> Container:
        """Promise the container its share, without touching the kernel.

        :raises PortsliceError: there is none.
        """

    def prepare(self, container: Container) -> Launch:
        """Make the kernel keep the promise; the record of it is already written."""

    def isolate(self, container: Container) -> None:
        """The container's first process runs (after a launch, or found again after a restart of the agent)."""

    def reallocate(self, container: Container, change: Change) -> Container:
        """Promise a running container another share, without touching the kernel or any book.

        :param container: with what the change says of CPUs, memory and limits already in it, but the old network.
        :raises PortsliceError: it cannot be had.
        """

    def update(self, old: Container, new: Container) -> None:
        """Make the kernel keep the new promise instead of the old one; the record of it is already written.

        Called with both changed about to take back what another isolator refused.

        :raises PortsliceError, OSError: the kernel refused.
        """

    def usage(self, container: Container) -> Statistics:
        """Members of ResourceStatistics. Any error costs only these."""

    def samplers(self) -> Sequence[Sampler]:
        """What it measures in the background while the agent runs."""

    def limitation(self, container: Container) -> Limitation | None:
        """What the kernel ended a container for, which has just failed and is not taken apart yet."""

    def cleanup(self, container: Container) -> list[str]:
        """Take everything back, to the end whatever fails; what failed, in words."""

    def recover(self, containers: Iterable[Container], orphans: Iterable[str]) -> None:
        """Take up the containers on record that still live; remove what is marked ours and on nobody's record.

        :param orphans: ids of containers that were on nobody's record and have been ended.
        """

    def follow(self, containers: Iterable[Container]) -> None:
        """What the living containers share with the host may have changed there: let them have it."""

    def close(self, *, release: bool) -> None:
        """The agent stops; with `release`, no container is left and the host is to be as it was."""


class BaseIsolator:
    """An isolator that does nothing, for those that need only part of it."""

    def allocate(self, container: Container, request: Request) -> Container:
        return container

    def prepare(self, container: Container) -> Launch:
        return Launch()

    def isolate(self, container: Container) -> None: ...

    def reallocate(self, container: Container, change: Change) -> Container:
        return container

    def update(self, old: Container, new: Container) -> None: ...

    def samplers(self) -> Sequence[Sampler]:
        return ()

    def limitation(self, container: Container) -> Limitation | None:
        return None

    def cleanup(self, container: Container) -> list[str]:
        return []

    def recover(self, containers: Iterable[Container], orphans: Iterable[str]) -> None: ...

    def follow(self, containers: Iterable[Container]) -> None: ...

    def close(self, *, release: bool) -> None: ...
