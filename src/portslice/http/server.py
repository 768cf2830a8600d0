"""The listeners: a TCP port that reads (and does more for whom has credentials), a Unix socket that does everything."""

import asyncio
import grp
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from aiohttp import web

from portslice.agent.service import Agent
from portslice.errors import PortsliceError
from portslice.http import machine
from portslice.http.access import Access
from portslice.http.application import bind_tcp, make_application
from portslice.http.basic import BRAKE, Brake
from portslice.http.connections import BoundedSite
from portslice.http.control import Control, errors_as_json
from portslice.http.dashboard import Dashboard
from portslice.http.files import FilesEndpoints
from portslice.http.metrics import Metrics
from portslice.http.monitor import Monitor
from portslice.http.operator import Operator
from portslice.http.prometheus import Prometheus
from portslice.http.sources import Sources
from portslice.http.state import AgentState
from portslice.http.toggle import LoggingToggle

log = logging.getLogger(__name__)

_SHUTDOWN_SECS = 1.0


class Engine(Protocol):
    """Somebody else who launches containers, and hears of them on the TCP port."""

    def routes(self) -> list[web.RouteDef]:
        """What it answers there. It is to know whom it obeys."""

    def running(self, stop: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        """Inside the block it is at work; `stop` ends the agent."""


@asynccontextmanager
async def serving(agent: Agent, engine: Engine | None = None) -> AsyncIterator[None]:
    """Inside the block the endpoints answer.

    :raises PortsliceError: an address is taken or may not be used.
    """
    listener = bind_tcp(agent.flags.ip or "0.0.0.0", agent.flags.port)
    agent.port = listener.getsockname()[1]
    served = [*on_tcp(agent), *(engine.routes() if engine is not None else ())]
    middlewares = (Access(agent).reading, errors_as_json)
    application = make_application(served, *middlewares, disabled=agent.disabled_endpoints)
    sources = Sources(agent.containerizer.at_port)
    application[BRAKE] = Brake(sources)
    tcp = await _listen(application, listener, sources)
    try:
        own = _bind_unix(agent.flags.socket_path, agent.flags.socket_group)
        unix = await _listen(make_application(on_socket(agent), errors_as_json), own)
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


async def _listen(
    application: web.Application, listener: socket.socket, bounded: Sources | None = None
) -> web.AppRunner:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_SECS, handler_cancellation=True)
    await runner.setup()
    await (web.SockSite(runner, listener) if bounded is None else BoundedSite(runner, listener, bounded)).start()
    return runner


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
