"""From events to tasks, and from their ends to the executor's.

LAUNCH brings the one task of a container, LAUNCH_GROUP a group. When a task of a group fails or is killed, the others
are killed, which is Mesos' default policy. When all tasks of all groups have ended and the agent has acknowledged what
was said of them, the executor ends. SHUTDOWN kills them all; so does the loss of the agent, and then nobody is waited
for.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Any

from portslice.executor.link import Link
from portslice.executor.process import Processes
from portslice.executor.settings import Settings
from portslice.executor.task import Task

log = logging.getLogger(__name__)

_LINGER_SECS = 60.0  # for acknowledgements after the last task has ended, as Mesos' default executor
_TELLING_SECS = 2.0  # of the grace of a shutdown, to tell of the tasks' ends


class Supervisor:
    """One executor.

    :param environment: its own, and its tasks' but for what is theirs.
    :param switch_user: a task must ask for the user that this runs as.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str], *, switch_user: bool) -> None:
        self._settings = settings
        self._switch_user = switch_user
        self._environment = environment
        self._processes = Processes()
        self._link = Link(settings, self._handle, self._lost)
        self._tasks: dict[str, Task] = {}  # that have not ended
        self._groups: dict[str, list[Task]] = {}  # of each of them
        self._began = False
        self._capabilities: set[str] = set()
        self._shutting_down = False
        self._alone = False  # there is no agent any more
        self._lingering: asyncio.TimerHandle | None = None
        self._end = asyncio.Event()

    async def run(self) -> None:
        """Be the executor, until it ends."""
        link = asyncio.create_task(self._link.run())
        link.add_done_callback(lambda _: self._end.set())
        await self._end.wait()
        self._processes.destroy()
        if link.done():
            link.result()
        link.cancel()

    def shut_down(self) -> None:
        """End all tasks, and then the executor; before the agent would do it by force."""
        if self._shutting_down:
            return
        log.info("Shutting down")
        self._shutting_down = True
        grace_secs = self._settings.grace_secs
        for task in list(self._tasks.values()):
            task.kill(at_most_secs=grace_secs - min(grace_secs / 2, _TELLING_SECS))
        asyncio.get_running_loop().call_later(grace_secs, self._end.set)
        self._end_if_done()

    # Inside

    def _lost(self, why: str) -> None:
        log.warning("%s", why)
        self._alone = True
        self.shut_down()
        self._end_if_done()

    def _handle(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "SUBSCRIBED":
                framework = event["subscribed"]["framework_info"]
                self._capabilities = {each.get("type", "") for each in framework.get("capabilities", ())}
                log.info("Subscribed executor '%s'", self._settings.executor_id)
            case "LAUNCH":
                self._launch([event["launch"]["task"]], alone=True)
            case "LAUNCH_GROUP":
                self._launch(event["launch_group"]["task_group"]["tasks"], alone=False)
            case "KILL":
                self._kill(event["kill"])
            case "ACKNOWLEDGED":
                self._end_if_done()
            case "SHUTDOWN":
                self.shut_down()
            case "ERROR":
                log.error("The agent reports an error: %s", event["error"].get("message"))
            case "MESSAGE" | "HEARTBEAT":
                pass
            case other:
                log.warning("Ignoring an event of the unknown type %r", other)

    def _launch(self, infos: list[dict[str, Any]], *, alone: bool) -> None:
        ids = [info["task_id"]["value"] for info in infos]
        if self._shutting_down:
            log.warning("Ignoring the launch of %s: shutting down", ids)
            return
        if len({*ids, *self._tasks}) < len(ids) + len(self._tasks):
            log.warning("Ignoring the launch of %s: there is a task of this id already", ids)
            return
        self._began = True
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        group = [self._task(info, alone=alone) for info in infos]
        for task, info in zip(group, infos, strict=True):
            self._tasks[task.id] = task
            self._groups[task.id] = group
            self._link.launched(info)
        for task in group:
            task.start(self._processes)

    def _task(self, info: dict[str, Any], *, alone: bool) -> Task:
        return Task(
            info,
            alone=alone,
            switch_user=self._switch_user,
            announce_kill="TASK_KILLING_STATE" in self._capabilities,
            sandbox=self._settings.sandbox,
            directory="." if alone else os.path.join("tasks", info["task_id"]["value"]),
            environment=self._environment,
            say=self._say,
            over=self._over,
        )

    def _kill(self, kill: dict[str, Any]) -> None:
        task = self._tasks.get(kill["task_id"]["value"])
        if task is None:
            log.warning("Ignoring kill for task '%s' as it is no longer active", kill["task_id"]["value"])
        else:
            task.kill(kill)

    def _say(self, status: dict[str, Any]) -> None:
        self._link.update({**status, "executor_id": {"value": self._settings.executor_id}})

    def _over(self, ended: Task, state: str) -> None:
        del self._tasks[ended.id]
        group = self._groups.pop(ended.id)
        if state != "TASK_FINISHED":
            for task in group:
                task.kill()
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._tasks or not (self._began or self._shutting_down):
            return
        if self._alone or not self._link.unacknowledged:
            self._end.set()
        elif self._lingering is None:
            self._linger()

    def _linger(self) -> None:
        self._lingering = asyncio.get_running_loop().call_later(_LINGER_SECS, self._stop_lingering)

    def _stop_lingering(self) -> None:
        if self._link.subscribed:
            log.warning("Terminating without acknowledgements")
            self._end.set()
        else:
            self._linger()  # the agent may come back; the link knows how long to wait for it
