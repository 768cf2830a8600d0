"""Work of an event loop that nobody waits for: kept, so that it is not lost, and its failure is told."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Background:
    """Such works, while they last."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin; what fails is logged."""
        task = asyncio.create_task(work)
        self.keep(task)
        task.add_done_callback(report)

    def keep(self, task: "asyncio.Task[Any]") -> None:
        """Keep one that somebody else waits for."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait(self) -> None:
        """Until there is none any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def cancel(self) -> None:
        """End all."""
        for task in self._tasks:
            task.cancel()


def report(task: "asyncio.Task[Any]") -> None:
    """Log how a task failed, if it has."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("Unexpected error: %s", error, exc_info=error)
