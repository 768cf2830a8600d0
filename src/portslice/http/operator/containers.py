"""The calls that start and end containers.

A container of LAUNCH_CONTAINER is a standalone one: no framework's and no executor's, known by the id that its caller
chose. It is launched as `portslice run` does it, and has the same walls, slice and statistics.
"""

import json
import signal
from typing import Any

from aiohttp import web

from portslice.agent.service import Agent
from portslice.containers.container import Container, Request, State
from portslice.containers.containerizer import KnownIdError
from portslice.containers.fetcher import Uri
from portslice.errors import AccessError, NotFoundError, ParseError, PortsliceError
from portslice.http.access import Access, Caller
from portslice.ports import PortSet
from portslice.resources import Resources

_MB = 1 << 20
_LIMITATIONS = {"mem": "REASON_CONTAINER_LIMITATION_MEMORY", "disk": "REASON_CONTAINER_LIMITATION_DISK"}
_FAILED = "Failed to launch container"
# What `container` may say: nothing that this agent would have to do.
_PLAIN: tuple[dict[str, str], ...] = ({}, {"type": "MESOS"})


class Containers:
    """One method a call."""

    def __init__(self, agent: Agent, access: Access) -> None:
        self._agent = agent
        self._access = access

    async def launch(self, argument: dict[str, Any], caller: Caller) -> web.Response:
        """200: it was started; 202: there is a container of this id."""
        _own_id(argument)
        command = argument.get("command", {})
        uid, gid = self._access.user(caller, command.get("user"))
        request = Request(
            id=argument["container_id"]["value"],
            command=_command(command),
            uid=uid,
            gid=gid,
            environment=_environment(command),
            uris=tuple(_uri(each) for each in command.get("uris", [])),
            **_resources(argument.get("resources", [])),
        )
        if argument.get("container", {}) not in _PLAIN:
            raise ParseError(f"{_FAILED}: 'launch_container.container' may say nothing but its type, MESOS")
        try:
            await self._agent.launch(request)
        except KnownIdError:
            return web.Response(status=202)
        except (ParseError, AccessError):
            raise
        except PortsliceError as error:
            raise ParseError(f"{_FAILED}: {str(error).removeprefix(f'{_FAILED}: ')}") from error
        return web.Response()

    async def wait(self, argument: dict[str, Any]) -> dict[str, Any]:
        """How it ended; a container that has ended is remembered until it is removed."""
        ended = await self._agent.wait(self._find(argument))
        result: dict[str, Any] = {}
        if ended.exit_status is not None:
            result["exit_status"] = _wait_status(ended.exit_status)
        if (limitation := ended.limitation) is not None:
            amount = {"type": "SCALAR", "scalar": {"value": limitation.amount / _MB}, "role": "*"}
            result["state"] = "TASK_FAILED"
            result["reason"] = _LIMITATIONS[limitation.resource]
            result["limitation"] = {"resources": [{"name": limitation.resource, **amount}]}
        if ended.message:
            result["message"] = ended.message
        return result

    async def kill(self, argument: dict[str, Any], _caller: Caller) -> web.Response:
        """Send the signal, SIGKILL by default, and nothing after it."""
        try:
            number = signal.Signals(argument.get("signal", signal.SIGKILL))
        except ValueError:
            raise ParseError(f"There is no signal {argument['signal']}") from None
        name = argument["container_id"]["value"]
        gone = f"Container '{name}' cannot be found (or is already killed)"
        try:
            container = self._find(argument)
        except NotFoundError:
            raise NotFoundError(gone) from None
        if self._agent.containerizer.stop_fetching(container):
            return web.Response()
        if container.state is not State.RUNNING:
            raise NotFoundError(gone)
        self._agent.containerizer.signal(container, number)
        return web.Response()

    async def remove(self, argument: dict[str, Any], _caller: Caller) -> web.Response:
        """Forget it and its sandbox, once it has ended."""
        await self._agent.remove(self._find(argument))
        return web.Response()

    def _find(self, argument: dict[str, Any]) -> Container:
        return find(self._agent, argument)


def find(agent: Agent, argument: dict[str, Any]) -> Container:
    """The container that a call is about, by its id alone.

    :raises NotFoundError: with Mesos' words.
    """
    container_id = argument["container_id"]["value"]
    known = {each.id: each for each in agent.containerizer.all()}
    if "parent" in argument["container_id"] or container_id not in known:
        raise NotFoundError(f"Container {container_id} cannot be found")
    return known[container_id]


def _own_id(argument: dict[str, Any]) -> None:
    if "parent" in argument["container_id"]:
        raise web.HTTPNotImplemented(text="501 Not Implemented. This agent has no nested containers.")


def _command(command: dict[str, Any]) -> tuple[str, ...]:
    """A CommandInfo as a command line. What comes first of `arguments` is the name that the program is told it has by
    Mesos; here that is its value."""
    value = command.get("value")
    if not value:
        raise ParseError(f"{_FAILED}: 'launch_container.command' needs a 'value', since there are no images here")
    return ("sh", "-c", value) if command.get("shell", True) else (value, *command.get("arguments", [])[1:])


def _uri(uri: dict[str, Any]) -> Uri:
    return Uri(**{name: value for name, value in uri.items() if name != "cache"})


def _environment(command: dict[str, Any]) -> dict[str, str]:
    variables = command.get("environment", {}).get("variables", [])
    if any(each.get("type", "VALUE") != "VALUE" or "value" not in each for each in variables):
        raise ParseError(f"{_FAILED}: every variable of 'launch_container.command.environment' needs a 'value'")
    return {each["name"]: each["value"] for each in variables}


def _resources(listed: list[dict[str, Any]]) -> dict[str, Any]:
    """The members of a `Request` that the resources mean. What a container cannot be given here (gpus) says
    nothing, as in an agent of Mesos' without the isolator for it; ephemeral ports are the agent's to give."""
    for each in listed:
        what = "'launch_container.resources'"
        if each.get("reservations") or each.get("reservation") or each.get("role") not in (None, "*"):
            raise ParseError(f"{what} must be unreserved")
        if isinstance(each.get("disk"), dict) and each["disk"].get("persistence"):
            raise ParseError(f"{what} may not use persistent volumes")
        if each.get("revocable") is not None:
            raise ParseError(f"{what} must be non-revocable")
        try:
            Resources.parse(json.dumps([each])).ports("ports")
        except ParseError as error:
            raise ParseError(f"Resource '{_shown(each)}' is invalid: {error}") from error
    resources = Resources.parse(json.dumps(listed))
    return {
        "cpus": resources.scalar("cpus"),
        "mem": _bytes(resources, "mem", "memory"),
        "disk": _bytes(resources, "disk", "disk"),
        "ports": resources.ports("ports") or PortSet(),
    }


def _bytes(resources: Resources, name: str, what: str) -> int | None:
    """Of what Mesos gives in MB."""
    amount = resources.scalar(name)
    if amount is None:
        return None
    if amount * _MB >= 2**63:
        raise ParseError(f"Resource '{name}:{amount:g}' is invalid: there is no such amount of {what}")
    return int(amount * _MB)


def _shown(resource: dict[str, Any]) -> str:
    """As Mesos prints a resource: cpus:-1."""
    kind = str(resource.get("type", "")).lower()
    value = resource.get(kind)
    if isinstance(value, dict):
        pairs = value.get("range")
        if isinstance(pairs, list):
            shown = ", ".join(f"{each.get('begin')}-{each.get('end')}" for each in pairs if isinstance(each, dict))
            value = f"[{shown}]"
        else:
            value = next(iter(value.values()), "")
    return f"{resource.get('name', '')}:{value}"


def _wait_status(exit_status: int) -> int:
    """What wait(2) would have said; 128+n stands for signal n here, whoever ended so."""
    number = exit_status - 128
    return number if 0 < number <= signal.SIGRTMAX else exit_status << 8
