"""What the listeners have in common, the agent's and the master's: from endpoints to what aiohttp serves."""

import logging
import os
import socket
from collections.abc import Iterable, Sequence

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import server_logger
from aiohttp.typedefs import Middleware

from portslice.complaints import Complaints
from portslice.errors import PortsliceError
from portslice.http.help import Help
from portslice.http.routing import DELEGATE, Endpoints, Handler, is_own, plain_errors, serve

log = logging.getLogger(__name__)

_COMPLAINT_SECS = 10.0


class _NoHttp(logging.Filter):
    """What a client sends that is no HTTP is answered, and no error of ours: one line, now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._complaints = Complaints(log, _COMPLAINT_SECS)

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        what = " ".join(error.message.split())[:100]
        self._complaints.warning("Answering %s to what is no HTTP from %s: %s", error.code, record.args, what)
        return False


server_logger.addFilter(_NoHttp())


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


def make_application(
    served: Sequence[web.RouteDef],
    *middlewares: Middleware,
    disabled: Iterable[str] = (),
    delegate: str = DELEGATE,
    most: int = 1 << 20,
) -> web.Application:
    """What serves these endpoints, and the help for them.

    :param disabled: endpoints that answer 403.
    :param delegate: the process that they belong to.
    :param most: bytes of a request's body.
    """
    application = web.Application(client_max_size=most, middlewares=[_logged, plain_errors, *middlewares])
    application.add_routes(route for route in served if is_own(route))
    endpoints = Endpoints(delegate)
    endpoints.add(route for route in served if not is_own(route))
    endpoints.add(Help(endpoints).routes())
    for path in disabled:
        endpoints.disable(path)
    serve(application, endpoints)
    application.on_response_prepare.append(_as_libprocess)
    return application


def bind_tcp(ip: str, port: int) -> socket.socket:
    """Listen there.

    :raises PortsliceError: it is taken, or may not be used.
    """
    try:
        return socket.create_server((ip, port), backlog=128)
    except OSError as error:
        raise PortsliceError(
            f"Failed to initialize, bind: {os.strerror(error.errno or 0)} [{error.errno}]: choose another address with "
            f"--ip and --port (now {ip}:{port})"
        ) from error


