"""The agent: start-up, main loop, shutdown.

Start-up checks and prepares everything and fails with a message before the first container could. The main loop waits:
for requests (portslice.http) and for containers to end. The end of a supervisor makes its pidfd readable, whoever its
parent is, so containers of an earlier agent are watched like the others.

On SIGTERM and SIGINT the agent stops and its containers go on; if there are none, the host is left as it was found.
"""

import asyncio
import fcntl
import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO

from portslice.agent import firewall, identity, mounts, offer, startup
from portslice.agent.cluster import Alone, Cluster
from portslice.agent.flags import AgentFlags
from portslice.agent.policy import policy
from portslice.agent.verbosity import Verbosity
from portslice.background import Background
from portslice.containers import descriptors
from portslice.containers.container import Container, Request, State
from portslice.containers.containerizer import Containerizer, Directories
from portslice.containers.isolators import Sampler
from portslice.errors import NotFoundError, PortsliceError
from portslice.flags import startup_line
from portslice.statistics import Snapshots

log = logging.getLogger(__name__)

_LOOK_SECS = 1.0  # from one look to the next whether a container that is being launched is still wanted
_LAUNCH_SECS = 0.05  # from one look at a container that is being launched to the next


class Agent:
    """One agent."""

    def __init__(self, flags: AgentFlags) -> None:
        self.flags = flags
        self.started = time.time()
        self.port = flags.port
        self.hostname = flags.hostname or socket.gethostname()
        self.cluster: Cluster = Alone()
        self.ended: Counter[str] = Counter()  # tasks by their last state, since the agent's start
        self.terminated = 0  # containers, likewise
        self.status_updates = 0  # of tasks to frameworks, likewise, but for what the agent itself found
        self.ending: set[str] = set()  # containers that are being killed
        self._ends: dict[str, asyncio.Future[Container]] = {}
        self._background = Background()
        self._lock: IO[str] | None = None
        self.recovery_secs = 0.0
        self.recovery_errors = 0
        self.verbosity = Verbosity()

    # Start-up

    def prepare(self) -> None:
        """Check the host and put the isolators on it; take up the containers of an earlier agent.

        :raises PortsliceError: what is missing, in Mesos' words where it has any.
        """
        log.info("%s", startup_line(self.flags))
        self._check_flags()
        descriptors.raise_limit()
        mounts.join_host((self.flags.work_dir, self.flags.runtime_dir, self.flags.socket_path, Path(__file__)))
        make_isolators = startup.isolators(self.flags)
        self.offer = offer.of(self.flags)
        self._make_directories()
        self._own_id = identity.of(self.flags.work_dir)
        isolators = make_isolators()
        self.port_mapping = startup.find_port_mapping(isolators)
        directories = Directories(self.flags.work_dir, self.flags.runtime_dir, (self.flags.socket_path,))
        self.containerizer = Containerizer(
            directories,
            isolators,
            cpu_quota=self.flags.cgroups_enable_cfs,
            disk_quota=self.flags.enforce_container_disk_quota,
            fetch_stall_secs=self.flags.fetcher_stall_timeout.seconds,
        )
        self.snapshots = Snapshots(self.containerizer)
        began = time.monotonic()
        self.containerizer.recover()
        self.recovery_secs = time.monotonic() - began
        self.recovery_errors = self.containerizer.destroy_errors

    def _check_flags(self) -> None:
        if self.flags.recover not in ("reconnect", "cleanup"):
            raise PortsliceError(
                f"Unknown option for 'recover' flag {self.flags.recover}. Please run the agent with '--help' to see "
                "the valid options"
            )
        self.policy = policy(self.flags)
        self.disabled_endpoints = firewall.disabled_endpoints(self.flags.firewall_rules)

    def _make_directories(self) -> None:
        for directory, mode in ((self.flags.work_dir, 0o711), (self.flags.runtime_dir, 0o711)):
            try:
                directory.mkdir(parents=True, exist_ok=True, mode=mode)
            except OSError as error:
                raise PortsliceError(f"Failed to create the directory '{directory}': {error.strerror}") from error
        try:
            self._lock = (self.flags.runtime_dir / "agent.lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PortsliceError(
                f"Another agent is running with --runtime_dir='{self.flags.runtime_dir}': give this one its own "
                "--runtime_dir, --work_dir and --port"
            ) from None
        except OSError as error:
            raise PortsliceError(f"'{self.flags.runtime_dir}' cannot be written: {error.strerror}") from error

    @property
    def id(self) -> str:
        """The agent's id: the master's name for it, or, before it ever had one, its own."""
        return self.cluster.agent_id or self._own_id

    # Main loop

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Inside the block the end of every container is seen to."""
        for container in self.containerizer.living():
            self._watch(container)
        if self.port_mapping is not None:
            self._background.start(self._follow(self.port_mapping.addresses.changes.fileno()))
        for sampler in self.containerizer.samplers():
            self._background.start(self._sample(sampler))
        try:
            yield
        finally:
            self._background.cancel()

    async def launch(self, request: Request, unwanted: Callable[[], bool] = lambda: False) -> Container:
        """Start a container.

        :param unwanted: whether it is to wait no more for what is fetched; asked now and then, since who says so once
            may do it before it waits.
        :raises PortsliceError: nothing was started.
        """
        launch = asyncio.create_task(self._launch(request))
        self._background.keep(launch)
        while request.uris and not launch.done():
            await asyncio.wait((launch,), timeout=_LOOK_SECS)
            if unwanted() and request.name and request.framework_id:
                self.stop_fetching(request.name, request.framework_id)
        return await asyncio.shield(launch)  # what is being started is watched, even if the caller hangs up meanwhile

    async def _launch(self, request: Request) -> Container:
        # What is fetched may take for ever: that is for no thread that others wait for.
        run = _in_own_thread if request.uris else asyncio.to_thread
        container = await run(self.containerizer.launch, request)
        self._watch(container)
        return container

    async def wait(self, container: Container) -> Container:
        """Wait for a container's end; how it ended.

        :raises NotFoundError: it was never launched.
        """
        while (end := self._ends.get(container.id)) is None:
            found = self.containerizer.find(container.id)
            if found.state is State.EXITED:
                return found
            await asyncio.sleep(_LAUNCH_SECS)
        # Its own value, not what is on record by then: where many end together, some are forgotten at once.
        return await asyncio.shield(end)

    async def remove(self, container: Container) -> None:
        """Forget a container that has ended, and its sandbox.

        :raises ConflictError: it runs.
        """
        await asyncio.to_thread(self.containerizer.remove, container.id)

    async def kill(self, container: Container, number: signal.Signals, grace_secs: float | None = None) -> None:
        """Signal a container; a SIGTERM is followed by SIGKILL after the grace period (by default, the flag's)."""
        if number in (signal.SIGTERM, signal.SIGKILL) and container.id in self._ends:
            self.ending.add(container.id)
        self.containerizer.signal(container, number)
        if number is signal.SIGTERM:
            grace = self.flags.executor_shutdown_grace_period.seconds if grace_secs is None else grace_secs
            self._background.start(self._insist(container, grace))

    def stop_fetching(self, name: str, framework_id: str) -> None:
        """Have the launch of a container fail, if it waits for what is fetched."""
        with suppress(NotFoundError):
            self.containerizer.stop_fetching(self.containerizer.find(name, framework_id))

    async def _insist(self, container: Container, grace_secs: float) -> None:
        try:
            await asyncio.wait_for(self.wait(container), grace_secs)
        except TimeoutError:
            log.info("Container %s did not end on SIGTERM: killing it", container.id)
            self.containerizer.signal(container, signal.SIGKILL)

    async def _follow(self, descriptor: int) -> None:
        while True:
            await _readable(descriptor)
            await asyncio.to_thread(self.containerizer.follow)

    async def _sample(self, sampler: Sampler) -> None:
        while True:
            try:
                await sampler.sample(self.containerizer)
            except Exception as error:  # one round that fails is not the last one
                log.error("Failed to sample: %s", error, exc_info=error)
            await asyncio.sleep(sampler.pause_secs)

    def _watch(self, container: Container) -> None:
        self._ends[container.id] = asyncio.get_running_loop().create_future()
        self._background.start(self._see_end(container))

    async def _see_end(self, container: Container) -> None:
        descriptor = container.supervisor.pidfd() if container.supervisor else None
        if descriptor is not None:
            try:
                await _readable(descriptor)
            finally:
                os.close(descriptor)
        ended = await asyncio.to_thread(self.containerizer.reap, container.id)
        log.info("Container %s (%s) exited with status %s", ended.id, ended.name, ended.exit_status)
        self.terminated += 1
        if not ended.framework_id:  # otherwise the engine says how its task ended
            self.ended[ended.task_state] += 1
        self.ending.discard(ended.id)
        self._ends.pop(container.id).set_result(ended)

    # Shutdown

    async def kill_all(self) -> None:
        """Kill every container and wait until all are taken apart (--recover=cleanup)."""
        ends = list(self._ends.values())
        for container in self.containerizer.living():  # all at once: they end while the first are taken apart
            self.containerizer.signal(container, signal.SIGKILL)
        for end in ends:
            await end

    def close(self) -> None:
        """Let go. Containers go on; if there are none, the host is as it was."""
        idle = all(container.state is State.EXITED for container in self.containerizer.all())
        self.containerizer.close(release=idle)
        if self._lock is not None:
            self._lock.close()


async def _in_own_thread(work: Callable[[Request], Container], request: Request) -> Container:
    """Like asyncio.to_thread, but the thread is not waited for when the agent ends."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Container] = loop.create_future()

    def tell(result: Container | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        elif result is not None:
            done.set_result(result)

    def run() -> None:
        result = failure = None
        try:
            result = work(request)
        except Exception as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=run, name="launch", daemon=True).start()
    return await done


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
