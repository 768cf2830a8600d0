"""The listeners: a TCP port that reads, a Unix socket that does everything."""

import asyncio
import grp
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from aiohttp import web

from portslice.agent.service import Agent
from portslice.errors import PortsliceError
from portslice.http.control import Control, errors_as_json
from portslice.http.monitor import Monitor

log = logging.getLogger(__name__)

_SHUTDOWN_SECS = 1.0


class Engine(Protocol):
    """Somebody else who launches containers, and hears of them on the TCP port."""

    def routes(self) -> list[web.RouteDef]:
        """What it answers there. It is to know whom it obeys."""

    def running(self, stop: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        """Inside the block it is at work; `stop` ends the agent."""


@web.middleware
async def _plain_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Mesos' bodies for what aiohttp's router answers."""
    try:
        return await handler(request)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        error.text = f"{error.status} {error.reason}."
        raise


@asynccontextmanager
async def serving(agent: Agent, engine: Engine | None = None) -> AsyncIterator[None]:
    """Inside the block the endpoints answer.

    :raises PortsliceError: an address is taken or may not be used.
    """
    reading = Monitor(agent).routes() + (engine.routes() if engine is not None else [])
    tcp = await _listen(_application(reading), _bind_tcp(agent.flags.ip, agent.flags.port))
    try:
        routes = Control(agent).routes() + Monitor(agent).routes()
        unix = await _listen(_application(routes), _bind_unix(agent.flags.socket_path, agent.flags.socket_group))
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
            log.info("Agent is ready on port %s and '%s'", agent.flags.port, agent.flags.socket_path)
            await stop.wait()
            log.info("Stopping; %s containers go on", len(agent.containerizer.living()))


def _application(routes: Iterable[web.RouteDef]) -> web.Application:
    application = web.Application(middlewares=[_plain_errors, errors_as_json])
    application.add_routes(routes)
    return application


async def _listen(application: web.Application, listener: socket.socket) -> web.AppRunner:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_SECS, handler_cancellation=True)
    await runner.setup()
    await web.SockSite(runner, listener).start()
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
