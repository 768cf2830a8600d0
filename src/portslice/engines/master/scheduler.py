"""/api/v1/scheduler: frameworks' calls, and the streams of their events (Mesos' v1 scheduler API, in JSON or protobuf).

A SUBSCRIBE is answered by a stream that does not end: records of RecordIO, each its length in decimal digits, a line's
end and that many bytes. Each call besides names the stream by its Mesos-Stream-Id, so that what a framework that was
failed over still sends is refused. Texts and codes are Mesos'.

Without --credentials a framework is a process of root, or of the master's user, on this host; with them it comes from
anywhere.
"""

import asyncio
import json
import logging
import uuid
from contextlib import suppress
from typing import Any

from aiohttp import hdrs, web
from google.protobuf.message import DecodeError

from portslice.engines.master.admission import Admission
from portslice.engines.master.flags import SCHEDULER_REALM
from portslice.engines.master.master import Master
from portslice.engines.master.model import Framework
from portslice.engines.mesos.media import JSON, PROTOBUF, TYPES, accepted, call_of
from portslice.engines.mesos.schema.scheduler_pb2 import Call, Event, Operation
from portslice.engines.mesos.streams import Events, line, write
from portslice.engines.mesos.v1 import from_json, to_json
from portslice.errors import ConflictError, ParseError

log = logging.getLogger(__name__)

PATH = "/api/v1/scheduler"
_HEARTBEAT_SECS = 15.0
_STREAM_ID = "Mesos-Stream-Id"
_PATIENCE_SECS = 30.0
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
    """Events on their way to a framework.

    :param media: the type that it accepts.
    """

    def __init__(self, media: str) -> None:
        self._media = media
        super().__init__(self.encoded("HEARTBEAT", {}), _HEARTBEAT_SECS)
        self.id = str(uuid.uuid4())

    def put(self, kind: str, body: dict[str, Any]) -> None:
        """An event."""
        self.put_bytes(self.encoded(kind, body))

    def encoded(self, kind: str, body: dict[str, Any]) -> bytes:
        """An event as the framework reads it."""
        event = {"type": kind, **body}
        return line(event) if self._media == JSON else from_json(Event, event).SerializeToString()


class Scheduler:
    """The endpoint."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._admission = Admission(master.cluster.flags.framework_credentials, "Frameworks", SCHEDULER_REALM)

    def routes(self) -> list[web.RouteDef]:
        return [web.post(PATH, self._call)]

    async def _call(self, request: web.Request) -> web.StreamResponse:
        """The v1 scheduler API: a framework's calls; SUBSCRIBE is answered by a stream of events."""
        principal = self._admission.admit(request)
        call = await _read(request)
        if not call.type:
            raise _invalid("Expecting 'type' to be present")
        if call.type == Call.SUBSCRIBE:
            return await self._subscribe(request, call, principal)
        if not call.HasField("framework_id"):
            raise _invalid("Expecting 'framework_id' to be present")
        kind = Call.Type.Name(call.type)
        member = _MEMBERS.get(kind)
        if member is not None and not call.HasField(member):
            raise _invalid(f"Expecting '{member}' to be present")
        framework = self._framework(request, call)
        if member is None and kind not in _WITHOUT:
            raise _invalid(f"{kind} calls are not supported by this master")
        self._obey(framework, kind, call)
        return web.Response(status=202)

    def _framework(self, request: web.Request, call: Call) -> Framework:
        framework = self._master.cluster.frameworks.get(call.framework_id.value)
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

    async def _subscribe(self, request: web.Request, call: Call, principal: str | None) -> web.StreamResponse:
        if not call.HasField("subscribe"):
            raise _invalid("Expecting 'subscribe' to be present")
        info = call.subscribe.framework_info
        if info.id.value != call.framework_id.value:
            raise _invalid("'framework_id' differs from 'subscribe.framework_info.id'")
        if principal is not None:
            if info.HasField("principal") and info.principal != principal:
                raise _invalid(
                    f"Authenticated principal '{principal}' does not match principal '{info.principal[:200]}' set in "
                    "`FrameworkInfo`"
                )
            info.principal = principal
        if _STREAM_ID in request.headers:
            raise web.HTTPBadRequest(text=f"Subscribe calls should not include the '{_STREAM_ID}' header")
        if request.transport is None:
            raise web.HTTPBadRequest(text="It has gone")
        own = request.transport.get_extra_info("sockname")[0]
        media = accepted(request)
        stream = EventStream(media)
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: media, _STREAM_ID: stream.id})
        response.enable_chunked_encoding()
        await response.prepare(request)
        framework = None
        try:
            try:
                framework = self._master.subscriptions.subscribe(info, call.subscribe.suppressed_roles, stream)
            except (ParseError, ConflictError) as error:
                await write(response, stream.encoded("ERROR", {"error": {"message": str(error)}}))
                return response
            with suppress(OSError):
                await write(response, stream.encoded("SUBSCRIBED", {"subscribed": self._subscribed(framework, own)}))
                await write(response, stream.encoded("HEARTBEAT", {}))
                await stream.copy_to(request, response)
        finally:
            if framework is not None:
                self._master.subscriptions.unsubscribed(framework, stream)
        return response

    def _subscribed(self, framework: Framework, own: str) -> dict[str, Any]:
        return {
            "framework_id": {"value": framework.id},
            "heartbeat_interval_seconds": _HEARTBEAT_SECS,
            "master_info": self._master.cluster.info(own),
        }

    def _obey(self, framework: Framework, kind: str, call: Call) -> None:
        master = self._master
        match kind:
            case "TEARDOWN":
                master.subscriptions.tear_down(framework)
            case "ACCEPT":
                self._accept(framework, call.accept)
            case "DECLINE":
                ids = [each.value for each in call.decline.offer_ids]
                master.launching.decline(framework, ids, call.decline.filters.refuse_seconds)
            case "REVIVE":
                master.launching.revive(framework, call.revive.roles)
            case "SUPPRESS":
                master.launching.suppress(framework, call.suppress.roles)
            case "KILL":
                policy = call.kill.kill_policy if call.kill.HasField("kill_policy") else None
                master.reconciliation.kill(framework, call.kill.task_id, policy)
            case "SHUTDOWN":
                master.executors.shut_down(framework, call.shutdown.slave_id.value, call.shutdown.executor_id)
            case "ACKNOWLEDGE":
                said = call.acknowledge
                master.tasks.acknowledge(framework, said.slave_id.value, said.task_id, said.uuid)
            case "RECONCILE":
                wanted = [(each.task_id, each.slave_id.value) for each in call.reconcile.tasks]
                master.reconciliation.reconcile(framework, wanted)
            case "MESSAGE":
                said_to = call.message
                master.executors.message(framework, said_to.slave_id.value, said_to.executor_id, said_to.data)

    def _accept(self, framework: Framework, accept: Call.Accept) -> None:
        for operation in accept.operations:
            if operation.type not in (Operation.LAUNCH, Operation.LAUNCH_GROUP):
                kind = Operation.Type.Name(operation.type)
                raise _invalid(
                    f"{kind} operations are not supported by this master, LAUNCH and LAUNCH_GROUP only"
                )
        ids = [each.value for each in accept.offer_ids]
        self._master.launching.accept(framework, ids, accept.operations, accept.filters.refuse_seconds)


async def _read(request: web.Request) -> Call:
    media = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip()
    if media not in (JSON, PROTOBUF):
        raise web.HTTPUnsupportedMediaType(text=f"Expecting 'Content-Type' of {TYPES}")
    accepted(request)
    try:
        async with asyncio.timeout(_PATIENCE_SECS):
            body = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    return _from_json(body) if media == JSON else _from_protobuf(body)


def _from_json(body: bytes) -> Call:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise web.HTTPBadRequest(text=f"Failed to parse body into JSON: {error}") from None
    return call_of(Call, content)


def _from_protobuf(body: bytes) -> Call:
    try:
        call = Call.FromString(body)
        json.dumps(to_json(call), allow_nan=False)  # it takes texts that are none, and numbers that JSON does not know
    except (DecodeError, TypeError, ValueError):
        raise web.HTTPBadRequest(text="Failed to parse body into Call protobuf") from None
    if not call.IsInitialized():
        raise _invalid("Not initialized: " + ", ".join(call.FindInitializationErrors()))  # type: ignore[attr-defined]
    return call


def _invalid(what: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=f"Failed to validate scheduler::Call: {what}")
