"""disk/du: how much disk the containers' sandboxes take, and, if the operator wants it, an end for who takes too much.

Nothing is kept apart here: a container writes until the next round finds out. du(1) walks over each sandbox in the
background, one after the other and with a rest after each; a thousand small sandboxes take about ten seconds so. A
tree on which `du` has not finished soon is measured apart from then on: such trees have rounds of their own, at the
lowest priority, so that they keep no other waiting.

The figure is du's: blocks on disk, hard links once, no symbolic link followed, no other file system entered. A tree
that changes under the walk has been of about that size.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial

from portslice.containers import helper
from portslice.containers.container import Container, Limitation
from portslice.containers.isolators import BaseIsolator, Containers, Sampler, Statistics
from portslice.errors import ContainerError
from portslice.units import Bytes

log = logging.getLogger(__name__)

_DU = ("du", "-k", "-s", "-x", "--")
_LOWEST_PRIORITY = ("nice", "-n", "19")
_SOON_SECS = 2.0
_REST = 4  # times as long as the walk took, but not more than:
_MAX_REST_SECS = 1.0


class Du(BaseIsolator):
    """The isolator."""

    name = "disk/du"

    def __init__(self, interval_secs: float, *, enforce: bool) -> None:
        """:param interval_secs: between two rounds over the sandboxes (--container_disk_watch_interval).
        :param enforce: end a container that is over its quota (--enforce_container_disk_quota).
        """
        self._interval_secs = interval_secs
        self._enforce = enforce
        self._used: dict[str, int] = {}  # bytes
        self._large: set[str] = set()  # ids of the containers that are measured apart

    def usage(self, container: Container) -> Statistics:
        """Members of Mesos' DiskStatistics, and the same for the sandbox alone, which is all that there is here."""
        values = {"limit_bytes": container.disk, "used_bytes": self._used.get(container.id)}
        known = {name: value for name, value in values.items() if value is not None}
        return {**{f"disk_{name}": value for name, value in known.items()}, "disk_statistics": [known]} if known else {}

    def cleanup(self, container: Container) -> list[str]:
        self._used.pop(container.id, None)
        self._large.discard(container.id)
        return []

    def samplers(self) -> Sequence[Sampler]:
        return [Sampler(self._interval_secs, partial(self._round, large=large)) for large in (False, True)]

    async def _round(self, containers: Containers, *, large: bool) -> None:
        for container in containers.living():
            if (container.id in self._large) == large:
                began = time.monotonic()
                try:
                    used = await _measure(container, large=large)
                except ContainerError as error:
                    await asyncio.to_thread(_complain, containers, container, error)
                    continue
                took = time.monotonic() - began
                await asyncio.to_thread(self._note, containers, container, used, large=took > _SOON_SECS)
                if not large:
                    await asyncio.sleep(min(_REST * took, _MAX_REST_SECS))

    def _note(self, containers: Containers, container: Container, used: int | None, *, large: bool) -> None:
        with containers.holding(container.id) as now:
            if now is None:
                return
            if used is not None:
                self._used[now.id] = used
            if large and now.id not in self._large:
                log.info("The sandbox of container %s is large: it is measured apart from the others", now.id)
            (self._large.add if large else self._large.discard)(now.id)
        if self._enforce and used is not None and now.disk is not None and used > now.disk:
            message = f"Disk usage ({Bytes(used)}) exceeds quota ({Bytes(now.disk)})"
            containers.limit(now, Limitation("disk", now.disk, message))


async def _measure(container: Container, *, large: bool) -> int | None:
    """What its sandbox takes, in bytes; None: it is large, and was taken for small.

    :raises ContainerError: `du` said nothing, or cannot be run.
    """
    try:
        command = (*(_LOWEST_PRIORITY if large else ()), *_DU, str(container.sandbox))
        result = await helper.run(*command, timeout_secs=None if large else _SOON_SECS)
    except TimeoutError:
        return None
    except OSError as error:
        raise ContainerError(f"Failed to exec 'du': {error}") from error
    try:
        return int(result.stdout.split(maxsplit=1)[0]) * 1024  # whatever its status: files may go away under the walk
    except (IndexError, ValueError):
        raise ContainerError(result.stderr.strip() or f"exit status {result.returncode}") from None


def _complain(containers: Containers, container: Container, error: ContainerError) -> None:
    with containers.holding(container.id) as now:
        if now is not None:
            log.error(
                "Checking disk usage at '%s' for container %s has failed: %s", container.sandbox, container.id, error
            )


def check() -> None:
    """:raises ContainerError: there is no `du`."""
    if not helper.is_installed("du"):
        raise ContainerError("The program 'du' is missing: apt-get install coreutils")
