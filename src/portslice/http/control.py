"""What changes the host: launch, update, kill; and what shows sandbox contents. On the Unix socket only.

    POST   /portslice/v1/containers                  launch; 201 with the container
    GET    /portslice/v1/containers                  all containers, ended ones too
    GET    /portslice/v1/containers/NAME             one of them, by name or id
    PATCH  /portslice/v1/containers/NAME             change ports, limits, CPUs and memory while it runs
    GET    /portslice/v1/containers/NAME/statistics  its ResourceStatistics, drops by reason, and identity
    GET    /portslice/v1/drops                       refused packets of all, or ?container=NAME, by reason, and the last
    POST   /portslice/v1/containers/NAME/kill        {"signal": "SIGTERM"}
    GET    /portslice/v1/containers/NAME/wait        answers when it has ended
    GET    /portslice/v1/containers/NAME/stdout      (or stderr) ?offset=N: from there to the end of the container

Errors are {"error": "text"} with 400 (bad request), 403, 404, 409 (name or ports taken) or 503 (nothing free).
"""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from aiohttp import web

from portslice.agent.service import Agent
from portslice.containers.container import Change, Container, Request, State
from portslice.containers.fetcher import Uri
from portslice.errors import (
    AccessError,
    ConflictError,
    NoPortsError,
    NotFoundError,
    ParseError,
    PortsliceError,
)
from portslice.http.access import peer_of
from portslice.http.output import followed
from portslice.ports import PortSet

_STATUS: tuple[tuple[type[PortsliceError], int], ...] = (
    (AccessError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (NoPortsError, 503),
    (ParseError, 400),
    (PortsliceError, 500),
)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_LAST_ID = 2**32 - 2  # the next one means "none" (chown(2))


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Let every PortsliceError be an answer; refuse callers who may not be here before anything else."""
    try:
        if request.path.startswith("/portslice/"):
            request["peer"] = peer_of(request)
        return await handler(request)
    except PortsliceError as error:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        return web.json_response({"error": str(error)}, status=status)


def container_json(container: Container) -> dict[str, Any]:
    """A container as `portslice ps --json` shows it."""
    network = container.network
    return {
        "name": container.name,
        "id": container.id,
        "standalone": container.standalone,
        "state": container.state,
        "pid": container.init.pid if container.init else None,
        "command": list(container.command),
        "ports": [list(range_) for range_ in _bounds(network.ports)] if network else [],
        "ephemeral_ports": [network.ephemeral.begin, network.ephemeral.end] if network else None,
        "egress_bytes_per_sec": network.egress.rate if network and network.egress else None,
        "ingress_bytes_per_sec": network.ingress.rate if network and network.ingress else None,
        "cpus": container.cpus,
        "mem_bytes": container.mem,
        "disk_bytes": container.disk,
        "uid": container.uid,
        "gid": container.gid,
        "user_namespace_first_id": container.first_id,
        "read_only": container.read_only,
        "devices": [str(path) for path in container.devices],
        "sandbox": str(container.sandbox),
        "created": container.created,
        "finished": container.finished,
        "exit_status": container.exit_status if container.state is State.EXITED else None,
        "message": container.message,
    }


class Control:
    """The changing endpoints of an agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        base = "/portslice/v1/containers"
        return [
            web.post(base, self.launch),
            web.get(base, self.list),
            web.get(base + "/{name}", self.show),
            web.patch(base + "/{name}", self.update),
            web.get(base + "/{name}/statistics", self.statistics),
            web.get("/portslice/v1/drops", self.drops),
            web.post(base + "/{name}/kill", self.kill),
            web.get(base + "/{name}/wait", self.wait),
            web.get(base + "/{name}/{stream:stdout|stderr}", self.output),
        ]

    async def launch(self, request: web.Request) -> web.Response:
        body = await _body(request)
        peer = request["peer"]
        uid, gid = _member(body, "uid", int, peer.uid), _member(body, "gid", int, peer.gid)
        if max(uid, gid) > _LAST_ID:
            raise ParseError(f"There is no uid or gid above {_LAST_ID}")
        if (uid, gid) != (peer.uid, peer.gid) and peer.uid != 0:
            raise AccessError("Only root may run a container as another user or group")
        container = await self._agent.launch(
            Request(
                command=tuple(_strings(body.get("command", []), "command")),
                uid=uid,
                gid=gid,
                name=_member(body, "name", str),
                cpus=_member(body, "cpus", (int, float)),
                mem=_member(body, "mem", int),
                disk=_amount(body, "disk"),
                ports=_ports(body.get("ports", 0)),
                environment=_environment(body.get("environment", {})),
                uris=tuple(map(_uri, _list(body, "uris"))),
                user_namespace=_switch(body, "user_namespace"),
                read_only=_switch(body, "read_only"),
                devices=tuple(Path(path) for path in _strings(body.get("devices", []), "devices")),
                egress=_member(body, "egress", int),
                ingress=_member(body, "ingress", int),
            )
        )
        return web.json_response(container_json(container), status=201)

    async def list(self, _request: web.Request) -> web.Response:
        return web.json_response([container_json(each) for each in self._agent.containerizer.all()])

    async def show(self, request: web.Request) -> web.Response:
        return web.json_response(container_json(self._find(request)))

    async def update(self, request: web.Request) -> web.Response:
        container = self._find(request)
        body = await _body(request)
        if unknown := body.keys() - {field.name for field in fields(Change)}:
            raise ParseError(f"'{min(unknown)}' cannot be changed while a container runs")
        change = Change(
            cpus=_member(body, "cpus", (int, float)),
            mem=_member(body, "mem", int),
            disk=_amount(body, "disk"),
            ports=None if body.get("ports") is None else _ports(body["ports"]),
            egress=_member(body, "egress", int),
            ingress=_member(body, "ingress", int),
        )
        if 0 in (change.cpus, change.mem):
            raise ParseError("'cpus' and 'mem' must be more than 0")
        updated = await asyncio.to_thread(self._agent.containerizer.update, container.id, change)
        return web.json_response(container_json(updated))

    async def statistics(self, request: web.Request) -> web.Response:
        container = self._running(request.match_info["name"])
        for usage in await self._agent.snapshots.take():
            if usage.container.id == container.id:
                drops = self._agent.port_mapping.drops(container) if self._agent.port_mapping else None
                return web.json_response({**usage.containers_json(), "drops": drops})
        raise NotFoundError(f"The container '{container.name}' has just ended")

    async def drops(self, request: web.Request) -> web.Response:
        """One object a container (null: the host) and reason; by name, and what was refused most comes first."""
        isolator = self._agent.port_mapping
        if isolator is None:
            raise NotFoundError("The agent runs without network/port_mapping, which alone refuses packets")
        name = request.query.get("container")
        living = sorted(self._agent.containerizer.living(), key=lambda container: container.name)
        containers = [None, *living] if name is None else [self._running(name)]
        return web.json_response([each for one in containers for each in _refused(one, isolator.drops(one))])

    async def kill(self, request: web.Request) -> web.Response:
        name = _member(await _body(request), "signal", str, "SIGTERM")
        try:
            number = signal.Signals[name]
        except KeyError:
            raise ParseError(f"Unknown signal '{name}'") from None
        container = self._find(request)
        if number in _ENDING and self._agent.containerizer.stop_fetching(container):
            return web.json_response(container_json(container))
        container = self._running(container.id)
        await self._agent.kill(container, number)
        return web.json_response(container_json(container))

    async def wait(self, request: web.Request) -> web.Response:
        return web.json_response(container_json(await self._agent.wait(self._find(request))))

    async def output(self, request: web.Request) -> web.StreamResponse:
        """The bytes of an output as they are written, until the container has ended."""
        container = self._find(request)
        offset = int(request.query.get("offset", "0")) if request.query.get("offset", "0").isdigit() else 0
        response = web.StreamResponse()
        await response.prepare(request)
        async with followed(self._agent, container, request.match_info["stream"], offset=offset) as pieces:
            async for piece in pieces:
                if piece is not None:
                    await response.write(piece[1])
        return response

    def _find(self, request: web.Request) -> Container:
        return self._agent.containerizer.find(request.match_info["name"])

    def _running(self, name: str) -> Container:
        container = self._agent.containerizer.find(name)
        if container.state is not State.RUNNING:
            raise NotFoundError(f"The container '{container.name}' is not running")
        return container


def _refused(container: Container | None, drops: dict[str, Any]) -> list[dict[str, Any]]:
    whose = {"container": container.name if container else None, "id": container.id if container else None}
    refused = []
    for sample in drops["samples"]:
        reason = sample["reason"]
        last = {name: value for name, value in sample.items() if name != "reason"}
        refused.append({**whose, "reason": reason, "packets": drops["counts"].get(reason, 0), "last": last})
    return sorted(refused, key=lambda each: (-each["packets"], each["reason"]))


def _bounds(ports: PortSet) -> list[tuple[int, int]]:
    return [(range_.begin, range_.end) for range_ in ports.ranges]


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.text() or "{}")
    except (ValueError, LookupError, RecursionError) as error:  # no such charset; nested too deeply
        raise ParseError(f"Failed to parse body into JSON: {error}") from error
    if not isinstance(body, dict):
        raise ParseError("Expecting a JSON object")
    return body


def _member(body: dict[str, Any], name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
    """A member of this kind, or `default`. No number of a request is below 0."""
    value: Any = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ParseError(f"'{name}' is of the wrong type")
    if isinstance(value, (int, float)) and not 0 <= value < 2**63:
        raise ParseError(f"'{name}' is out of range")
    return value


def _amount(body: dict[str, Any], name: str) -> int | None:
    value: int | None = _member(body, name, int)
    if value == 0:
        raise ParseError(f"'{name}' must be more than 0")
    return value


def _switch(body: dict[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise ParseError(f"'{name}' must be true or false")
    return value


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ParseError("'environment' must be an object of strings")
    return value


def _list(body: dict[str, Any], name: str) -> list[Any]:
    found: list[Any] = _member(body, name, list, [])
    return found


def _uri(value: Any) -> Uri:
    """A text, or an object with the members of a `Uri`."""
    given = {"value": value} if isinstance(value, str) else value
    kinds = {"value": str, "executable": bool, "extract": bool, "output_file": str}
    if not isinstance(given, dict) or "value" not in given or given.keys() - kinds.keys():
        raise ParseError(f"'uris' must be a list of texts, or of objects with {', '.join(kinds)}")
    if any(not isinstance(member, kinds[name]) for name, member in given.items()):
        raise ParseError("A member of 'uris' is of the wrong type")
    return Uri(**given)


def _strings(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ParseError(f"'{name}' must be a list of strings")
    return value


def _ports(value: Any) -> PortSet | int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        return PortSet.parse(value)
    raise ParseError("'ports' must be a number of ports or a text such as '31000-31004'")
