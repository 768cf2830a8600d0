"""What reads: /monitor/statistics, /containers, /flags, /version, /health, /metrics/snapshot, as Mesos serves them.

Bodies are compact JSON with sorted keys; whole doubles keep their fraction (2.0), as stout prints them. Every path also
stands below /slave(1), the agent's libprocess id, whose parentheses clients send both plain and percent-encoded.
"""

import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

import portslice
from portslice.agent.service import Agent
from portslice.flags import as_strings
from portslice.overview import overview

MESOS_VERSION = "1.11.0"  # whose interface this is: clients choose what they ask for by it
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_GZIP_MIN = 1024


def json_response(request: web.Request, value: Any) -> web.Response:
    """`value` as JSON, or as JSONP if the request asks for it."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True)
    callback = request.query.get("jsonp")
    if callback is not None:
        response = web.Response(text=f"{callback}({text})", content_type="text/javascript")
    else:
        response = web.Response(body=text.encode(), content_type="application/json")
    if len(text) >= _GZIP_MIN and "gzip" in request.headers.get("Accept-Encoding", ""):
        response.enable_compression(web.ContentCoding.gzip)
    return response


class Monitor:
    """The reading endpoints of an agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def routes(self) -> list[web.RouteDef]:
        """All of them, under all their names."""
        named: dict[str, Handler] = {
            "/monitor/statistics": self.statistics,
            "/containers": self.containers,
            "/flags": self.flags,
            "/health": self.health,
        }
        paths = {
            f"{prefix}{path}{suffix}": handler
            for path, handler in named.items()
            for prefix in ("", "/slave(1)")
            for suffix in ("", "/", ".json")
        }
        paths |= {"/version": self.version, "/metrics/snapshot": self.metrics, "/overview": self.overview}
        # aiohttp takes braces, not parentheses, for patterns: paths are literal.
        return [web.get(path, handler) for path, handler in paths.items()]

    async def statistics(self, request: web.Request) -> web.Response:
        """A JSON array, one element a living container."""
        return json_response(request, [usage.monitor_json() for usage in await self._agent.snapshots.take()])

    async def containers(self, request: web.Request) -> web.Response:
        """The same with container ids and status."""
        return json_response(request, [usage.containers_json() for usage in await self._agent.snapshots.take()])

    async def overview(self, request: web.Request) -> web.Response:
        """Beyond Mesos: a JSON array, each container at a glance (portslice.overview)."""
        return json_response(request, [overview(usage) for usage in await self._agent.snapshots.take()])

    async def flags(self, request: web.Request) -> web.Response:
        """Every flag that has a value, as text."""
        return json_response(request, {"flags": as_strings(self._agent.flags)})

    async def version(self, request: web.Request) -> web.Response:
        """The Mesos version whose interface is served, and ours beside it."""
        return json_response(
            request,
            {
                "build_date": "",
                "build_time": 0.0,
                "build_user": "",
                "portslice_version": portslice.__version__,
                "version": MESOS_VERSION,
            },
        )

    async def health(self, _request: web.Request) -> web.Response:
        """200 while the agent answers."""
        return web.Response()

    async def metrics(self, request: web.Request) -> web.Response:
        """A flat object of doubles."""
        agent = self._agent
        living = agent.containerizer.living()
        load = os.getloadavg()
        pages, free = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
        values: dict[str, float] = {
            "containerizer/mesos/container_destroy_errors": agent.containerizer.destroy_errors,
            "slave/container_launch_errors": agent.containerizer.launch_errors,
            "slave/executors_running": len(living),
            "slave/recovery_time_secs": agent.recovery_secs,
            "slave/registered": 0,
            "slave/uptime_secs": time.time() - agent.started,
            "system/cpus_total": os.cpu_count() or 1,
            "system/load_1min": load[0],
            "system/load_5min": load[1],
            "system/load_15min": load[2],
            "system/mem_free_bytes": free * os.sysconf("SC_PAGE_SIZE"),
            "system/mem_total_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
        }
        if agent.port_mapping is not None:
            values |= agent.port_mapping.metrics(living)
        return json_response(request, {name: float(value) for name, value in values.items()})
