"""The listeners: a TCP port that reads (and does more for whom has credentials), a Unix socket that does everything."""

import asyncio
import grp
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import server_logger
from aiohttp.typedefs import Middleware

from portslice.agent.service import Agent
from portslice.errors import PortsliceError
from portslice.http import machine
from portslice.http.access import Access
from portslice.http.basic import BRAKE, Brake
from portslice.http.connections import BoundedSite
from portslice.http.control import Control, errors_as_json
from portslice.http.dashboard import Dashboard
from portslice.http.files import FilesEndpoints
from portslice.http.help import Help
from portslice.http.metrics import Metrics
from portslice.http.monitor import Monitor
from portslice.http.operator import Operator
from portslice.http.prometheus import Prometheus
from portslice.http.routing import Endpoints, Handler, is_own, plain_errors, serve
from portslice.http.sources import Sources
from portslice.http.state import AgentState
from portslice.http.toggle import LoggingToggle

log = logging.getLogger(__name__)

_SHUTDOWN_SECS = 1.0


class _NoHttp(logging.Filter):
    """What a client sends that is no HTTP is answered, and no error of ours to be logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


server_logger.addFilter(_NoHttp())


class Engine(Protocol):
    """Somebody else who launches containers, and hears of them on the TCP port."""

    def routes(self) -> list[web.RouteDef]:
        """What it answers there. It is to know whom it obeys."""

    def running(self, stop: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        """Inside the block it is at work; `stop` ends the agent."""


@web.middleware
async def _logged(request: web.Request, handler: Handler) -> web.StreamResponse:
    """For the log of who looks for a fault."""
    log.debug("HTTP %s for %s from %s", request.method, request.rel_url.raw_path, request.remote or "the Unix socket")
    return await handler(request)


async def _as_libprocess(request: web.Request, response: web.StreamResponse) -> None:
    """No header that Mesos would not send: nobody is told what serves, and an empty body has no type but a length."""
    response.headers.pop("Server", None)
    if isinstance(response, web.Response) and not response.body and response.status != 304:
        if request.method == "HEAD":
            response.headers["Content-Length"] = "0"
        if response.content_type == "application/octet-stream":
            response.headers.pop("Content-Type", None)


@asynccontextmanager
async def serving(agent: Agent, engine: Engine | None = None) -> AsyncIterator[None]:
    """Inside the block the endpoints answer.

    :raises PortsliceError: an address is taken or may not be used.
    """
    listener = _bind_tcp(agent.flags.ip, agent.flags.port)
    agent.port = listener.getsockname()[1]
    served = [*on_tcp(agent), *(engine.routes() if engine is not None else ())]
    application = _application(served, agent.disabled_endpoints, Access(agent).reading)
    sources = Sources(agent.containerizer.at_port)
    application[BRAKE] = Brake(sources)
    tcp = await _listen(application, listener, sources)
    try:
        own = _bind_unix(agent.flags.socket_path, agent.flags.socket_group)
        unix = await _listen(_application(on_socket(agent)), own)
        try:
            yield
        finally:
            await unix.cleanup()
            agent.flags.socket_path.unlink(missing_ok=True)
    finally:
        await tcp.cleanup()


async def run(agent: Agent, engine: Engine | None = None) -> None:
    """Serve until SIGTERM or SIGINT; containers go on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with agent.watching():
        if agent.flags.recover == "cleanup":
            await agent.kill_all()
            return
        async with serving(agent, engine), engine.running(stop.set) if engine is not None else nullcontext():
            log.info("Agent is ready on port %s and '%s'", agent.port, agent.flags.socket_path)
            await stop.wait()
            log.info("Stopping; %s containers go on", len(agent.containerizer.living()))


def on_socket(agent: Agent) -> list[web.RouteDef]:
    """What the Unix socket serves."""
    return [*Control(agent).routes(), *_both(agent)]


def on_tcp(agent: Agent) -> list[web.RouteDef]:
    """What the TCP port serves. The page is here alone: were the socket forwarded to a browser, any page in it could
    change the host."""
    return [*_both(agent), *Dashboard(agent).routes()]


def _both(agent: Agent) -> list[web.RouteDef]:
    """What both listeners serve."""
    return [
        *Monitor(agent).routes(),
        *AgentState(agent).routes(),
        *Metrics(agent).routes(),
        *Prometheus(agent).routes(),
        *machine.routes(),
        *LoggingToggle(agent).routes(),
        *FilesEndpoints(agent).routes(),
        *Operator(agent).routes(),
    ]


def _application(
    served: list[web.RouteDef], disabled: Iterable[str] = (), *middlewares: Middleware
) -> web.Application:
    application = web.Application(middlewares=[_logged, plain_errors, *middlewares, errors_as_json])
    application.add_routes(route for route in served if is_own(route))
    endpoints = Endpoints()
    endpoints.add(route for route in served if not is_own(route))
    endpoints.add(Help(endpoints).routes())
    for path in disabled:
        endpoints.disable(path)
    serve(application, endpoints)
    application.on_response_prepare.append(_as_libprocess)
    return application


async def _listen(
    application: web.Application, listener: socket.socket, bounded: Sources | None = None
) -> web.AppRunner:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_SECS, handler_cancellation=True)
    await runner.setup()
    await (web.SockSite(runner, listener) if bounded is None else BoundedSite(runner, listener, bounded)).start()
    return runner


def _bind_tcp(ip: str | None, port: int) -> socket.socket:
    try:
        return socket.create_server((ip or "0.0.0.0", port), backlog=128)
    except OSError as error:
        raise PortsliceError(
            f"Failed to initialize, bind: {os.strerror(error.errno or 0)} [{error.errno}]: choose another address with "
            f"--ip and --port (now {ip or '0.0.0.0'}:{port})"
        ) from error


def _bind_unix(path: Path, group: str | None) -> socket.socket:
    """A socket of ours at `path`, for root and the group. One that nobody listens on is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(str(path)) == 0:
                    raise PortsliceError(f"Another agent listens on '{path}': choose another socket with --socket")
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        if group is not None:
            os.chown(path, 0, grp.getgrnam(group).gr_gid)
            path.chmod(0o660)
        listener.listen(128)
    except KeyError as error:
        raise PortsliceError(f"There is no group '{group}' for --socket_group") from error
    except OSError as error:
        raise PortsliceError(f"Failed to listen on '{path}': {error.strerror}") from error
    return listener
