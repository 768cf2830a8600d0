"""The master's listener, and its life."""

import asyncio
import logging
import signal
import socket

from aiohttp import web

from portslice.engines.master.agents import Agents
from portslice.engines.master.cluster import Cluster
from portslice.engines.master.flags import MasterFlags
from portslice.engines.master.master import Master
from portslice.engines.master.metrics import Metrics
from portslice.engines.master.operator import Operator
from portslice.engines.master.registry import Registry
from portslice.engines.master.scheduler import Scheduler
from portslice.engines.master.views import Views
from portslice.http import machine
from portslice.http.application import bind_tcp, make_application
from portslice.http.basic import BRAKE, Brake
from portslice.http.connections import BoundedSite
from portslice.http.patience import Patience
from portslice.http.sources import Sources

log = logging.getLogger(__name__)

_SHUTDOWN_SECS = 1.0
_IDLE_SECS = 75.0
_UNREAD_MS = 60_000  # who takes nothing for so long is hung up on
_MAX_BODY = 8 << 20  # bytes: a call with thousands of tasks


async def run(flags: MasterFlags) -> None:
    """Be a master until SIGTERM or SIGINT; tasks go on.

    :raises PortsliceError: it cannot start.
    """
    flags.check()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listener = bind_tcp(flags.ip, flags.port)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)  # connections have it from there
    cluster = Cluster(flags, Registry(flags.work_dir))
    master = Master(cluster)
    agents, patience = Agents(master), Patience()
    served = [
        *Views(cluster).routes(),
        *Metrics(cluster).routes(),
        *machine.routes(),
        *Scheduler(master).routes(),
        *Operator(master).routes(),
        *agents.routes(),
    ]
    # An agent answers pings over its connection; so that is never idle for long.
    idle_secs = max(_IDLE_SECS, flags.agent_ping_timeout.seconds * (flags.max_agent_ping_timeouts + 1))
    application, sources = make_application(served, patience.hear, delegate="master", most=_MAX_BODY), Sources()
    application[BRAKE] = Brake(sources)
    runner = web.AppRunner(
        application,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=_SHUTDOWN_SECS,
        keepalive_timeout=idle_secs,
    )
    await runner.setup()
    await BoundedSite(runner, listener, sources).start()
    assert runner.server is not None
    watch = asyncio.create_task(patience.watch(runner.server))
    work = asyncio.create_task(master.run())
    work.add_done_callback(lambda task: stop.set())
    log.info("Master %s is ready at %s", cluster.id, cluster.pid)
    try:
        await stop.wait()
    finally:
        work.cancel()
        watch.cancel()
        agents.close()
        await runner.cleanup()
    if not work.cancelled() and work.done():
        work.result()
