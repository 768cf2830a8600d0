"""/monitor/statistics, /containers, /flags, /version and /health as Mesos serves them, and /overview."""

from collections.abc import Callable, Mapping

from aiohttp import web

from portslice.agent.service import Agent
from portslice.containers.container import Container
from portslice.flags import as_strings
from portslice.http.answers import json_response, long_json_response
from portslice.http.version import VERSION
from portslice.overview import overview
from portslice.statistics import executors


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
