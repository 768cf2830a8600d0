"""Which endpoint answers a path, by libprocess' rules, on which clients of Mesos rely.

Of a path's segments the first names one of libprocess' *processes* (`files`, `metrics`, …). The agent is one of them,
`slave(1)`, and also the *delegate*: a first segment that names no process is already a path of the agent's (at the
master: of `master`). Then

    /monitor/statistics                the endpoint
    /slave(1)/monitor/statistics       the same; the parentheses may be percent-encoded
    /monitor/statistics/               the same; empty segments do not count
    /monitor/statistics.json           the same; Mesos had such names until 1.7, and old clients still use them
    /monitor/statistics/for/me         the same: the longest path that is one answers (clients post to /api/v1/operator)
    /monitor, /slave(1), /a/../flags   none: 404

Only `/` itself is the agent's root, since otherwise nothing would be unknown.

A module says what it serves by a list of aiohttp's `web.RouteDef`, with the plain paths. A handler for the method `*`
is asked whatever the method is, as Mesos' reading endpoints are. Paths below /portslice/ are no endpoints of Mesos':
they, and paths with a pattern (`{name}`), are left to aiohttp's own routing.

An endpoint that the firewall (--firewall_rules) disables answers 403 under all its names. Mesos compares with the path
as it was sent, so that other names of the endpoint stay open.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import cast
from urllib.parse import unquote

from aiohttp import web

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Segments = tuple[str, ...]

DELEGATE = "slave(1)"
PROCESSES = frozenset({"files", "help", "logging", "metrics", "system", "version"})
ANY = "*"


class Endpoint:
    """A path, as its segments, and the handlers of its methods."""

    def __init__(self, segments: Segments, delegate: str = DELEGATE) -> None:
        self.segments = segments
        self.delegate = delegate
        self.handlers: dict[str, Handler] = {}

    @property
    def path(self) -> str:
        """The path without the agent's own process."""
        return "/" + "/".join(self.segments)

    @property
    def process(self) -> str:
        """The process that it belongs to."""
        return self.segments[0] if self.segments and self.segments[0] in PROCESSES else self.delegate

    def handler(self, method: str) -> Handler | None:
        """What answers this method."""
        return self.handlers.get(method) or self.handlers.get(ANY)


class Endpoints:
    """All endpoints of a listener.

    :param delegate: the process that a path without one belongs to.
    """

    def __init__(self, delegate: str = DELEGATE) -> None:
        self._delegate = delegate
        self._by_segments: dict[Segments, Endpoint] = {}

    def add(self, routes: Iterable[web.RouteDef]) -> None:
        """Take in what a module serves."""
        for route in routes:
            segments = tuple(filter(None, route.path.split("/")))
            endpoint = self._by_segments.setdefault(segments, Endpoint(segments, self._delegate))
            if route.method in endpoint.handlers:
                raise ValueError(f"{route.method} {route.path} is there twice")
            endpoint.handlers[route.method] = cast(Handler, route.handler)
            if route.method == "GET" and route.kwargs.get("allow_head", True):
                endpoint.handlers["HEAD"] = endpoint.handlers["GET"]

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(sorted(self._by_segments.values(), key=lambda endpoint: endpoint.segments))

    def find(self, path: str) -> Endpoint | None:
        """The endpoint that a path leads to.

        :param path: as it was sent, percent-encoded.
        """
        segments = self._segments(path)
        if segments is None:
            return None
        shorter = (self._named(segments[:length]) for length in range(len(segments), 0, -1))
        return next(filter(None, shorter), None) if segments else self._named(())

    def named(self, path: str) -> Endpoint | None:
        """The endpoint of this very name."""
        segments = self._segments(path)
        return None if segments is None else self._named(segments)

    def disable(self, path: str) -> None:
        """Answer 403 instead, under all names of the endpoint of this name."""
        if (endpoint := self.named(path)) is None:
            log.warning("--firewall_rules disables '%s', which is no endpoint", path)
        else:
            endpoint.handlers = {ANY: _disabled}

    def _named(self, segments: Segments) -> Endpoint | None:
        without = (*segments[:-1], *(last.removesuffix(".json") for last in segments[-1:]))
        return self._by_segments.get(segments) or self._by_segments.get(without)

    def _segments(self, path: str) -> Segments | None:
        """The segments of a path, without the delegate; None: no endpoint is there."""
        segments = tuple(unquote(segment) for segment in path.split("/") if segment)
        if ".." in segments:
            return None
        if segments[:1] != (self._delegate,):
            return segments
        below = segments[1:]
        return below if below and below[0] not in PROCESSES else None


class _Resource(web.PlainResource):
    """What aiohttp's router asks when nothing else matches: it looks below `/` last."""

    def __init__(self, endpoints: Endpoints) -> None:
        super().__init__("/")
        self._endpoints = endpoints

    async def resolve(self, request: web.Request) -> tuple[web.UrlMappingMatchInfo | None, set[str]]:
        path = request.rel_url.raw_path
        if not path.startswith("/"):
            return self._matched(ANY, _bad_path), set()
        endpoint = self._endpoints.find(path)
        if endpoint is None:
            return None, set()
        request["endpoint"] = endpoint.path  # for who decides by path, whatever name was used
        if (handler := endpoint.handler(request.method)) is None:
            return None, set(endpoint.handlers)
        return self._matched(request.method, handler), set()

    def _matched(self, method: str, handler: Handler) -> web.UrlMappingMatchInfo:
        return web.UrlMappingMatchInfo({}, web.ResourceRoute(method, handler, self))


def is_own(route: web.RouteDef) -> bool:
    """Whether aiohttp's routing is to look after it."""
    return "{" in route.path or route.path.startswith("/portslice/")


def serve(application: web.Application, endpoints: Endpoints) -> None:
    """Let an application serve them."""
    application.router.register_resource(_Resource(endpoints))


@web.middleware
async def plain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Mesos' bodies for what the routing refuses; a handler's own errors are as it says."""
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        if error is request.match_info.http_exception:
            methods = sorted(error.allowed_methods - {"HEAD"})
            error.headers["Allow"] = ", ".join(methods)
            expected = ", ".join(f"'{method}'" for method in methods)
            error.text = f"405 Method Not Allowed. Expecting one of {{ {expected} }}, but received '{request.method}'."
        raise
    except web.HTTPNotFound as error:
        if error is request.match_info.http_exception:
            error.text = "404 Not Found."
        raise


async def _disabled(request: web.Request) -> web.Response:
    """Disabled by --firewall_rules."""
    raise web.HTTPForbidden(text=f"Endpoint '{request.path}' is disabled")


async def _bad_path(_request: web.Request) -> web.Response:
    raise web.HTTPBadRequest(text="Request URL path must start with '/'")
