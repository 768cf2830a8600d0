"""/api/v1/scheduler: frameworks' calls, and the streams of their events (Mesos' v1 scheduler API, in JSON).

A SUBSCRIBE is answered by a stream that does not end: records of RecordIO, each its length in decimal digits, a line's
end and that many bytes. Each call besides names the stream by its Mesos-Stream-Id, so that what a framework that was
failed over still sends is refused. Texts and codes are Mesos'.

Without --credentials a framework is a process of root, or of the master's user, on this host; with them it comes from
anywhere.
"""

import json
import logging
import uuid
from contextlib import suppress
from typing import Any

from aiohttp import BasicAuth, hdrs, web

from portslice.engines.master.callers import Callers
from portslice.engines.master.master import HEARTBEAT_SECS, Master
from portslice.engines.master.model import Framework
from portslice.engines.mesos.schema.scheduler_pb2 import Call
from portslice.engines.mesos.streams import Events, line, write
from portslice.engines.mesos.v1 import from_json
from portslice.errors import ConflictError, ParseError, PortsliceError

log = logging.getLogger(__name__)

PATH = "/api/v1/scheduler"
REALM = "mesos-master-scheduler"
_STREAM_ID = "Mesos-Stream-Id"
_MEMBERS = {
    "ACCEPT": "accept",
    "DECLINE": "decline",
    "KILL": "kill",
    "SHUTDOWN": "shutdown",
    "ACKNOWLEDGE": "acknowledge",
    "RECONCILE": "reconcile",
    "MESSAGE": "message",
}
_WITHOUT = ("TEARDOWN", "REVIVE", "SUPPRESS")


class EventStream(Events):
    """Events on their way to a framework."""

    def __init__(self) -> None:
        super().__init__(line({"type": "HEARTBEAT"}), HEARTBEAT_SECS)
        self.id = str(uuid.uuid4())

    def put(self, kind: str, body: dict[str, Any]) -> None:
        """An event."""
        self.put_bytes(line({"type": kind, **body}))


class Scheduler:
    """The endpoint."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._callers = Callers()

    def routes(self) -> list[web.RouteDef]:
        return [web.post(PATH, self._call)]

    async def _call(self, request: web.Request) -> web.StreamResponse:
        self._admit(request)
        call = await _read(request)
        if not call.type:
            raise _invalid("Expecting 'type' to be present")
        if call.type == "SUBSCRIBE":
            return await self._subscribe(request, call)
        if not call.HasField("framework_id"):
            raise _invalid("Expecting 'framework_id' to be present")
        member = _MEMBERS.get(call.type)
        if member is not None and not call.HasField(member):
            raise _invalid(f"Expecting '{member}' to be present")
        framework = self._framework(request, call)
        if member is None and call.type not in _WITHOUT:
            raise _invalid(f"{call.type[:50]} calls are not supported by this master")
        self._obey(framework, call)
        return web.Response(status=202)

    def _admit(self, request: web.Request) -> None:
        credentials = self._master.flags.credentials
        if credentials is None:
            caller = self._callers.of(request)
            if caller is None or not caller.trusted:
                who = caller or "somebody who has gone"
                text = f"Frameworks are processes of root on this host, and this is {who}: see --credentials"
                raise web.HTTPForbidden(text=text)
            if request.headers.get(hdrs.ORIGIN) is not None:
                raise web.HTTPForbidden(text="A browser's page is no framework")
            return
        try:
            given = BasicAuth.decode(request.headers.get(hdrs.AUTHORIZATION, ""), encoding="utf-8")
        except ValueError:
            given = None
        if given is None or not credentials.admit(given.login, given.password):
            challenge = {hdrs.WWW_AUTHENTICATE: f'Basic realm="{REALM}"'}
            raise web.HTTPUnauthorized(text="401 Unauthorized.", headers=challenge)

    def _framework(self, request: web.Request, call: Call) -> Framework:
        framework = self._master.frameworks.get(call.framework_id.value)
        if framework is None:
            raise web.HTTPBadRequest(text="Framework cannot be found")
        if framework.stream is None:
            raise web.HTTPForbidden(text="Framework is not subscribed")
        given = request.headers.get(_STREAM_ID)
        if given is None:
            raise web.HTTPBadRequest(text=f"All non-subscribe calls should include the '{_STREAM_ID}' header")
        if given != framework.stream.id:
            raise web.HTTPBadRequest(
                text=f"The stream ID '{given[:100]}' included in this request didn't match the stream ID currently "
                f"associated with framework ID '{framework.id}'"
            )
        return framework

    async def _subscribe(self, request: web.Request, call: Call) -> web.StreamResponse:
        if not call.HasField("subscribe"):
            raise _invalid("Expecting 'subscribe' to be present")
        info = call.subscribe.framework_info
        if info.id.value != call.framework_id.value:
            raise _invalid("'framework_id' differs from 'subscribe.framework_info.id'")
        if _STREAM_ID in request.headers:
            raise web.HTTPBadRequest(text=f"Subscribe calls should not include the '{_STREAM_ID}' header")
        if request.transport is None:
            raise web.HTTPBadRequest(text="It has gone")
        own = request.transport.get_extra_info("sockname")[0]
        stream = EventStream()
        response = web.StreamResponse(headers={"Content-Type": "application/json", _STREAM_ID: stream.id})
        response.enable_chunked_encoding()
        await response.prepare(request)
        framework = None
        try:
            try:
                framework = self._master.subscribe(info, call.subscribe.suppressed_roles, stream)
            except (ParseError, ConflictError) as error:
                await write(response, line({"type": "ERROR", "error": {"message": str(error)}}))
                return response
            with suppress(OSError):
                await write(response, line({"type": "SUBSCRIBED", "subscribed": self._subscribed(framework, own)}))
                await write(response, line({"type": "HEARTBEAT"}))
                await stream.copy_to(request, response)
        finally:
            if framework is not None:
                self._master.unsubscribed(framework, stream)
        return response

    def _subscribed(self, framework: Framework, own: str) -> dict[str, Any]:
        return {
            "framework_id": {"value": framework.id},
            "heartbeat_interval_seconds": HEARTBEAT_SECS,
            "master_info": self._master.info(own),
        }

    def _obey(self, framework: Framework, call: Call) -> None:
        master = self._master
        match call.type:
            case "TEARDOWN":
                master.tear_down(framework)
            case "ACCEPT":
                self._accept(framework, call.accept)
            case "DECLINE":
                ids = [each.value for each in call.decline.offer_ids]
                master.decline(framework, ids, call.decline.filters.refuse_seconds)
            case "REVIVE":
                master.revive(framework, call.revive.roles)
            case "SUPPRESS":
                master.suppress(framework, call.suppress.roles)
            case "KILL":
                policy = call.kill.kill_policy if call.kill.HasField("kill_policy") else None
                master.kill(framework, call.kill.task_id, policy)
            case "SHUTDOWN":
                master.shut_down_executor(framework, call.shutdown.slave_id.value, call.shutdown.executor_id)
            case "ACKNOWLEDGE":
                said = call.acknowledge
                master.acknowledge(framework, said.slave_id.value, said.task_id, said.uuid)
            case "RECONCILE":
                master.reconcile(framework, [(each.task_id, each.slave_id.value) for each in call.reconcile.tasks])
            case "MESSAGE":
                said_to = call.message
                master.message(framework, said_to.slave_id.value, said_to.executor_id, said_to.data)

    def _accept(self, framework: Framework, accept: Call.Accept) -> None:
        for operation in accept.operations:
            if operation.type != "LAUNCH":
                raise _invalid(f"{operation.type[:50]} operations are not supported by this master, LAUNCH only")
        tasks = [info for operation in accept.operations for info in operation.launch.task_infos]
        ids = [each.value for each in accept.offer_ids]
        self._master.accept(framework, ids, tasks, accept.filters.refuse_seconds)


async def _read(request: web.Request) -> Call:
    kind = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip()
    if kind != "application/json":
        raise web.HTTPUnsupportedMediaType(text="Expecting 'Content-Type' of 'application/json'")
    accepts = request.headers.get(hdrs.ACCEPT, "*/*")
    if not any(each in accepts for each in ("application/json", "application/*", "*/*")):
        raise web.HTTPNotAcceptable(text="Expecting 'Accept' to allow 'application/json'")
    try:
        content = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise web.HTTPBadRequest(text=f"Failed to parse body into JSON: {error}") from None
    if not isinstance(content, dict):
        raise web.HTTPBadRequest(text="Failed to parse body into JSON: Expecting an object")
    try:
        return from_json(Call, content)
    except PortsliceError as error:
        raise web.HTTPBadRequest(text=str(error)) from None


def _invalid(what: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=f"Failed to validate scheduler::Call: {what}")
