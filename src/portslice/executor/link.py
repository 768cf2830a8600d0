"""The connection that is held to the agent.

An executor subscribes, and is told by events what to do; its status updates are calls, made one after the other. It
keeps each update until the agent has acknowledged it, and each task until one of its updates is acknowledged. When the
connection breaks it subscribes again, telling of both, so that an agent that has just started learns what it missed. It
waits for that agent as long as `Settings.recovery_secs`, if the framework has checkpoints; otherwise not at all.
"""

import asyncio
import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from portslice.executor.api import Api, ApiError
from portslice.executor.settings import Settings

log = logging.getLogger(__name__)

_HEARTBEAT_SECS = 1800.0  # Mesos' DEFAULT_EXECUTOR_HEARTBEAT_INTERVAL
_REGISTRATION_SECS = 60.0  # Mesos' --executor_registration_timeout


class Link:
    """One executor's.

    :param handle: called with each event; what it raises at an event that is not well formed is logged.
    :param lost: called once, when there is no agent any more.
    """

    def __init__(
        self, settings: Settings, handle: Callable[[dict[str, Any]], None], lost: Callable[[str], None]
    ) -> None:
        self._api = Api(settings.host, settings.port, settings.framework_id, settings.executor_id)
        self._settings = settings
        self._handle = handle
        self._lost = lost
        self._tasks: dict[str, dict[str, Any]] = {}
        self._updates: dict[str, dict[str, Any]] = {}
        self._calls: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self.subscribed = False

    @property
    def unacknowledged(self) -> int:
        """How many updates the agent has not acknowledged yet."""
        return len(self._updates)

    def launched(self, task: dict[str, Any]) -> None:
        """There is a task, a TaskInfo, from now on."""
        self._tasks[task["task_id"]["value"]] = task

    def update(self, status: dict[str, Any]) -> None:
        """Have a TaskStatus delivered."""
        self._updates[status["uuid"]] = update = {"status": status}
        self._calls.put_nowait(("UPDATE", {"update": update}))

    async def run(self) -> None:
        """Hold it, for ever."""
        patience = asyncio.get_running_loop().call_later(
            max(_REGISTRATION_SECS, self._settings.recovery_secs if self._settings.checkpoint else 0),
            self._lost,
            "The agent has not let this executor subscribe",
        )
        said = ""
        while True:
            why = await self._hold(patience)
            if self.subscribed:
                self.subscribed = False
                patience.cancel()
                patience = self._be_patient()
            if why != said:  # not at each attempt
                log.warning("%s", said := why)
            await asyncio.sleep(random.uniform(0.1, 0.5) * self._settings.backoff_secs)

    def _be_patient(self) -> asyncio.TimerHandle:
        secs = self._settings.recovery_secs if self._settings.checkpoint else 0
        why = f"Recovery timeout of {secs:g} s exceeded" if secs else "The framework does not checkpoint"
        return asyncio.get_running_loop().call_later(secs, self._lost, why)

    async def _hold(self, patience: asyncio.TimerHandle) -> str:
        """One connection, to its end; why it ended."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[dict[str, Any] | ApiError] = asyncio.Queue()
        self._calls = asyncio.Queue()  # what was in it is told of here
        subscription = {
            "unacknowledged_tasks": list(self._tasks.values()),
            "unacknowledged_updates": list(self._updates.values()),
        }

        def read() -> None:
            with suppress(RuntimeError):  # the loop has been closed
                try:
                    for event in self._api.subscribe(subscription):
                        loop.call_soon_threadsafe(events.put_nowait, event)
                except ApiError as error:
                    loop.call_soon_threadsafe(events.put_nowait, error)

        threading.Thread(target=read, name="events", daemon=True).start()
        helpers: list[asyncio.Task[None]] = []
        try:
            while not isinstance(event := await events.get(), ApiError):
                if event.get("type") == "SUBSCRIBED" and not self.subscribed:
                    self.subscribed = True
                    patience.cancel()
                    helpers = [asyncio.create_task(self._send(self._calls)), asyncio.create_task(self._beat())]
                self._received(event)
            return str(event)
        finally:
            for helper in helpers:
                helper.cancel()
            self._api.hang_up()

    def _received(self, event: dict[str, Any]) -> None:
        try:
            if event["type"] == "ACKNOWLEDGED":
                self._updates.pop(event["acknowledged"]["uuid"], None)
                self._tasks.pop(event["acknowledged"]["task_id"]["value"], None)
            self._handle(event)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            log.exception("Ignoring an event that is not well formed: %s", str(event)[:500], exc_info=error)

    async def _send(self, calls: "asyncio.Queue[tuple[str, dict[str, Any]]]") -> None:
        while True:
            kind, body = await calls.get()
            try:
                await asyncio.to_thread(self._api.call, kind, **body)
            except ApiError as error:
                log.error("%s", error)
                self._api.hang_up()
                return

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECS)
            self._calls.put_nowait(("HEARTBEAT", {}))
