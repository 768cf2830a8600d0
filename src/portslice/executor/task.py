"""The life of one task.

    start ──▶ STARTING ──▶ RUNNING ──▶ its command ends ──▶ FINISHED or FAILED
      │                       │ ▲────── health, check
      │                       └─ kill ──▶ (KILLING) ──▶ SIGTERM, later SIGKILL ──▶ KILLED
      └─ cannot be had here ──▶ FAILED

Every step is a TaskStatus. After a kill nothing more is checked, and a task that had all the time it was given
(`max_completion_time`) has failed, whatever it says itself.
"""

import asyncio
import base64
import logging
import math
import os
import signal
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from typing import Any

from portslice.errors import PortsliceError
from portslice.executor import checks
from portslice.executor.definition import Definition, kill_grace_secs
from portslice.executor.ending import ended
from portslice.executor.probes import Prober
from portslice.executor.process import Process, Processes

log = logging.getLogger(__name__)


class Task:
    """One task.

    :param info: its TaskInfo, which need not be well formed but for the id.
    :param alone: it is all that there is in the container.
    :param switch_user: it must ask for the user that this runs as.
    :param announce_kill: the framework wants to hear TASK_KILLING.
    :param sandbox: the executor's, by name.
    :param directory: the task's own, below that; made if it is not there. The executor works in its sandbox, which its
        user may not reach by name.
    :param environment: the executor's.
    :param say: takes a TaskStatus, but for what is the same for all of an executor.
    :param over: called with its last state when it has ended.
    """

    def __init__(
        self,
        info: dict[str, Any],
        *,
        alone: bool,
        switch_user: bool,
        announce_kill: bool,
        sandbox: str,
        directory: str,
        environment: Mapping[str, str],
        say: Callable[[dict[str, Any]], None],
        over: Callable[["Task", str], None],
    ) -> None:
        self.id: str = info["task_id"]["value"]
        self._info = info
        self._alone = alone
        self._switch_user = switch_user
        self._announce_kill = announce_kill
        self._sandbox = os.path.normpath(os.path.join(sandbox, directory))
        self._directory = directory
        self._environment = environment
        self._say_status = say
        self._over = over
        self._definition: Definition | None = None
        self._process: Process | None = None
        self._at_work: set[asyncio.Task[None]] = set()
        self._checks: list[asyncio.Task[None]] = []
        self._limit: asyncio.TimerHandle | None = None
        self._escalation: asyncio.TimerHandle | None = None
        self._healthy: bool | None = None
        self._check_status: dict[str, Any] | None = None
        self._unhealthy = False
        self._late = False
        self._killed = False
        self._ended = False

    def start(self, processes: Processes) -> None:
        """Start it; it may have failed at once."""
        if self._killed:
            self._end("TASK_KILLED", message="Killed before it was started", reason="REASON_TASK_KILLED_DURING_LAUNCH")
            return
        try:
            definition = Definition.read(self._info, alone=self._alone, switch_user=self._switch_user)
            self._definition = definition
            if definition.check is not None:
                self._check_status = checks.check_status(definition.check.probe, None)
            self._say("TASK_STARTING")
            environment = {
                **self._environment,
                "MESOS_SANDBOX": self._sandbox,
                "MESOS_DIRECTORY": self._sandbox,
                **definition.environment,
            }
            self._process = self._launch(processes, definition, environment)
        except (PortsliceError, OSError) as error:
            self._end("TASK_FAILED", message=str(error))
            return
        self._say("TASK_RUNNING")
        self._watch(definition, self._process, Prober(processes, environment, self._directory))

    def kill(self, policy: Mapping[str, Any] | None = None, *, at_most_secs: float = math.inf) -> None:
        """End it. Another kill can only shorten the first one's grace.

        :param policy: a message with a `kill_policy`, which goes before the task's own.
        :param at_most_secs: the grace, whatever the policies are.
        """
        process, definition = self._process, self._definition
        if process is None or definition is None:  # not started yet, or never to be
            self._killed = True
            return
        if self._ended:
            return
        grace_secs = min(kill_grace_secs(policy or {}, definition.grace_secs), at_most_secs)
        if not self._killed:
            self._killed = True
            self._stop_watching()
            log.info("Killing task '%s' with SIGTERM, and in %g s with SIGKILL", self.id, grace_secs)
            if self._announce_kill and not self._late:
                self._say("TASK_KILLING")
            process.signal(signal.SIGTERM)
        loop = asyncio.get_running_loop()
        if self._escalation is not None:
            grace_secs = min(grace_secs, self._escalation.when() - loop.time())
            self._escalation.cancel()
        self._escalation = loop.call_later(grace_secs, process.signal, signal.SIGKILL)

    # Inside

    def _launch(self, processes: Processes, definition: Definition, environment: Mapping[str, str]) -> Process:
        words = definition.command.words
        if self._alone:
            return processes.start(words, environment=environment, directory=self._directory)
        os.makedirs(self._directory, mode=0o750, exist_ok=True)
        with ExitStack() as stack:
            stdout, stderr = (
                stack.enter_context(open(os.path.join(self._directory, name), "ab")) for name in ("stdout", "stderr")
            )
            return processes.start(
                words, environment=environment, directory=self._directory, stdout=stdout, stderr=stderr
            )

    def _watch(self, definition: Definition, process: Process, prober: Prober) -> None:
        self._start(self._wait(process))
        if definition.check is not None:
            self._checks.append(self._start(checks.check(definition.check, prober, self._checked)))
        if definition.health_check is not None:
            self._checks.append(self._start(checks.health_check(definition.health_check, prober, self._told)))
        if definition.max_secs is not None:
            self._limit = asyncio.get_running_loop().call_later(definition.max_secs, self._too_late)

    def _stop_watching(self) -> None:
        """But for its end."""
        for each in self._checks:
            each.cancel()
        if self._limit is not None:
            self._limit.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._at_work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("Unexpected error: %s", error, exc_info=error)

    async def _wait(self, process: Process) -> None:
        exit_status = await process.wait()
        state, message = ended(exit_status, killed=self._killed)
        if self._late:
            self._end("TASK_FAILED", message=message, reason="REASON_MAX_COMPLETION_TIME_REACHED")
        else:
            self._end(state, message=message)

    def _end(self, state: str, **status: Any) -> None:
        self._ended = True
        self._stop_watching()
        if self._escalation is not None:
            self._escalation.cancel()
        if self._unhealthy:
            status["healthy"] = False
        log.info("Task '%s' completed in state %s: %s", self.id, state, status["message"])
        self._say(state, **status)
        self._over(self, state)

    def _checked(self, status: dict[str, Any]) -> None:
        self._check_status = status
        self._say("TASK_RUNNING", reason="REASON_TASK_CHECK_STATUS_UPDATED", **self._health())

    def _told(self, healthy: bool, end: bool) -> None:
        self._healthy = healthy
        self._say("TASK_RUNNING", reason="REASON_TASK_HEALTH_CHECK_STATUS_UPDATED", **self._health())
        if end:
            self._unhealthy = True
            self.kill()

    def _health(self) -> dict[str, Any]:
        return {} if self._healthy is None else {"healthy": self._healthy}

    def _too_late(self) -> None:
        log.warning("Task '%s' exceeded its maximum completion time", self.id)
        self._late = True
        self.kill(at_most_secs=0)

    def _say(self, state: str, **more: Any) -> None:
        status = {
            "task_id": {"value": self.id},
            "state": state,
            "source": "SOURCE_EXECUTOR",
            "timestamp": time.time(),
            "uuid": base64.b64encode(uuid.uuid4().bytes).decode(),
            **more,
        }
        if self._check_status is not None:
            status["check_status"] = self._check_status
        self._say_status(status)

