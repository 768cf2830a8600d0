"""One snapshot of all containers, and every view of it.

A view never asks the kernel: JSON, tables and metrics are made from the same `Snapshot`, and readers that come while
one is being taken wait for that one instead of taking their own.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from portslice.containers.container import Container
from portslice.containers.containerizer import Containerizer
from portslice.containers.isolators import Statistics


@dataclass(frozen=True)
class Usage:
    """A container and what it used; `statistics` are members of Mesos' ResourceStatistics by name."""

    container: Container
    statistics: Statistics

    def monitor_json(self) -> dict[str, Any]:
        """An element of /monitor/statistics. A container that no framework launched has an empty framework_id."""
        return {
            "executor_id": self.container.name,
            "executor_name": self.container.executor_name,
            "framework_id": self.container.framework_id,
            "source": self.container.source,
            "statistics": self.statistics,
        }

    def containers_json(self) -> dict[str, Any]:
        """An element of /containers."""
        status: dict[str, Any] = {"container_id": {"value": self.container.id}}
        if self.container.init is not None:
            status["executor_pid"] = self.container.init.pid
        return {**self.monitor_json(), "container_id": self.container.id, "status": status}


Snapshot = tuple[Usage, ...]


def executors(snapshot: Snapshot) -> Snapshot:
    """Without the standalone containers, of which Mesos tells in GET_CONTAINERS alone."""
    return tuple(usage for usage in snapshot if not usage.container.standalone)


class Snapshots:
    """Takes snapshots, at most one at a time."""

    def __init__(self, containerizer: Containerizer) -> None:
        self._containerizer = containerizer
        self._running: asyncio.Task[Snapshot] | None = None

    async def take(self) -> Snapshot:
        """The snapshot that is being taken, or a new one."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(asyncio.to_thread(self._collect))
        return await asyncio.shield(self._running)

    def _collect(self) -> Snapshot:
        usages = ((each, self._containerizer.usage(each)) for each in self._containerizer.living())
        return tuple(Usage(container, statistics) for container, statistics in usages if statistics is not None)
