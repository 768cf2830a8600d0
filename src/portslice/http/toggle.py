"""/logging/toggle: how much the agent logs, in libprocess' process `logging`. Changing it needs the Unix socket,
or credentials."""

from aiohttp import web

from portslice.agent.service import Agent
from portslice.errors import AccessError, ParseError
from portslice.flags import integer
from portslice.http.access import Access
from portslice.units import Duration


class LoggingToggle:
    """The level of verbosity of an agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._access = Access(agent)

    def routes(self) -> list[web.RouteDef]:
        """The endpoint."""
        return [web.route("*", "/logging/toggle", self.toggle)]

    async def toggle(self, request: web.Request) -> web.Response:
        """The level of verbosity, or a new one for a while.

        `level=1&duration=5mins` logs more for so long, over the agent's Unix socket or with credentials.
        """
        self._access.using_api(request)
        level, duration = request.query.get("level"), request.query.get("duration")
        if level is None and duration is None:
            return web.Response(text=f"{self._agent.verbosity.level}\n")
        for name, value in (("duration", duration), ("level", level)):
            if value is None:
                raise web.HTTPBadRequest(text=f"Expecting '{name}=value' in query.\n")
        try:
            self._access.changing(request)
            new, secs = integer(level or ""), Duration.parse(duration or "").seconds
        except AccessError as error:
            raise web.HTTPForbidden(text=f"{error}.\n") from error
        except ParseError as error:
            raise web.HTTPBadRequest(text=f"{error}.\n") from error
        if new < 0:
            raise web.HTTPBadRequest(text=f"Invalid level '{new}'.\n")
        self._agent.verbosity.set(new, secs)
        return web.Response()
