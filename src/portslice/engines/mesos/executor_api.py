"""/api/v1/executor: what executors call, and the streams of their events (Mesos' v1 executor API, in JSON or protobuf).

This is on TCP, where a secret of each executor would be the usual proof of who calls. Here the connection itself is the
proof: a container sends from its own slice of the ports alone, which the kernel enforces, whoever it is inside. So a
call comes from the container that owns the port of its other end, if that end has one of the host's addresses and is no
socket of the host's own; and that container must be the executor in whose name the call is. Nobody else comes so far,
neither the host's processes, nor other containers, nor the world. Ports go from one container to another, but no
connection does: what was sent over it before, and is read when its port is another container's, is nobody's.

What runs in a container may want to do harm. So what it says is bounded, and goes on record only if all that is told of
it can be told in JSON, too: it would spoil the answers of the other endpoints. To read a long call takes seconds, if it
is made for that: it is read in a thread, one at a time, and others are served meanwhile.

Texts and codes are Mesos'.
"""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_address
from weakref import WeakKeyDictionary, WeakValueDictionary

from aiohttp import hdrs, web
from google.protobuf.message import DecodeError

from portslice.agent.service import Agent
from portslice.containers.container import Container
from portslice.engines.mesos import streams
from portslice.engines.mesos.executor import Executor
from portslice.engines.mesos.executors import Executors
from portslice.engines.mesos.media import JSON, PROTOBUF, TYPES, accepted, call_of
from portslice.engines.mesos.schema.executor_pb2 import Call, Event
from portslice.engines.mesos.schema.mesos_pb2 import TASK_STAGING, SlaveInfo, TaskStatus
from portslice.engines.mesos.schema.messages_pb2 import ExecutorToFrameworkMessage
from portslice.engines.mesos.v1 import check, to_json
from portslice.engines.mesos.wire import read_body
from portslice.errors import ParseError
from portslice.network.sockdiag import SockDiag

PATH = "/api/v1/executor"
HEARTBEAT_SECS = 30 * 60.0  # Mesos' DEFAULT_EXECUTOR_HEARTBEAT_INTERVAL
MAX_STATUS = 64 << 10  # bytes
_AT_ONCE = 4  # calls of a container
_LONG = 16 << 10  # bytes of a call that is read in a thread


class EventStream(streams.Events):
    """Events on their way to an executor."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        super().__init__(self._encoded(Event(type=Event.HEARTBEAT)), HEARTBEAT_SECS)

    def put(self, event: Event) -> None:
        """An event."""
        self.put_bytes(self._encoded(event))

    def _encoded(self, event: Event) -> bytes:
        return streams.line(to_json(event)) if self._kind == JSON else event.SerializeToString()


class ExecutorApi:
    """The endpoint.

    :param recovered: whether the executors of an earlier agent are known by now.
    :param info: what executors are told of this agent.
    :param forward: hands a message to the master.
    """

    def __init__(
        self,
        agent: Agent,
        executors: Executors,
        *,
        recovered: Callable[[], bool],
        info: Callable[[], SlaveInfo],
        forward: Callable[[ExecutorToFrameworkMessage], None],
    ) -> None:
        self._agent = agent
        self._executors = executors
        self._recovered = recovered
        self._info = info
        self._forward = forward
        self._diag = SockDiag()
        self._reader = ThreadPoolExecutor(1, "executors' calls")
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # by containers' ids
        self._connections: WeakKeyDictionary[asyncio.Transport, str] = WeakKeyDictionary()  # to containers' ids

    def routes(self) -> list[web.RouteDef]:
        return [web.post(PATH, self.call)]

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Calls of executors (Mesos' v1 executor API), which only an executor's own container may make."""
        if not self._recovered():
            raise web.HTTPServiceUnavailable(text="Agent has not finished recovery")
        container = self._caller(request)
        async with self._turns.setdefault(container.id, asyncio.Semaphore(_AT_ONCE)):
            call = await self._read(request)
        kind = accepted(request) if call.type == Call.SUBSCRIBE else JSON
        executor = self._executor(call, container)
        if call.type == Call.SUBSCRIBE:
            return await self._subscribe(request, executor, container, call.subscribe, kind)
        if not executor.record.subscribed:
            raise web.HTTPForbidden(text="Executor is not subscribed")
        match call.type:
            case Call.UPDATE:
                self._executors.update(executor, call.update.status)
            case Call.MESSAGE:
                self._forward(
                    ExecutorToFrameworkMessage(
                        slave_id=executor.record.slave_id,
                        framework_id=call.framework_id,
                        executor_id=call.executor_id,
                        data=call.message.data,
                    )
                )
            case Call.UNKNOWN:
                raise web.HTTPNotImplemented(text="501 Not Implemented.")
        return web.Response(status=202)

    async def _read(self, request: web.Request) -> Call:
        given, body = request.headers.get(hdrs.CONTENT_TYPE), await read_body(request)
        if len(body) <= _LONG:
            return _read(given, body)
        return await asyncio.get_running_loop().run_in_executor(self._reader, _read, given, body)

    def _caller(self, request: web.Request) -> Container:
        """The container that calls."""
        isolator, connection = self._agent.port_mapping, request.transport
        if isolator is None or connection is None:
            raise web.HTTPForbidden(text="Without network/port_mapping nobody can tell executors from others")
        peer, own = (connection.get_extra_info(end) for end in ("peername", "sockname"))
        ip, port = peer[0], peer[1]
        address = ip_address(ip)
        ours = address.is_loopback or address in isolator.addresses.shared
        if ours and self._diag.owner(peer, own) is None:
            container = self._agent.containerizer.at_port(port)
            if container and self._connections.setdefault(connection, container.id) == container.id:
                return container
        raise web.HTTPForbidden(text=f"Executors call from inside their containers, and {ip}:{port} is not in one")

    def _executor(self, call: Call, container: Container) -> Executor:
        """The executor in whose name it calls."""
        executor = self._executors.find(call.framework_id, call.executor_id)
        if executor is None and not self._executors.has_framework(call.framework_id):
            raise web.HTTPBadRequest(text="Framework cannot be found")
        if executor is None:
            raise web.HTTPBadRequest(text="Executor cannot be found")
        if (container.framework_id, container.name) != executor.key:
            raise web.HTTPForbidden(
                text=f"Only the container of executor '{executor.key[1]}' may call in its name, and this is "
                f"'{container.name}'"
            )
        return executor

    async def _subscribe(
        self, request: web.Request, executor: Executor, container: Container, missed: Call.Subscribe, kind: str
    ) -> web.StreamResponse:
        stream = EventStream(kind)
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: kind})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            await self._executors.subscribe(executor, container, missed, stream, self._info())
            with suppress(OSError):
                await stream.copy_to(request, response)
        finally:
            self._executors.unsubscribed(executor, stream)
        return response


def _read(given: str | None, body: bytes) -> Call:
    """:param given: the body's content type.

    :raises web.HTTPException: it is no valid call.
    """
    call = _parsed(given, body)
    _validate(call)
    _check_values(call)
    return call


def _parsed(given: str | None, body: bytes) -> Call:
    if given is None:
        raise web.HTTPBadRequest(text="Expecting 'Content-Type' to be present")
    kind = given.partition(";")[0].strip()
    if kind == PROTOBUF:
        try:
            call = Call.FromString(body)
        except DecodeError:
            raise web.HTTPBadRequest(text="Failed to parse body into Call protobuf") from None
        if not call.IsInitialized():
            raise _invalid("Not initialized: " + ", ".join(call.FindInitializationErrors()))  # type: ignore[attr-defined]
        return call
    if kind != JSON:
        raise web.HTTPUnsupportedMediaType(text=f"Expecting 'Content-Type' of {TYPES}")
    try:
        content = json.loads(body)
    except json.JSONDecodeError as error:
        near = error.doc[error.pos :].partition("\n")[0][:100]
        text = f"Failed to parse body into JSON: syntax error at line {error.lineno} near: {near}"
        raise web.HTTPBadRequest(text=text) from None
    except (ValueError, RecursionError) as error:
        raise web.HTTPBadRequest(text=f"Failed to parse body into JSON: {error}") from None
    return call_of(Call, content)


def _check_values(call: Call) -> None:
    """What goes on record is the statuses."""
    try:
        for update in (call.update, *call.subscribe.unacknowledged_updates):
            check(update.status)
    except ParseError as error:
        raise web.HTTPBadRequest(text=f"Failed to parse body into Call protobuf: {error}") from None


def _validate(call: Call) -> None:
    """As slave/validation.cpp has it."""
    if not call.HasField("type"):
        raise _invalid("Expecting 'type' to be present")
    member = Call.Type.Name(call.type).lower()
    if member in ("subscribe", "update", "message") and not call.HasField(member):
        raise _invalid(f"Expecting '{member}' to be present")
    if call.type == Call.UPDATE:
        _validate_status(call, call.update.status)
    for update in call.subscribe.unacknowledged_updates:
        _validate_status(call, update.status)


def _validate_status(call: Call, status: TaskStatus) -> None:
    who = f"executor {call.executor_id.value[:250]} of framework {call.framework_id.value[:250]}"
    if not status.HasField("uuid"):
        raise _invalid("Expecting 'uuid' to be present")
    if status.ByteSize() > MAX_STATUS:
        raise _invalid(f"A TaskStatus of {status.ByteSize()} bytes is longer than the {MAX_STATUS} that are taken")
    # A master passes over an update of no version (RFC 4122), and so the task would be stuck.
    if len(status.uuid) != 16 or status.uuid[6] >> 4 not in range(1, 6):
        raise _invalid("Not a valid UUID")
    if status.HasField("executor_id") and status.executor_id != call.executor_id:
        raise _invalid(
            f"ExecutorID in Call: {call.executor_id.value[:250]} does not match ExecutorID in TaskStatus: "
            f"{status.executor_id.value[:250]}"
        )
    if status.source != TaskStatus.SOURCE_EXECUTOR:
        raise _invalid(f"Received Call from {who} with invalid source, expecting 'SOURCE_EXECUTOR'")
    if status.state == TASK_STAGING:
        raise _invalid(f"Received TASK_STAGING from {who} which is not allowed")


def _invalid(what: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=f"Failed to validate Executor::Call: {what}")
