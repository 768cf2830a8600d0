"""The life of containers: launched, found again after a restart, killed, taken apart.

The order of a launch is what makes a crash harmless: every isolator *allocates* (bookkeeping only), the record is
written, then the isolators *prepare* the kernel, then the command starts. Whatever is found on record without a live
first process is taken apart again, and taking apart may be repeated.

All methods may be called from any thread; the lock is held for bookkeeping and for the kernel's quick answers, never
while a process is waited for.
"""

import logging
import os
import pwd
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock
from typing import Any

from portslice.containers import fetcher, id_range, launcher
from portslice.containers.container import Change, Container, Limitation, Request, State
from portslice.containers.isolators import Isolator, Launch, Sampler, Statistics
from portslice.containers.journal import Journal
from portslice.containers.record import Record
from portslice.errors import ConflictError, ContainerError, NotFoundError, ParseError

log = logging.getLogger(__name__)

KEPT_EXITED = 150  # as Mesos' --max_completed_executors_per_framework
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ASIDE = ".removed-"  # no id has a dot


class KnownIdError(ConflictError):
    """A container with this id is on record already."""


@dataclass(frozen=True)
class Directories:
    """Where an agent keeps its things.

    :param work: sandboxes.
    :param runtime: what need not outlive a boot.
    :param hidden: further files that no container may reach.
    """

    work: Path
    runtime: Path
    hidden: tuple[Path, ...] = ()


class Containerizer:
    """The containers of one agent."""

    def __init__(
        self,
        directories: Directories,
        isolators: Sequence[Isolator],
        *,
        cpu_quota: bool = False,
        disk_quota: bool = False,
        fetch_stall_secs: float = 60.0,
    ) -> None:
        """:param cpu_quota: a container's CPUs are also its limit (--cgroups_enable_cfs).
        :param disk_quota: so is its disk (--enforce_container_disk_quota), and what is fetched is to fit into it.
        :param fetch_stall_secs: patience with a server that sends nothing (--fetcher_stall_timeout).
        """
        self._cpu_quota = cpu_quota
        self._disk_quota = disk_quota
        self._fetch_stall_secs = fetch_stall_secs
        self._directories = directories
        self._isolators = tuple(isolators)
        self._journal = Journal(directories.runtime / "journal")
        self._containers: dict[str, Container] = {}
        self._lock = RLock()
        self.launch_errors = 0
        self.fetches = 0  # launches with URIs that succeeded, as far as these go
        self.fetch_errors = 0
        self.destroy_errors = 0

    # Looking

    def all(self) -> list[Container]:
        """Every container on record, the oldest first."""
        with self._lock:
            return list(self._containers.values())

    def living(self) -> list[Container]:
        """Those that run."""
        return [container for container in self.all() if container.state is State.RUNNING]

    def at_port(self, port: int) -> Container | None:
        """The container whose port this is: one that lives, or is being launched."""
        for each in self.all():
            network = each.network if each.state is not State.EXITED else None
            if network is not None and (port in network.ephemeral or port in network.ports):
                return each
        return None

    def find(self, name: str, framework_id: str | None = None) -> Container:
        """By id, or by name: the living one of this name, else the last.

        :param framework_id: whose it is; None: anybody's.
        :raises NotFoundError: there is none.
        """
        with self._lock:
            if framework_id is None and name in self._containers:
                return self._containers[name]
            named = [
                container
                for container in self._containers.values()
                if container.name == name and framework_id in (None, container.framework_id)
            ]
            for container in reversed(named):
                if container.state is not State.EXITED:
                    return container
            if named:
                return named[-1]
        raise NotFoundError(f"There is no container '{name}'")

    def usage(self, container: Container) -> Statistics | None:
        """ResourceStatistics of a container, as far as its isolators can tell; None if it changed meanwhile."""
        statistics: Statistics = {"timestamp": time.time(), **_promised(container, self._cpu_quota)}
        for isolator in self._isolators:
            try:
                with self._lock:
                    if self._containers.get(container.id) is not container:
                        return None
                    statistics |= isolator.usage(container)
            except Exception as error:
                log.warning("Skipping resource statistic for container %s because: %s", container.id, error)
        return statistics

    def samplers(self) -> list[Sampler]:
        """What the isolators measure in the background; this containerizer is what they are to be given."""
        return [sampler for isolator in self._isolators for sampler in isolator.samplers()]

    @contextmanager
    def holding(self, container_id: str) -> Iterator[Container | None]:
        """See `Containers.holding`."""
        with self._lock:
            container = self._containers.get(container_id)
            yield container if container is not None and container.state is State.RUNNING else None

    # Launching

    def launch(self, request: Request) -> Container:
        """Start a container.

        :raises PortsliceError: nothing was started, and nothing stays.
        """
        fetcher.check(request.uris)
        try:
            container = self._allocate(request)
        except OSError as error:
            raise ContainerError(f"Failed to launch container: {error}") from error
        try:
            container = self._start(container, request.uris)
        except Exception as error:
            self.launch_errors += 1
            if isinstance(error, launcher.FetchError):
                self.fetch_errors += 1
                if (limitation := self._limitation(container)) is not None:
                    error = launcher.FetchError(f"{error}: {limitation.message.partition(chr(10))[0]}")
            with suppress(ContainerError):  # it may have begun before something failed
                launcher.destroy(self._record(container))
            self._cleanup(container)
            self._forget(container)
            if isinstance(error, (OSError, ValueError)):  # the latter: a command with a NUL, for instance
                raise ContainerError(f"Failed to launch container: {error}") from error
            raise error
        return container

    def _allocate(self, request: Request) -> Container:
        if not request.command or not request.command[0]:
            raise ParseError("A container needs a command")
        with self._lock:
            container_id = str(uuid.uuid4()) if request.id is None else _checked_id(request.id)
            if container_id in self._containers:
                raise KnownIdError(f"A container with the id '{container_id}' is there already")
            name = _checked_name(request.name or request.id or f"c-{container_id[:8]}")
            going_on = (each for each in self._containers.values() if each.state is not State.EXITED)
            if any((each.framework_id, each.name) == (request.framework_id, name) for each in going_on):
                raise ConflictError(f"A container with the name '{name}' is running already")
            if name in self._containers:  # or nobody could tell which of the two is meant
                raise ConflictError(f"The name '{name}' is the id of another container")
            container = Container(
                id=container_id,
                name=name,
                command=request.command,
                uid=request.uid,
                gid=request.gid,
                sandbox=self._directories.work / "containers" / container_id,
                created=time.time(),
                standalone=request.id is not None,
                framework_id=request.framework_id,
                executor=request.executor,
                environment=request.environment,
                cpus=request.cpus,
                mem=request.mem,
                disk=request.disk,
                read_only=request.read_only,
                devices=tuple(_checked_device(path) for path in request.devices),
                egress=request.egress,
                ingress=request.ingress,
            )
            try:
                for isolator in self._isolators:
                    container = isolator.allocate(container, request)
                if container.network is None and (request.ports or request.egress or request.ingress):
                    raise ContainerError(
                        "Ports and network limits are given by the isolator network/port_mapping: see --isolation"
                    )
                if request.user_namespace:
                    container = container.changed(first_id=_first_id(container))
                self._journal.write(container)
            except Exception:
                self._cleanup(container)  # what was promised so far
                raise
            self._containers[container.id] = container
            return container

    def _start(self, container: Container, uris: Sequence[fetcher.Uri]) -> Container:
        with self._lock:
            launches = [isolator.prepare(container) for isolator in self._isolators]
        if container.standalone:  # one of this id that nobody remembers, from before the machine's boot
            _delete(container.sandbox)
        container.sandbox.mkdir(parents=True)
        spec = self._spec(container, launches)
        if uris:
            spec = self._with_fetch(spec, container, uris)
        os.chown(container.sandbox, spec.host_uid, spec.host_gid)
        container.sandbox.chmod(0o750)
        supervisor = launcher.launch(spec)
        self.fetches += bool(uris)
        container = self._change(container, init=spec.record.init, supervisor=supervisor, state=State.RUNNING)
        with self._lock:
            for isolator in self._isolators:
                isolator.isolate(container)
        return container

    def _spec(self, container: Container, launches: list[Launch]) -> launcher.LaunchSpec:
        home = _home(container.uid) if container.first_id is None else {"HOME": str(container.sandbox)}
        environment = {"PATH": _PATH, **home}
        environment |= dict.fromkeys(("MESOS_SANDBOX", "MESOS_DIRECTORY"), str(container.sandbox))
        environment |= {"MESOS_CONTAINER_ID": container.id, "MESOS_EXECUTOR_ID": container.name}
        for launch in launches:
            environment |= launch.environment
        return launcher.LaunchSpec(
            id=container.id,
            command=container.command,
            environment={**environment, **container.environment},
            sandbox=container.sandbox,
            uid=container.uid,
            gid=container.gid,
            netns=next((launch.namespace for launch in launches if launch.namespace), None),
            join_files=tuple(file for launch in launches for file in launch.join_files),
            runtime_directory=self._directories.runtime,
            work_directory=self._directories.work,
            hidden_files=self._directories.hidden,
            first_id=container.first_id,
            read_only=container.read_only,
            devices=container.devices,
        )

    def _with_fetch(
        self, spec: launcher.LaunchSpec, container: Container, uris: Sequence[fetcher.Uri]
    ) -> launcher.LaunchSpec:
        orders = fetcher.orders(
            uris,
            uid=spec.host_uid,
            gid=spec.host_gid,
            groups=_groups(container),
            stall_secs=self._fetch_stall_secs,
            max_bytes=container.disk if self._disk_quota else None,
        )
        return replace(spec, fetch=orders)

    # Changing

    def update(self, container_id: str, change: Change) -> Container:
        """Change a running container; the container as it is then.

        As in a launch, every isolator promises first, the record is written, and then the kernel is made to agree. The
        isolators are asked in reverse, because what comes first of them, memory, cannot always be taken back.

        :raises PortsliceError: all is as it was.
        """
        with self._lock:
            old = self.find(container_id)
            if old.state is not State.RUNNING:
                raise NotFoundError(f"The container '{old.name}' is not running")
            asked = {name: getattr(change, name) for name in ("cpus", "mem", "disk", "egress", "ingress")}
            new = old.changed(**{name: value for name, value in asked.items() if value is not None})
            for isolator in self._isolators:
                new = isolator.reallocate(new, change)
            if new != old:
                self._journal.write(new)
                try:
                    self._apply(old, new)
                except Exception as error:
                    self._journal.write(old)
                    if isinstance(error, OSError):
                        raise ContainerError(f"Failed to update container: {error}") from error
                    raise
                self._containers[new.id] = new
            return new

    def _apply(self, old: Container, new: Container) -> None:
        begun: list[Isolator] = []
        try:
            for isolator in reversed(self._isolators):
                begun.append(isolator)
                isolator.update(old, new)
        except Exception:
            for isolator in reversed(begun):
                try:
                    isolator.update(new, old)
                except Exception as error:
                    log.error("Failed to put back the limits of container %s: %s", old.id, error)
            raise

    # Ending

    def stop_fetching(self, container: Container) -> bool:
        """Have the launch of a container fail that waits for what is fetched; False: it does not."""
        record = self._record(container)
        return container.state is State.PREPARING and record.fetching and launcher.kill(record, signal.SIGKILL)

    def signal(self, container: Container, number: signal.Signals) -> None:
        """Send a signal to the container's first process; SIGKILL ends all processes of the container."""
        if container.init is not None:
            container.init.signal(number)

    def limit(self, container: Container, limitation: Limitation) -> None:
        """See `Containers.limit`."""
        with self.holding(container.id) as found:
            if found is not container:
                return
            container = self._change(container, message=limitation.message, limitation=limitation)
        log.info("Ending container %s: %s", container.id, limitation.message)
        self.signal(container, signal.SIGKILL)

    def reap(self, container_id: str) -> Container:
        """Record how a container ended whose supervisor has ended, and take it apart."""
        with self._lock:
            container = self._containers[container_id]
            if container.state is State.EXITED:
                return container
        status = self._record(container).exit_status
        if status is None:
            status = container.exit_status
        with self._lock:
            container = self._containers[container_id]  # it may have been updated meanwhile
            if status and container.limitation is None and (limitation := self._limitation(container)) is not None:
                container = container.changed(limitation=limitation, message=limitation.message)
            message = container.message or ("" if status is not None else "The exit status was lost")
            container = self._note(container, exit_status=status)  # the launcher's record goes with the clean-up
            self._cleanup(container)
            container = self._note(
                container,
                state=State.EXITED,
                exit_status=status,
                finished=time.time(),
                message=message,
                init=None,
                supervisor=None,
            )
            exited = [each for each in self._containers.values() if each.state is State.EXITED]
        for old in exited[:-KEPT_EXITED]:
            self._forget(old)
        return container

    def _limitation(self, container: Container) -> Limitation | None:
        for isolator in self._isolators:
            try:
                if (found := isolator.limitation(container)) is not None:
                    return found
            except Exception as error:
                log.error("It is not known what limit ended container %s, if any: %s", container.id, error)
        return None

    def remove(self, container_id: str) -> None:
        """Forget a container that has ended, and its sandbox.

        :raises ConflictError: it runs.
        """
        with self._lock:
            container = self.find(container_id)
            if container.state is not State.EXITED:
                raise ConflictError(f"The container '{container.id}' has not terminated yet: kill it first")
            sandbox = self._drop(container)
        _delete(sandbox)

    def _cleanup(self, container: Container) -> None:
        with self._lock:
            for isolator in reversed(self._isolators):
                for problem in isolator.cleanup(container):
                    self.destroy_errors += 1
                    log.error("%s", problem)
        self._record(container).remove()

    def _forget(self, container: Container) -> None:
        _delete(self._drop(container))

    def _drop(self, container: Container) -> Path:
        """Forget a container but for its sandbox; where that is now, out of the way of a container of the same id."""
        aside = container.sandbox.with_name(f"{_ASIDE}{uuid.uuid4()}")
        with self._lock:
            self._containers.pop(container.id, None)
            self._journal.forget(container.id)
            try:
                container.sandbox.rename(aside)
            except OSError:  # it was not even made, or something is mounted there
                return container.sandbox
        return aside

    def _note(self, container: Container, **changes: Any) -> Container:
        """`_change` for what has happened, whether or not it can be written down: a full disk keeps nobody waiting."""
        try:
            return self._change(container, **changes)
        except OSError as error:
            log.error("The record of container %s cannot be written: %s", container.id, error)
        with self._lock:
            changed = self._containers[container.id] = container.changed(**changes)
            return changed

    def _change(self, container: Container, **changes: Any) -> Container:
        with self._lock:
            changed = container.changed(**changes)
            self._journal.write(changed)
            self._containers[changed.id] = changed
            return changed

    # The agent's own life

    def recover(self) -> None:
        """Take up what the journal knows: the living go on, the ended are reaped, the half-made are taken apart.

        What an earlier agent launched and the journal does not know is ended.
        """
        for sandbox in self._directories.work.glob(f"containers/{_ASIDE}*"):
            _delete(sandbox)
        with self._lock:
            self._containers = {container.id: container for container in self._journal.load()}
            unfinished = [c for c in self._containers.values() if c.state is State.PREPARING]
            recorded = [c for c in self._containers.values() if c.state is not State.EXITED]
            orphans = list(self._end_orphans())
            for isolator in self._isolators:
                isolator.recover(recorded, orphans)
        for container in unfinished:
            log.warning("The launch of container %s was not finished", container.id)
            launcher.destroy(self._record(container))
            self._cleanup(container)
            self._forget(container)
        for container in self.living():
            if container.supervisor is not None and container.supervisor.alive():
                for isolator in self._isolators:
                    isolator.isolate(container)
                self._follow_flags(container)
            else:
                self.reap(container.id)

    def _end_orphans(self) -> Iterator[str]:
        """End what an earlier agent launched and the journal knows nothing of, because it was wiped; the ids."""
        known = self._journal.ids()
        for directory in sorted(self._directories.runtime.glob("containers/*")):
            if directory.name in known:
                continue
            log.warning("Ending the orphaned container %s", directory.name)
            record = Record(directory)
            try:
                launcher.destroy(record)
            except ContainerError as error:
                self.destroy_errors += 1
                log.error("%s", error)
                continue
            record.remove()
            yield directory.name

    def follow(self) -> None:
        """Let the containers have what has changed on the host."""
        with self._lock:
            for isolator in self._isolators:
                isolator.follow(self.living())

    def _follow_flags(self, container: Container) -> None:
        """Limits that come from the agent's flags are those of its flags now."""
        try:
            self.update(container.id, Change())
        except Exception as error:
            log.error("Failed to update container %s: %s", container.id, error)

    def close(self, *, release: bool) -> None:
        """Let go of everything; with `release` the host is to be as before the first container."""
        with self._lock:
            for isolator in reversed(self._isolators):
                isolator.close(release=release)

    def _record(self, container: Container) -> Record:
        return Record(self._directories.runtime / "containers" / container.id)


def _delete(directory: Path) -> None:
    """Remove what a container left, however much and however deep: shutil.rmtree fails below a thousand levels."""
    try:
        subprocess.run(
            ["rm", "-rf", "--one-file-system", "--", directory],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": _PATH},
        )
    except OSError as error:
        log.error("Failed to remove '%s': %s", directory, error)


def _checked_name(name: str) -> str:
    """Mesos' rules for a task's id (common/validation.cpp): no slash, no white space, no control characters."""
    if name in (".", "..") or len(name) > 242 or any(c in "/\\" or c.isspace() or not c.isprintable() for c in name):
        raise ParseError(f"The name '{name}' contains invalid characters")
    return name


def _checked_id(container_id: str) -> str:
    """Mesos' rules for a container's id (slave/validation.cpp), by which it can be the name of files and cgroups."""
    what = "'ContainerID.value'"
    if not container_id:
        raise ParseError(f"{what} must not be empty")
    if len(os.fsencode(container_id)) > 242:
        raise ParseError(f"{what} '{container_id}' must not be longer than 242 bytes")
    if any(c in "./\\" or c.isspace() or not c.isprintable() for c in container_id):
        raise ParseError(f"{what} '{container_id}' contains invalid characters")
    return container_id


def _checked_device(path: Path) -> Path:
    """Only what is a device, and only below /dev: its path is looked up with root's rights."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to("/dev") or not (real.is_char_device() or real.is_block_device()):
        raise ParseError(f"'{path}' is no device below /dev")
    return real


def _promised(container: Container, cpu_quota: bool) -> Statistics:
    """Mesos' rules: what was asked for is the soft limit, and also the hard one where it is kept as such (memory
    always); who asked for nothing is limited by the machine.
    """
    promised: Statistics = {}
    if container.cpus is None:
        promised["cpus_limit"] = float(os.cpu_count() or 1)
    else:
        promised["cpus_soft_limit"] = float(container.cpus)
        if cpu_quota:
            promised["cpus_limit"] = float(container.cpus)
    if container.mem is None:
        promised["mem_limit_bytes"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        promised["mem_limit_bytes"] = promised["mem_soft_limit_bytes"] = container.mem
    return promised


def _first_id(container: Container) -> int:
    if container.network is None:
        raise ContainerError("A user namespace's ids follow from the ports: it needs the isolator network/port_mapping")
    for kind, number in (("uid", container.uid), ("gid", container.gid)):
        if number >= id_range.SIZE:
            raise ParseError(f"A user namespace has the ids 0-{id_range.SIZE - 1}: not the {kind} {number}")
    return id_range.first_id(container.network.ephemeral)


def _groups(container: Container) -> list[int]:
    """Of the host, those of its user besides its own group; in a user namespace it has none of these."""
    try:
        entry = pwd.getpwuid(container.uid)
    except KeyError:
        return []
    return [] if container.first_id is not None else os.getgrouplist(entry.pw_name, container.gid)


def _home(uid: int) -> dict[str, str]:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return {"HOME": "/"}
    return {"HOME": entry.pw_dir, "USER": entry.pw_name}
