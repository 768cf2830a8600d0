"""POST /api/v1: each call to what answers it."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from aiohttp import web

from portslice.agent.service import Agent
from portslice.errors import AccessError, NotFoundError, ParseError, PortsliceError
from portslice.http.access import Access
from portslice.http.operator.calls import AGENT
from portslice.http.operator.containers import Containers
from portslice.http.operator.messages import Call
from portslice.http.operator.protocol import RECORDIO, accepted, json_answer, read_call
from portslice.http.operator.reading import Reading
from portslice.http.operator.streams import Streams

log = logging.getLogger(__name__)

_STREAMING = {"ATTACH_CONTAINER_OUTPUT"}
# Have something of every container, or file.
_LONG = {"GET_CONTAINERS", "GET_EXECUTORS", "GET_STATE", "GET_TASKS", "LIST_FILES"}

_Argument: TypeAlias = dict[str, Any]
_Read: TypeAlias = Callable[[_Argument], Awaitable[_Argument | None]]
_Change: TypeAlias = Callable[[_Argument, Any], Awaitable[web.Response]]


class Operator:
    """The operator API of an agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._access = Access(agent)
        reading = Reading(agent)
        containers = Containers(agent, self._access)
        self._streams = Streams(agent)
        self._read: dict[str, _Read] = {
            "GET_HEALTH": reading.health,
            "GET_FLAGS": reading.flags,
            "GET_VERSION": reading.version,
            "GET_METRICS": reading.metrics,
            "GET_LOGGING_LEVEL": reading.logging_level,
            "GET_STATE": reading.state,
            "GET_CONTAINERS": reading.containers,
            "GET_FRAMEWORKS": reading.frameworks,
            "GET_EXECUTORS": reading.executors,
            "GET_TASKS": reading.tasks,
            "GET_AGENT": reading.agent,
            "GET_OPERATIONS": reading.nothing,
            "GET_RESOURCE_PROVIDERS": reading.nothing,
            "WAIT_CONTAINER": containers.wait,
            "WAIT_NESTED_CONTAINER": containers.wait,
        }
        self._see: dict[str, _Read] = {"LIST_FILES": reading.list_files, "READ_FILE": reading.read_file}
        self._change: dict[str, _Change] = {
            "SET_LOGGING_LEVEL": self._set_logging_level,
            "LAUNCH_CONTAINER": containers.launch,
            "KILL_CONTAINER": containers.kill,
            "KILL_NESTED_CONTAINER": containers.kill,
            "REMOVE_CONTAINER": containers.remove,
            "REMOVE_NESTED_CONTAINER": containers.remove,
        }

    @property
    def calls(self) -> set[str]:
        """All that are served."""
        return {*self._read, *self._see, *self._change, *_STREAMING}

    def routes(self) -> list[web.RouteDef]:
        """The endpoint."""
        return [web.post("/api/v1", self.call)]

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Mesos' agent operator API: a call as JSON, as {"type": "GET_CONTAINERS"}."""
        self._access.using_api(request)
        try:
            call = await read_call(request, AGENT)
            return await self._answer(request, call, recordio=accepted(request, call, _STREAMING) == RECORDIO)
        except NotFoundError as error:
            # A file that is not there is told by the status alone.
            raise web.HTTPNotFound(text="" if call.type in self._see else str(error)) from error
        except AccessError as error:
            raise web.HTTPForbidden(text=str(error)) from error
        except PortsliceError as error:
            raise web.HTTPBadRequest(text=str(error)) from error

    async def _answer(self, request: web.Request, call: Call, *, recordio: bool) -> web.StreamResponse:
        if call.type in _STREAMING:
            self._access.seeing_files(request)
            return await self._streams.attach(request, call.argument, recordio=recordio)
        if recordio:
            raise web.HTTPNotAcceptable(text=f"Streaming response is not supported for {call.type} call")
        if (change := self._change.get(call.type)) is not None:
            caller = self._access.changing(request)
            log.info("Processing call %s of %s%s", call.type, caller, _about(call))
            return await change(call.argument, caller)
        if (see := self._see.get(call.type)) is not None:
            self._access.seeing_files(request)
            return await json_answer(call, await see(call.argument), _LONG)
        if (read := self._read.get(call.type)) is not None:
            log.debug("Processing call %s", call.type)
            return await json_answer(call, await read(call.argument), _LONG)
        why = "" if call.type == "UNKNOWN" else f" This agent does not serve {call.type}."
        raise web.HTTPNotImplemented(text=f"501 Not Implemented.{why}")

    async def _set_logging_level(self, argument: _Argument, _caller: object) -> web.Response:
        secs = argument["duration"]["nanoseconds"] / 1e9
        if secs < 0:
            raise ParseError("Expecting 'set_logging_level.duration' not to be below 0")
        self._agent.verbosity.set(argument["level"], secs)
        return web.Response()


def _about(call: Call) -> str:
    """For the log; an id that nobody has checked yet may hold anything."""
    return f" for container {call.argument['container_id']['value']!r}" if "container_id" in call.argument else ""
