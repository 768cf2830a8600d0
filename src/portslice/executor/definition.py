"""What a TaskInfo asks for, read and checked before anything of it runs.

The agent hands the message on in the JSON of the v1 API. What it asks for and cannot have here is an error that says
so: such a task fails, and its framework knows why.
"""

import os
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from portslice.errors import ParseError

_KILL_GRACE_SECS = 3.0  # of Mesos' executors, where there is no kill policy


@dataclass(frozen=True)
class Command:
    """A CommandInfo.

    :param words: the program, then its arguments from the first on, the name that it sees.
    """

    words: tuple[str, ...]
    environment: dict[str, str]

    @classmethod
    def read(cls, info: dict[str, Any], owner: str) -> "Command":
        """:param owner: whose command it is, for errors.

        :raises ParseError: it cannot be run here.
        """
        value = info.get("value")
        shell = info.get("shell", True)
        if not value:
            raise ParseError(f"{owner} must contain " + ("'shell command'" if shell else "'executable path'"))
        words = ("sh", "sh", "-c", value) if shell else (value, *info.get("arguments", ()))
        return cls(tuple(map(_text, words)), dict(_variables(info.get("environment", {}))))


@dataclass(frozen=True)
class Probe:
    """One look at a task: a CheckInfo's or HealthCheck's.

    :param kind: COMMAND, HTTP or TCP.
    :param url: of an HTTP check; its host is this container.
    """

    kind: str
    command: Command | None = None
    url: str = ""
    host: str = ""
    port: int = 0


@dataclass(frozen=True)
class Check:
    """A CheckInfo, or what a HealthCheck has in common with it. Times in seconds; no timeout is 0."""

    probe: Probe
    delay_secs: float
    interval_secs: float
    timeout_secs: float

    @classmethod
    def read(cls, info: dict[str, Any]) -> "Check":
        """:raises ParseError: with Mesos' texts."""
        return cls(_probe(info, "check"), *_times(info))


@dataclass(frozen=True)
class HealthCheck(Check):
    """A HealthCheck.

    :param failures: so many in a row end the task.
    :param grace_secs: from the start, while which failures do not count, until the first success.
    """

    failures: int
    grace_secs: float

    @classmethod
    def read(cls, info: dict[str, Any]) -> "HealthCheck":
        """:raises ParseError: with Mesos' texts."""
        failures, grace = int(info.get("consecutive_failures", 3)), _secs(info, "grace_period_seconds", 10)
        return cls(_probe(info, "health check"), *_times(info), failures, grace)


@dataclass(frozen=True)
class Definition:
    """A TaskInfo.

    :param environment: the task's own variables: those of its resources, and of its command.
    :param grace_secs: from SIGTERM to SIGKILL.
    :param max_secs: it may take so long; None: for ever.
    """

    command: Command
    environment: dict[str, str]
    grace_secs: float
    max_secs: float | None
    check: Check | None
    health_check: HealthCheck | None

    @classmethod
    def read(cls, info: dict[str, Any], *, alone: bool, switch_user: bool = True) -> "Definition":
        """:param alone: the task is all that there is in the container, which the agent has made for it.
        :param switch_user: it must ask for the user that this runs as.

        :raises ParseError: there can be no such task here, and why.
        """
        try:
            if switch_user:
                _check_users(info)
            return cls._read(info, alone)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ParseError(f"The task is not well formed: {error!r}") from None

    @classmethod
    def _read(cls, info: dict[str, Any], alone: bool) -> "Definition":
        task_id = _text(info["task_id"]["value"])
        if "command" not in info:
            raise ParseError("The task has no command")
        if not alone:
            if "/" in task_id or task_id in ("", ".", ".."):
                raise ParseError(f"The id {task_id!r} contains invalid characters")
            if info["command"].get("uris"):
                raise ParseError("URIs of a task in a group are not fetched: name them in its executor's command")
            if set(info.get("container", ())) - {"type", "linux_info"}:
                raise ParseError("Container images and volumes (ContainerInfo) are not supported in a task group")
        command = Command.read(info["command"], "The task's command")
        resources = _resource_variables(info.get("resources", ()), ports=not alone)
        limit = info.get("max_completion_time")
        return cls(
            command=command,
            environment={"MESOS_TASK_ID": task_id, **resources, **command.environment},
            grace_secs=kill_grace_secs(info, _KILL_GRACE_SECS),
            max_secs=_nanoseconds(limit) if limit is not None and limit["nanoseconds"] > 0 else None,
            check=Check.read(info["check"]) if "check" in info else None,
            health_check=HealthCheck.read(info["health_check"]) if "health_check" in info else None,
        )


def kill_grace_secs(info: Mapping[str, Any], default: float) -> float:
    """Of the `kill_policy` of a TaskInfo, or of a KILL event."""
    policy = info.get("kill_policy") or {}
    return _nanoseconds(policy["grace_period"]) if "grace_period" in policy else default


def _nanoseconds(duration: dict[str, Any]) -> float:
    return max(int(duration["nanoseconds"]) / 1e9, 0)


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ParseError(f"Expecting a text, not {value!r}")
    return value


def _check_users(info: dict[str, Any]) -> None:
    check = info.get("check", {}).get("command", {})
    commands = (info.get("command", {}), info.get("health_check", {}).get("command", {}), check.get("command", {}))
    for name in filter(None, (each.get("user") for each in commands)):
        try:
            wanted = pwd.getpwnam(name).pw_uid
        except KeyError:
            raise ParseError(f"There is no user '{name}' on this host") from None
        if wanted != os.geteuid():
            raise ParseError(
                f"The task wants to run as user '{name}', but its executor runs as uid {os.geteuid()}:"
                " all tasks of an executor have its user here"
            )


def _variables(environment: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for variable in environment.get("variables", ()):
        name = _text(variable["name"])
        if variable.get("type", "VALUE") != "VALUE":
            raise ParseError(f"The environment variable '{name}' is a secret: there are none yet")
        if not name or "=" in name:
            raise ParseError(f"Bad environment variable {name!r}")
        yield name, _text(variable.get("value", ""))


def _resource_variables(resources: list[dict[str, Any]], *, ports: bool) -> dict[str, str]:
    """Mesos' MESOS_ALLOCATION_ROLE; for one task of several also the names of its ports, as each container has them."""
    roles = {each["allocation_info"]["role"] for each in resources if each.get("allocation_info", {}).get("role")}
    found = {"MESOS_ALLOCATION_ROLE": min(roles)} if roles else {}
    if ports:
        given = [each["ranges"]["range"] for each in resources if each["name"] == "ports"]
        ranges = sorted((int(each["begin"]), int(each["end"])) for group in given for each in group)
        numbers = [str(port) for begin, end in ranges for port in range(begin, min(end, 65535) + 1)]
        found |= {f"PORT{index}": number for index, number in enumerate(numbers)}
        found |= {"PORT": numbers[0], "PORTS": ",".join(numbers)} if numbers else {}
    return found


def _probe(info: dict[str, Any], what: str) -> Probe:
    kind = info.get("type")
    if kind is None:
        raise ParseError("CheckInfo must specify 'type'" if what == "check" else "HealthCheck must specify 'type'")
    if kind not in ("COMMAND", "HTTP", "TCP"):
        raise ParseError(f"'{kind}' is not a valid {what} type")
    spelt = kind if what == "check" or kind != "COMMAND" else "command"
    if kind.lower() not in info:
        raise ParseError(f"Expecting '{kind.lower()}' to be set for {spelt} {what}")
    body = info[kind.lower()]
    if kind == "COMMAND":
        command = body["command"] if what == "check" else body
        return Probe(kind, command=Command.read(command, f"Command {what}"))
    port, host = int(body["port"]), "::1" if body.get("protocol") == "IPv6" else "127.0.0.1"
    if not 0 < port < 65536:
        raise ParseError(f"{port} is not the number of a port")
    if kind == "TCP":
        return Probe(kind, host=host, port=port)
    scheme, path = body.get("scheme", "http"), body.get("path", "")
    if scheme not in ("http", "https"):
        raise ParseError(f"Unsupported HTTP {what} scheme: '{scheme}'")
    if path and not path.startswith("/"):
        raise ParseError(f"The path '{path}' of HTTP {what} must start with '/'")
    return Probe(kind, url=f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}")


def _secs(info: dict[str, Any], name: str, default: float) -> float:
    secs = float(info.get(name, default))
    if not 0 <= secs < 1e9:
        raise ParseError(f"Expecting '{name}' to be non-negative")
    return secs


def _times(info: dict[str, Any]) -> tuple[float, float, float]:
    return (
        _secs(info, "delay_seconds", 15),
        _secs(info, "interval_seconds", 10),
        _secs(info, "timeout_seconds", 20),
    )
