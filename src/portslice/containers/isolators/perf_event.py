"""cgroups/perf_event: hardware and kernel events in each container's cgroup, as perf(1) counts them.

Every --perf_interval one `perf stat` counts for --perf_duration, in all containers' cgroups at once; `usage` tells of
the last time. So the figures are of that stretch, and not since the container's start. A container that has come since
has none yet: Mesos' `{"duration":0.0,"timestamp":...}`, as it stays without --perf_events.

perf refuses to begin if a cgroup has just gone away; then it is asked again. A run that does not end, or makes no
sense, is lost, and the next one comes when it is due (MESOS-3423).
"""

import asyncio
import logging
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from portslice.containers import helper, perf
from portslice.containers.cgroups import Cgroups
from portslice.containers.container import Container
from portslice.containers.isolators import BaseIsolator, Containers, Sampler, Statistics
from portslice.errors import ContainerError, ParseError
from portslice.units import Duration

log = logging.getLogger(__name__)

_ATTEMPTS = 3
_GRACE_SECS = 2.0  # Mesos' twice the interval at which it looks for processes that have ended


@dataclass(frozen=True)
class PerfSampling:
    """What is counted, how often, and for how long."""

    events: tuple[str, ...]
    interval: Duration
    duration: Duration

    @property
    def timeout_secs(self) -> float:
        """When a run is given up: the next one is due. Counting begins late where there are many containers."""
        return max(self.interval.seconds, self.duration.seconds + _GRACE_SECS)


class PerfEvent(BaseIsolator):
    """The isolator. The cgroups themselves are made by another one (portslice.containers.isolators.cgroups)."""

    name = "cgroups/perf_event"

    def __init__(self, cgroups: Cgroups, sampling: PerfSampling | None) -> None:
        """:param sampling: None: nothing is counted."""
        self._cgroups = cgroups
        self._sampling = sampling
        self._counted: dict[str, dict[str, Any]] = {}

    def usage(self, container: Container) -> Statistics:
        return {"perf": self._counted.get(container.id, {"timestamp": container.created, "duration": 0.0})}

    def cleanup(self, container: Container) -> list[str]:
        self._counted.pop(container.id, None)
        return []

    def samplers(self) -> Sequence[Sampler]:
        sampling = self._sampling
        if sampling is None:
            return []

        async def sample(containers: Containers) -> None:
            # A round without containers, or one that fails, lasts as long as any other.
            await asyncio.gather(self._round(containers, sampling), asyncio.sleep(sampling.duration.seconds))

        return [Sampler(sampling.interval.seconds - sampling.duration.seconds, sample)]

    async def _round(self, containers: Containers, sampling: PerfSampling) -> None:
        workload = (*helper.DIES_WITH_ITS_PARENT, "sleep", str(sampling.duration.seconds))
        for attempt in range(1, _ATTEMPTS + 1):
            cgroups = await asyncio.to_thread(self._living, containers)
            if not cgroups:
                return
            began = time.time()
            try:
                command = perf.command(sampling.events, cgroups, workload)
                result = await helper.run(*command, timeout_secs=sampling.timeout_secs)
            except TimeoutError:
                log.error(
                    "Perf sample of %s failed to complete within %gsecs", sampling.duration, sampling.timeout_secs
                )
                return
            except OSError as error:
                log.error("Failed to get the perf sample: Failed to launch perf process: %s", error)
                return
            if result.returncode == 0:
                break
            if attempt == _ATTEMPTS or set(cgroups) <= set(await asyncio.to_thread(self._living, containers)):
                log.error("Failed to get the perf sample: Failed to execute perf: %s", _complaint(result))
                return
        try:
            counts = perf.parse(result.stdout)
        except ContainerError as error:
            log.error("Failed to get the perf sample: %s", error)
            return
        await asyncio.to_thread(self._note, containers, cgroups, counts, began)

    def _living(self, containers: Containers) -> dict[str, str]:
        """The ids of the living containers, by the names that perf knows their cgroups by. A name with a comma is two
        names for perf, which would refuse them all."""
        found = {self._cgroups.perf_name(container.id): container.id for container in containers.living()}
        return {name: container_id for name, container_id in found.items() if name is not None and "," not in name}

    def _note(
        self, containers: Containers, cgroups: dict[str, str], counts: dict[str, perf.Counts], began: float
    ) -> None:
        assert self._sampling is not None
        for name, container_id in cgroups.items():
            with containers.holding(container_id) as container:
                if container is not None and name in counts:
                    stretch = {"timestamp": began, "duration": self._sampling.duration.seconds}
                    self._counted[container_id] = {**stretch, **counts[name]}


def check(cgroups: Cgroups, sampling: PerfSampling) -> None:
    """Whether perf and the kernel can do it: the events are counted once, for a moment and in all processes.

    :raises ContainerError: with Mesos' words where it has any.
    """
    try:
        if perf.version(_run("perf", "--version").stdout) < perf.MIN_VERSION:
            raise ContainerError("perf 2.6.39 is the first that knows cgroups")
    except (ContainerError, ParseError, OSError, subprocess.TimeoutExpired) as error:
        raise ContainerError(f"Perf is not supported: {error}. Remedy: apt-get install linux-perf") from error
    if sampling.duration > sampling.interval:
        raise ContainerError(
            f"Sampling perf for duration ({sampling.duration}) > interval ({sampling.interval}) is not supported."
        )
    if not cgroups.has_perf:
        raise ContainerError("No cgroup hierarchy with the controller perf_event is mounted, nor that of version 2")
    invalid = f"Invalid perf events: {{ {', '.join(sampling.events)} }}"
    result = _run(*perf.command(sampling.events, ["/"], ["true"]))
    if result.returncode != 0:
        raise ContainerError(f"{invalid}: {_complaint(result)}")
    try:
        counted = perf.parse(result.stdout).get("/", {})
    except ContainerError as error:
        raise ContainerError(f"{invalid}: {error}") from error
    if len(counted) < len(sampling.events):
        log.warning("Of the perf events this machine counts only { %s }", ", ".join(sorted(counted)))


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=helper.ENVIRONMENT
    )


def _complaint(result: "subprocess.CompletedProcess[str]") -> str:
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    return lines[0] if lines else f"exit status {result.returncode}"
