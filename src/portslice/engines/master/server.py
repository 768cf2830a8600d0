"""The master's listener, and its life."""

import asyncio
import logging
import os
import signal
import socket

from aiohttp import web

from portslice.engines.master.agents import Agents
from portslice.engines.master.cluster import Cluster
from portslice.engines.master.flags import MasterFlags
from portslice.engines.master.master import Master
from portslice.engines.master.metrics import Metrics
from portslice.engines.master.registry import Registry
from portslice.engines.master.scheduler import Scheduler
from portslice.engines.master.views import Views
from portslice.errors import PortsliceError

log = logging.getLogger(__name__)

_SHUTDOWN_SECS = 1.0
_MAX_BODY = 8 << 20  # bytes: a call with thousands of tasks


async def run(flags: MasterFlags) -> None:
    """Be a master until SIGTERM or SIGINT; tasks go on.

    :raises PortsliceError: it cannot start.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listener = _bind(flags)
    cluster = Cluster(flags, Registry(flags.work_dir))
    master = Master(cluster)
    agents = Agents(master)
    application = web.Application(client_max_size=_MAX_BODY)
    served = [*Views(cluster).routes(), *Metrics(cluster).routes(), *Scheduler(master).routes()]
    application.add_routes(served)
    application.add_routes(_below_master(served))
    application.add_routes(agents.routes())
    runner = web.AppRunner(
        application,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=_SHUTDOWN_SECS,
        keepalive_timeout=1e9,  # an agent's connection is its life
    )
    await runner.setup()
    await web.SockSite(runner, listener).start()
    work = asyncio.create_task(master.run())
    work.add_done_callback(lambda task: stop.set())
    log.info("Master %s is ready at %s", cluster.id, cluster.pid)
    try:
        await stop.wait()
    finally:
        work.cancel()
        agents.close()
        await runner.cleanup()
    if not work.cancelled() and work.done():
        work.result()


def _below_master(routes: list[web.RouteDef]) -> list[web.RouteDef]:
    """Mesos' other name of each endpoint."""
    own = [each for each in routes if not each.path.startswith(("/metrics/", "/version"))]
    return [web.RouteDef(each.method, f"/master{each.path}", each.handler, each.kwargs) for each in own]


def _bind(flags: MasterFlags) -> socket.socket:
    try:
        return socket.create_server((flags.ip, flags.port), backlog=128)
    except OSError as error:
        raise PortsliceError(
            f"Failed to initialize, bind: {os.strerror(error.errno or 0)} [{error.errno}]: choose another address with "
            f"--ip and --port (now {flags.ip}:{flags.port})"
        ) from error
