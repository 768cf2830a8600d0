"""POST /api/v1: each call to what answers it.

Whoever reaches the port may read. To set the level of verbosity, or to end a framework, is for those who may be
frameworks.
"""

import logging
from collections.abc import Callable

from aiohttp import web

from portslice.agent.verbosity import Verbosity
from portslice.engines.master.admission import Admission
from portslice.engines.master.master import Master
from portslice.engines.master.operator.answers import Answer, Answers
from portslice.engines.master.operator.calls import MASTER
from portslice.engines.master.operator.watching import Watching
from portslice.errors import ParseError, PortsliceError
from portslice.http.operator.messages import Call
from portslice.http.operator.protocol import JSON, RECORDIO, accepted, json_answer, read_call

log = logging.getLogger(__name__)

REALM = "mesos-master-readwrite"
_STREAMING = {"SUBSCRIBE"}
_LONG = {"GET_STATE", "GET_AGENTS", "GET_FRAMEWORKS", "GET_EXECUTORS", "GET_TASKS"}


class Operator:
    """The operator API of a master."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._verbosity = Verbosity()
        self._admission = Admission(master.cluster.flags.credentials, "Those who change something", REALM)
        answers = Answers(master.cluster, lambda: self._verbosity.level)
        self._answers = answers
        self._watching = Watching(master.cluster, answers)
        self._read: dict[str, Callable[[], Answer | None]] = {
            "GET_HEALTH": answers.health,
            "GET_FLAGS": answers.flags,
            "GET_VERSION": answers.version,
            "GET_METRICS": answers.metrics,
            "GET_LOGGING_LEVEL": answers.logging_level,
            "GET_STATE": answers.state,
            "GET_AGENTS": answers.agents,
            "GET_FRAMEWORKS": answers.frameworks,
            "GET_EXECUTORS": answers.executors,
            "GET_OPERATIONS": answers.operations,
            "GET_TASKS": answers.tasks,
            "GET_ROLES": answers.roles,
            "GET_WEIGHTS": answers.weights,
            "GET_QUOTA": answers.quota,
            "GET_MAINTENANCE_SCHEDULE": answers.maintenance_schedule,
            "GET_MAINTENANCE_STATUS": answers.maintenance_status,
        }
        self._change: dict[str, Callable[[Call], None]] = {
            "SET_LOGGING_LEVEL": self._set_logging_level,
            "TEARDOWN": self._tear_down,
        }

    def routes(self) -> list[web.RouteDef]:
        """The endpoint."""
        return [web.post("/api/v1", self.call)]

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Mesos' master operator API: a call as JSON, as {"type": "GET_AGENTS"}."""
        try:
            call = await read_call(request, MASTER)
            return await self._answer(request, call, recordio=accepted(request, call, _STREAMING) == RECORDIO)
        except PortsliceError as error:
            raise web.HTTPBadRequest(text=str(error)) from error

    async def _answer(self, request: web.Request, call: Call, *, recordio: bool) -> web.StreamResponse:
        if call.type in _STREAMING:
            headers = {"Content-Type": RECORDIO, "Message-Content-Type": JSON} if recordio else {"Content-Type": JSON}
            return await self._watching.stream(request, headers)
        if recordio:
            raise web.HTTPNotAcceptable(text=f"Streaming response is not supported for {call.type} call")
        if (change := self._change.get(call.type)) is not None:
            self._admission.admit(request)
            log.info("Processing call %s from %s", call.type, request.remote)
            change(call)
            return web.Response()
        if call.type == "GET_MASTER" and request.transport is not None:
            own = request.transport.get_extra_info("sockname")[0]
            return await json_answer(call, self._answers.master(own), _LONG)
        if (read := self._read.get(call.type)) is not None:
            return await json_answer(call, read(), _LONG)
        why = "" if call.type == "UNKNOWN" else f" This master does not serve {call.type}."
        raise web.HTTPNotImplemented(text=f"501 Not Implemented.{why}")

    def _set_logging_level(self, call: Call) -> None:
        secs = call.argument["duration"]["nanoseconds"] / 1e9
        if secs < 0:
            raise ParseError("Expecting 'set_logging_level.duration' not to be below 0")
        self._verbosity.set(call.argument["level"], secs)

    def _tear_down(self, call: Call) -> None:
        framework = self._master.cluster.frameworks.get(call.argument["framework_id"]["value"])
        if framework is None:
            raise ParseError("No framework found with specified ID")
        self._master.subscriptions.tear_down(framework)
