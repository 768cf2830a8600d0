"""Whether a task is well, again and again while it runs (Mesos' docs/health-checks.md).

A *check* tells what it sees, each time that this changes, and ends nothing. A *health check* tells healthy from not:
the first success and the first after failures, and each failure; so many failures in a row are the end of the task.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from portslice.executor.definition import Check, HealthCheck, Probe
from portslice.executor.probes import ProbeError, Prober, failure

log = logging.getLogger(__name__)

_MEMBERS = {"COMMAND": "exit_code", "HTTP": "status_code", "TCP": "succeeded"}
_PAUSE_SECS = 0.05  # at least between two looks, also where the framework wants none


def check_status(probe: Probe, answer: int | None) -> dict[str, Any]:
    """A CheckStatusInfo; None: there is no answer (yet)."""
    value = bool(answer) if probe.kind == "TCP" else answer
    return {"type": probe.kind, probe.kind.lower(): {} if answer is None else {_MEMBERS[probe.kind]: value}}


async def check(check: Check, prober: Prober, changed: Callable[[dict[str, Any]], None]) -> None:
    """Check for ever.

    :param changed: told the CheckStatusInfo when it is another than before.
    """
    last = None
    await asyncio.sleep(check.delay_secs)
    while True:
        try:
            answer = await prober.take(check.probe, check.timeout_secs)
        except ProbeError as error:
            log.warning("%s check failed: %s", check.probe.kind, error)
            answer = None
        if answer != last:
            changed(check_status(check.probe, answer))
            last = answer
        await asyncio.sleep(max(check.interval_secs, _PAUSE_SECS))


class Health:
    """What a health check's answers amount to.

    :param told: with whether it is healthy, and whether it is to be ended.
    """

    def __init__(self, check: HealthCheck, told: Callable[[bool, bool], None]) -> None:
        self._check = check
        self._told = told
        self._passed = False  # once
        self._failures = 0  # in a row

    def success(self) -> None:
        """It is well."""
        news = not self._passed or self._failures
        self._passed, self._failures = True, 0
        if news:
            self._told(True, False)

    def failure(self, why: str, after_secs: float) -> None:
        """It is not.

        :param after_secs: how long the task has run.
        """
        if not self._passed and self._check.grace_secs > 0 and after_secs <= self._check.grace_secs:
            log.info("Ignoring failure of %s health check: still in grace period", self._check.probe.kind)
            return
        self._failures += 1
        log.warning(
            "%s health check failed %d times consecutively: %s", self._check.probe.kind, self._failures, why
        )
        self._told(False, self._failures >= self._check.failures)


async def health_check(check: HealthCheck, prober: Prober, told: Callable[[bool, bool], None]) -> None:
    """Check for ever; `told` as for `Health`."""
    now = asyncio.get_running_loop().time
    health, start = Health(check, told), now()
    await asyncio.sleep(check.delay_secs)
    while True:
        try:
            why = failure(check.probe, await prober.take(check.probe, check.timeout_secs))
        except ProbeError as error:
            why = str(error)
        if why is None:
            health.success()
        else:
            health.failure(why, now() - start)
        await asyncio.sleep(max(check.interval_secs, _PAUSE_SECS))
