"""A container as the journal keeps it: what was asked for, what was given, how it ended."""

import signal
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from portslice.containers.process import ProcessHandle
from portslice.ports import PortRange, PortSet
from portslice.rates import Rate

_SHOWN_COMMAND = 15
_KILLED = frozenset(128 + number for number in (signal.SIGTERM, signal.SIGKILL))


def command_executor_name(task_id: str, command: tuple[str, ...]) -> str:
    """What Mesos calls the executor of a command task (slave.cpp, `Slave::getExecutorInfo`)."""
    if len(command) == 3 and command[:2] == ("sh", "-c"):
        text, form = command[2], "sh -c '{}'"
    else:
        text, form = ", ".join(command), "[{}]"
    if len(text) > _SHOWN_COMMAND:
        text = text[: _SHOWN_COMMAND - 3] + "..."
    return f"Command Executor (Task: {task_id}) (Command: {form.format(text)})"


class State(StrEnum):
    """PREPARING until the command is known to run; EXITED once its resources are given back."""

    PREPARING = "preparing"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True)
class Request:
    """What somebody wants to run.

    :param id: the container's id, if the caller wants to choose it; such a container is a standalone one (Mesos'
        LAUNCH_CONTAINER), and its name is its id unless it has another.
    :param framework_id: of the Mesos framework whose task it is; empty: nobody's.
    :param executor: name and source of the framework's own executor that it is (its id is the container's name); None:
        that of a command task, whose names follow from the command.
    :param ports: assigned ports by number, or how many.
    :param user_namespace: uid and gid are not the host's but those of a user namespace, which own nothing outside.
    :param read_only: the file system, but for the sandbox and a private /tmp.
    :param devices: of the host's, below /dev, to be seen besides the usual ones.
    :param disk: bytes that its sandbox may take; None: not limited.
    :param egress: limit of what it sends in bytes per second; 0: none; None: the agent's flags decide.
    :param ingress: likewise of what it receives.
    """

    command: tuple[str, ...]
    uid: int
    gid: int
    id: str | None = None
    name: str | None = None
    framework_id: str = ""
    executor: tuple[str, str] | None = None
    cpus: float | None = None
    mem: int | None = None
    disk: int | None = None
    ports: PortSet | int = 0
    environment: dict[str, str] = field(default_factory=dict)
    user_namespace: bool = False
    read_only: bool = False
    devices: tuple[Path, ...] = ()
    egress: int | None = None
    ingress: int | None = None


@dataclass(frozen=True)
class Change:
    """What somebody wants to be otherwise while the container runs; the members are a `Request`'s, None: as it is."""

    cpus: float | None = None
    mem: int | None = None
    disk: int | None = None
    ports: PortSet | int | None = None
    egress: int | None = None
    ingress: int | None = None


@dataclass(frozen=True)
class Network:
    """The share of the network that the port_mapping isolator gave.

    :param slot: number in the BPF maps.
    :param egress: limit of what it sends, in effect; None: no limit. Likewise `ingress`.
    """

    slot: int
    ephemeral: PortRange
    ports: PortSet
    egress: Rate | None
    ingress: Rate | None

    def to_json(self) -> dict[str, Any]:
        return {
            "slot": self.slot,
            "ephemeral_ports": [self.ephemeral.begin, self.ephemeral.end],
            "ports": [[ports.begin, ports.end] for ports in self.ports.ranges],
            "egress": asdict(self.egress) if self.egress else None,
            "ingress": asdict(self.ingress) if self.ingress else None,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(
            slot=data["slot"],
            ephemeral=PortRange(*data["ephemeral_ports"]),
            ports=PortSet(PortRange(*ports) for ports in data["ports"]),
            egress=Rate(**data["egress"]) if data["egress"] else None,
            ingress=Rate(**data["ingress"]) if data["ingress"] else None,
        )


@dataclass(frozen=True)
class Container:
    """One container. A value: every change is a new one, written to the journal before the kernel is touched.

    :param id: Mesos' container id, also the name of its cgroups.
    :param standalone: whether whoever launched it chose the id.
    :param framework_id: of the Mesos framework whose task it is; empty: nobody's.
    :param executor: as in `Request`.
    :param cpus: share of CPUs asked for; None: not limited.
    :param mem: bytes of memory asked for; None: not limited.
    :param disk: bytes of disk asked for; None: not limited.
    :param first_id: the host's uid and gid for 0 inside, in a user namespace; None: uid and gid are the host's.
    :param egress: limit asked for, as in `Request`; what is in effect stands in `network`. Likewise `ingress`.
    :param init: its first process; killing it ends all the others.
    :param supervisor: the process that writes the exit status when init has ended, and then ends.
    :param exit_status: 0-255, 128 + n after signal n; None while it runs, or if it was lost.
    """

    id: str
    name: str
    command: tuple[str, ...]
    uid: int
    gid: int
    sandbox: Path
    created: float
    standalone: bool = False
    framework_id: str = ""
    executor: tuple[str, str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    cpus: float | None = None
    mem: int | None = None
    disk: int | None = None
    egress: int | None = None
    ingress: int | None = None
    network: Network | None = None
    first_id: int | None = None
    read_only: bool = False
    devices: tuple[Path, ...] = ()
    state: State = State.PREPARING
    init: ProcessHandle | None = None
    supervisor: ProcessHandle | None = None
    exit_status: int | None = None
    finished: float | None = None
    message: str = ""

    @property
    def executor_name(self) -> str:
        """What the framework calls its executor, or Mesos that of a command task."""
        return command_executor_name(self.name, self.command) if self.executor is None else self.executor[0]

    @property
    def source(self) -> str:
        """Likewise."""
        return self.name if self.executor is None else self.executor[1]

    @property
    def task_state(self) -> str:
        """The state of a command task like this (Mesos' `TaskState`).

        What ended by SIGTERM or SIGKILL counts as killed: these are the signals of a kill, and of the OOM killer.
        """
        if self.state is not State.EXITED:
            return "TASK_RUNNING" if self.state is State.RUNNING else "TASK_STAGING"
        if self.exit_status is None:
            return "TASK_LOST"
        if self.exit_status in _KILLED:
            return "TASK_KILLED"
        return "TASK_FAILED" if self.exit_status else "TASK_FINISHED"

    def changed(self, **changes: Any) -> Self:
        """A copy with other values."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        network = self.network.to_json() if self.network else None
        paths = {"sandbox": str(self.sandbox), "devices": [str(path) for path in self.devices]}
        return {**asdict(self), **paths, "network": network}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(
            **{
                **data,
                "command": tuple(data["command"]),
                "executor": tuple(data["executor"]) if data.get("executor") else None,
                "sandbox": Path(data["sandbox"]),
                "network": Network.from_json(data["network"]) if data["network"] else None,
                "devices": tuple(Path(path) for path in data.get("devices", ())),
                "init": ProcessHandle(**data["init"]) if data["init"] else None,
                "supervisor": ProcessHandle(**data["supervisor"]) if data["supervisor"] else None,
                "state": State(data["state"]),
            }
        )
