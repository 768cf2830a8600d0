"""/monitor/statistics, /containers, /flags, /version and /health as Mesos serves them, and /overview.

Bodies are compact JSON with sorted keys; whole doubles keep their fraction (2.0), as stout prints them.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

import portslice
from portslice.agent.service import Agent
from portslice.containers.container import Container
from portslice.flags import as_strings
from portslice.overview import overview
from portslice.statistics import executors

MESOS_VERSION = "1.11.0"  # whose interface this is: clients choose what they ask for by it
# Our own build; Mesos' members without a value here are empty.
_BUILT = Path(portslice.__file__).stat().st_mtime
VERSION = {
    "build_date": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(_BUILT)),
    "build_time": _BUILT,
    "build_user": "",
    "git_sha": "",
    "git_tag": "",
    "portslice_version": portslice.__version__,
    "version": MESOS_VERSION,
}
FRAMEWORK_ID = ""  # of containers that no framework has launched
_GZIP_MIN = 1024
COMPRESSED_IN_A_THREAD = 1 << 16
"""Bodies of this many bytes and more."""
PIECES = 4
"""The levels of `compact` above what there is once a container."""


def json_response(request: web.Request, value: Any, *, in_order: bool = False) -> web.Response:
    """`value` as JSON, or as JSONP if the request asks for it.

    :param in_order: keep the order of the members, instead of the alphabet's.
    """
    return _response(request, compact(value, in_order=in_order))


async def long_json_response(request: web.Request, value: Any, *, in_order: bool = False) -> web.Response:
    """As `json_response`, of a value with something of every container; others are answered meanwhile."""
    return _response(request, await asyncio.to_thread(compact, value, PIECES, in_order=in_order))


def compact(value: Any, levels: int = 0, *, in_order: bool = False) -> str:
    """`value`, of lists and of objects with texts as names, as compact JSON.

    :param levels: how many, from the outermost on, are written piece by piece. As long as json.dumps lasts, no other
        thread gets its turn: with a thousand containers a tenth of a second.
    """
    if levels and isinstance(value, list):
        return f"[{','.join(compact(each, levels - 1, in_order=in_order) for each in value)}]"
    if levels and isinstance(value, dict):
        members = value.items() if in_order else sorted(value.items())
        pairs = (f"{json.dumps(name)}:{compact(each, levels - 1, in_order=in_order)}" for name, each in members)
        return f"{{{','.join(pairs)}}}"
    return json.dumps(value, separators=(",", ":"), sort_keys=not in_order)


def _response(request: web.Request, text: str) -> web.Response:
    callback = request.query.get("jsonp")
    if callback is not None:
        text, content_type = f"{callback}({text})", "text/javascript"
    else:
        content_type = "application/json"
    response = web.Response(body=text.encode(), content_type=content_type, zlib_executor_size=COMPRESSED_IN_A_THREAD)
    if len(text) >= _GZIP_MIN and takes_gzip(request.headers.get("Accept-Encoding", "")):
        response.enable_compression(web.ContentCoding.gzip)
    return response


class Monitor:
    """The reading endpoints of an agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.route("*", "/monitor/statistics", self.statistics),
            web.route("*", "/containers", self.containers),
            web.route("*", "/flags", self.flags),
            web.route("*", "/health", self.health),
            web.route("*", "/version", self.version),
            web.get("/overview", self.overview),
        ]

    async def statistics(self, request: web.Request) -> web.Response:
        """What the living containers use: an array, one element a container."""
        snapshot = executors(await self._agent.snapshots.take())
        return await long_json_response(request, [usage.monitor_json() for usage in snapshot])

    async def containers(self, request: web.Request) -> web.Response:
        """What /monitor/statistics says, with container ids and status.

        `container_id`, `framework_id`, or `executor_id` and `framework_id` in the query choose some of them.
        """
        chosen = _filter(request.query)
        snapshot = executors(await self._agent.snapshots.take())
        shown = [usage.containers_json() for usage in snapshot if chosen(usage.container)]
        return await long_json_response(request, shown)

    async def overview(self, request: web.Request) -> web.Response:
        """Each living container at a glance: an array of flat objects. Mesos has no such endpoint."""
        return await long_json_response(request, [overview(usage) for usage in await self._agent.snapshots.take()])

    async def flags(self, request: web.Request) -> web.Response:
        """Every flag that has a value, by name, as text."""
        return json_response(request, {"flags": as_strings(self._agent.flags)})

    async def version(self, request: web.Request) -> web.Response:
        """The Mesos version whose interface is served, and ours beside it."""
        return json_response(request, VERSION)

    async def health(self, _request: web.Request) -> web.Response:
        """200 while the agent answers."""
        return web.Response()


def _filter(query: Mapping[str, str]) -> Callable[[Container], bool]:
    """Which containers the query of /containers names; all without one."""
    given = {name: query[name] for name in ("container_id", "executor_id", "framework_id") if name in query}
    if given.keys() not in ({}.keys(), {"container_id"}, {"framework_id"}, {"executor_id", "framework_id"}):
        raise web.HTTPBadRequest(
            text="Supported query parameters are container_id only, framework_id only, or executor_id and framework_id "
            "only"
        )

    def chosen(container: Container) -> bool:
        framework_id = container.framework_id
        own = {"container_id": container.id, "executor_id": container.name, "framework_id": framework_id}
        return given.items() <= own.items()

    return chosen


def takes_gzip(header: str) -> bool:
    """Whether an Accept-Encoding names gzip, and not with the weight 0, which refuses it."""
    codings = (coding.replace(" ", "").lower().partition(";q=") for coding in header.split(","))
    return any(name == "gzip" and (not weight or weight.strip("0.")) for name, _, weight in codings)
