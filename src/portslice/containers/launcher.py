"""Starts a command in a container of its own.

Theory of operation: a launch is one command line (``command_line``) of util-linux tools and two small shell scripts,
which a person can read and repeat. Each tool becomes, or starts, the next one:

    prlimit        only if the agent raised its own limit of open files: the container has what the agent began with
    env            undoes what the agent was told to ignore (nohup: SIGHUP), which no shell could
    setsid         leaves the agent's session and parentage
    supervise.sh   stays; writes the exit status
    setpriv        lets the rest die with the supervisor: no container runs unsupervised
    nsenter        enters the container's network namespace
    unshare        makes the mount and IPC namespaces, and a PID namespace for its children
    sh             stays, as the parent outside (unshare --fork would do, but turns an end by SIGKILL into status 1)
    setpriv        lets the container die with that one
    init.sh        first process inside; joins the cgroups, covers what is not the container's, has URIs fetched
    nsenter        enters the user namespace, if there is to be one
    setpriv        becomes the user, without capabilities
    tini           stays; does what is process 1's: hands signals on to the command's process group, reaps orphans

No Python stays, and nothing of it is a child of the agent, which may end at any time: the container's ``Record`` has
all that the next one needs. A command that cannot be started has its message in the sandbox's ``stderr`` and an exit
status, like one that fails; a container whose walls cannot be built was not launched.

The supervisors are in the agent's own cgroup: a service manager must stop the agent alone (systemd:
``KillMode=process``), else it ends the containers, too.
"""

import logging
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from portslice.containers import descriptors, environment
from portslice.containers.process import ProcessHandle
from portslice.containers.record import Record
from portslice.errors import ConflictError, ContainerError

log = logging.getLogger(__name__)

_SUPERVISE = Path(__file__).with_name("supervise.sh")
_INIT = Path(__file__).with_name("init.sh")
_FETCH = Path(__file__).with_name("fetch.py")
_READ_ONLY = Path(__file__).with_name("read_only.py")

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the tools are looked for: neither the agent's search path nor the container's."""

COREUTILS = ("cp", "env", "ln", "mkdir", "mkfifo", "mv", "rm")
"""Those of the programs that a container needs which come with coreutils."""

_PROGRAMS = (*COREUTILS, *["mount", "nsenter", "prlimit", "setpriv", "setsid", "sh", "tini", "umount", "unshare"])

_SCRATCH = Path("/tmp")

_MAX_COMPLAINT = 4096  # bytes
_PATIENCE_SECS = 60.0  # Mesos' executor_registration_timeout


class FetchError(ContainerError):
    """Not all of a container's URIs could be fetched."""


@dataclass(frozen=True)
class LaunchSpec:
    """All that a launch needs. Paths are absolute; the directories exist.

    :param environment: the command's whole environment; nothing is added.
    :param sandbox: where the command starts; its output goes to ``stdout`` and ``stderr`` there.
    :param netns: the network namespace's file; None: the host's.
    :param join_files: the ``cgroup.procs`` files of the cgroups to join.
    :param runtime_directory: the agent's, where the record is; hidden from the container.
    :param work_directory: the agent's; hidden from the container but for its sandbox.
    :param hidden_files: to be hidden as well. One that the host makes anew later shows (as a socket does that the
        agent makes when it starts again), so a directory of the agent's is the better place.
    :param fetch: the orders for `fetch.py` (`fetcher.orders`); None: nothing is fetched.
    :param first_id: uid and gid of the host that 0 is inside, in a user namespace of 65,536 ids; `uid` and `gid` are
        those inside. None: the host's users.
    :param read_only: all file systems, but for the sandbox, /dev/shm, and an empty /tmp.
    :param devices: of the host's, to be seen besides the usual ones; below /dev.
    """

    id: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    sandbox: Path
    uid: int
    gid: int
    netns: Path | None
    join_files: tuple[Path, ...]
    runtime_directory: Path
    work_directory: Path
    hidden_files: tuple[Path, ...] = ()
    fetch: str | None = None
    first_id: int | None = None
    read_only: bool = False
    devices: tuple[Path, ...] = ()

    @property
    def host_uid(self) -> int:
        """As the host sees it."""
        return (self.first_id or 0) + self.uid

    @property
    def host_gid(self) -> int:
        return (self.first_id or 0) + self.gid

    @property
    def record(self) -> Record:
        return Record(self.runtime_directory / "containers" / self.id)


def missing_programs() -> list[str]:
    """The programs without which nothing can be launched; for the start-up checks."""
    return [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]


def command_line(spec: LaunchSpec) -> list[str]:
    """What starts the container, once ``environment`` is in its record."""
    record, sandbox = str(spec.record.directory.resolve()), str(spec.sandbox.resolve())
    scratch = [_SCRATCH.resolve()] if spec.read_only else []
    covers = _outermost(*scratch, spec.work_directory.resolve(), spec.runtime_directory.resolve())
    hidden = [path.resolve() for path in spec.hidden_files if path.exists()]
    return [
        *descriptors.inherited(),
        *("env", "--default-signal"),
        *("setsid", "--fork", "sh", str(_SUPERVISE), record),
        *("setpriv", "--pdeathsig", "KILL"),
        *(("nsenter", f"--net={spec.netns}") if spec.netns else ()),
        *("unshare", "--mount", "--propagation", "slave", "--pid", "--ipc"),
        *("sh", "-c", '"$@" || exit', "sh"),
        *("setpriv", "--pdeathsig", "KILL"),
        *("sh", str(_INIT), record, sandbox, str(spec.uid), str(spec.gid), _groups_option(spec.uid)),
        *(word for path in spec.join_files for word in ("--join", str(path))),
        *(("--map-ids", str(spec.first_id)) if spec.first_id is not None else ()),
        *(() if spec.fetch is None else ("--fetch", os.path.realpath(sys.executable), str(_FETCH), str(_READ_ONLY))),
        *(("--read-only", sys.executable, str(_READ_ONLY)) if spec.read_only else ()),
        *(("--drop", str(spec.netns.parent)) if spec.netns and spec.netns.parent.is_mount() else ()),
        *(word for path in covers for word in ("--scratch" if path in scratch else "--cover", str(path))),
        *(word for path in hidden if not _below(path, covers) for word in ("--hide", str(path))),
        *(word for path in spec.devices for word in ("--device", str(path))),
        *("--", *spec.command),
    ]


def launch(spec: LaunchSpec) -> ProcessHandle:
    """Start the container and return its supervisor, which ends when the exit status is on record.

    The command's own init has begun by then, so that signals reach the command; or the container has ended already,
    also because there is no such command.

    :raises ConflictError: the container was launched before.
    :raises FetchError: not all URIs could be fetched. Nothing of it runs; its record stays.
    :raises ContainerError: the host cannot make such a container. Likewise.
    """
    if not spec.command:
        raise ContainerError(f"Container {spec.id} has no command")
    try:
        _write_orders(spec)
        with _output(spec, "stdout") as stdout, _output(spec, "stderr") as stderr:
            _start(spec, stdout, stderr)
            return _see_begin(spec, stderr)
    except FileExistsError:
        raise ConflictError(f"Container {spec.id} was launched before") from None
    except (OSError, subprocess.CalledProcessError) as error:
        raise ContainerError(f"Failed to launch container {spec.id}: {error}") from error


def _see_begin(spec: LaunchSpec, stderr: BinaryIO) -> ProcessHandle:
    record = spec.record
    deadline = time.monotonic() + _PATIENCE_SECS
    while time.monotonic() < deadline:
        supervisor = record.supervisor
        if supervisor is not None and _has_taken_over(record.init):
            return supervisor
        fetching = spec.fetch is not None and record.fetching
        if supervisor is not None and not supervisor.alive():
            if fetching:
                raise FetchError(_failed_fetch(spec, stderr))
            if not record.furnished:
                complaint = _written(stderr) or "its supervisor has ended"
                raise ContainerError(f"Failed to launch container {spec.id}: {complaint}")
            return supervisor
        if fetching:  # it has a watch of its own
            deadline = time.monotonic() + _PATIENCE_SECS
        time.sleep(0.05 if fetching else 0.002)
    destroy(record)
    raise ContainerError(f"Container {spec.id} has not started within {_PATIENCE_SECS:g} seconds")


def kill(record: Record, number: signal.Signals | int) -> bool:
    """Send a signal to the command and its process group; False if the container has ended."""
    init = record.init
    return init is not None and init.signal(number)


def destroy(record: Record, timeout_secs: float = 10.0) -> None:
    """End the container at once, in whatever state it is, and wait for it; it may have ended long ago.

    :raises ContainerError: it still runs after that time.
    """
    # Without init nobody is inside yet, and all there is dies with the supervisor.
    first = record.init or record.supervisor
    if first is not None:
        first.signal(signal.SIGKILL)
    for process in (record.init, record.supervisor):
        if process is not None and not process.wait(timeout_secs):
            raise ContainerError(f"Process {process.pid} of container {record.directory.name} does not end")


def _write_orders(spec: LaunchSpec) -> None:
    text = environment.script(spec.environment, _program("env"), [_program("tini"), "-g", "--"])
    directory = spec.record.directory
    directory.parent.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir(mode=0o700)
    (directory / "environment").write_bytes(os.fsencode(text))
    if spec.fetch is not None:
        (directory / "orders").write_text(spec.fetch)


def _start(spec: LaunchSpec, stdout: BinaryIO, stderr: BinaryIO) -> None:
    subprocess.run(
        command_line(spec),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd="/",
        env={"PATH": _PATH},
        check=True,
    )


def _output(spec: LaunchSpec, name: str) -> BinaryIO:
    # The directory is the user's already, who may have been quick: nothing that is there is opened, or given away.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(spec.sandbox / name, flags, 0o644)
    except FileExistsError:
        raise ContainerError(f"Failed to launch container {spec.id}: '{spec.sandbox / name}' is there") from None
    os.fchown(descriptor, spec.host_uid, spec.host_gid)
    os.fchmod(descriptor, 0o644)
    return os.fdopen(descriptor, "ab")


def _written(output: BinaryIO) -> str:
    """The end of what is in the file, whatever its name has come to mean."""
    end = os.fstat(output.fileno()).st_size
    return os.pread(output.fileno(), _MAX_COMPLAINT, max(0, end - _MAX_COMPLAINT)).decode(errors="replace").strip()


def _failed_fetch(spec: LaunchSpec, stderr: BinaryIO) -> str:
    written = _written(stderr)
    log.warning("Begin fetcher log (stderr in sandbox) for container %s\n%s", spec.id, written)
    log.warning("End fetcher log for container %s", spec.id)
    status = spec.record.exit_status
    how = "terminated" if status is None else f"exited with status {status}"
    return f"Failed to fetch all URIs for container '{spec.id}': {how}: {written.rpartition(chr(10))[2]}"


def _has_taken_over(init: ProcessHandle | None) -> bool:
    """Whether tini has put the command into its process group, from when on it can hand signals on. The shell in its
    place before, being process 1, is not even told of SIGTERM by the kernel."""
    if init is None:
        return False
    proc = Path("/proc", str(init.pid))
    try:
        children = (proc / "task" / str(init.pid) / "children").read_text().split()
        is_tini = (proc / "comm").read_text() == "tini\n"
        return is_tini and any(os.getpgid(int(child)) == int(child) for child in children)
    except (FileNotFoundError, ProcessLookupError):
        return False


def _groups_option(uid: int) -> str:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return "--clear-groups"
    return "--init-groups"


def _program(name: str) -> str:
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise ContainerError(f"The program '{name}' is missing")
    return path


def _outermost(*directories: Path) -> list[Path]:
    """The directories without those that lie in another of them."""
    return [path for path in dict.fromkeys(directories) if not _below(path, set(directories) - {path})]


def _below(path: Path, directories: Iterable[Path]) -> bool:
    return any(path.is_relative_to(directory) for directory in directories)
