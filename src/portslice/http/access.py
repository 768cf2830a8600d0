"""Who is calling, and what may they do?

On the Unix socket root and the socket's group may do everything; the file's mode keeps others out, and the credentials
that the kernel vouches for (unix(7), SO_PEERCRED) say whom a container runs as. A process inside one of our containers
may never, even as uid 0: it is known by its PID namespace, a child of the agent's, which it cannot leave. Nor may a
page in a browser, where somebody has forwarded the socket to (ssh -L): any site's could send requests there.

On the TCP port anybody reads. What changes the host or shows a sandbox needs credentials (RFC 7617, Basic) of
--http_credentials, and without that flag is refused. Then the caller may be somebody's browser that was sent here by
another site's page, and that adds the credentials it knows by itself. Such a page

    posts to us                         a body must be JSON, for which browsers ask first, and are refused
    makes the browser fetch a URL       its Sec-Fetch-Site, Origin or Referer tells, and it is refused
    includes an answer as a script      JSONP is refused with credentials
"""

import pwd
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp import BasicAuth, hdrs, web

from portslice.agent.policy import READONLY, READWRITE, Policy
from portslice.agent.service import Agent
from portslice.errors import AccessError, ParseError

_OPEN = ("/health", "/version")  # also where everything else needs credentials, as in Mesos
_OWN_REALM = ("/api/v1", "/api/v1/executor", "/logging/toggle")  # ask for themselves
_HOW = "use the agent's Unix socket, or start the agent with --http_credentials"


class Peer(NamedTuple):
    """The process at the other end of the Unix socket."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Caller:
    """Somebody who may change the host: a process of the host's, or (`peer` is None) whoever has credentials."""

    peer: Peer | None
    principal: str | None = None

    def __str__(self) -> str:
        return f"uid {self.peer.uid}" if self.peer else f"principal '{self.principal}'"


class Access:
    """Answers these questions for every request; what it refuses ends with aiohttp's exception for that status."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    @property
    def _policy(self) -> Policy:
        return self._agent.policy

    @web.middleware
    async def reading(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Let callers read whom --authenticate_http_readonly lets."""
        endpoint = request.get("endpoint")  # whichever of its names was used
        if endpoint not in _OPEN and endpoint not in _OWN_REALM and READONLY in self._policy.realms:
            self._principal(request, READONLY)
            _refuse_scripts(request)
        return await handler(request)

    def using_api(self, request: web.Request) -> None:
        """Let callers use the operator API at all whom --authenticate_http_readwrite lets."""
        if _over_tcp(request) and READWRITE in self._policy.realms:
            self._principal(request, READWRITE)

    def seeing_files(self, request: web.Request, realm: str = READWRITE) -> None:
        """Let callers see sandboxes and the agent's log.

        :raises AccessError: the caller lives in a container, or is gone already.
        """
        if not _over_tcp(request):
            peer_of(request)
        elif not self._policy.open_files:
            self._credentialed(request, realm, f"Sandboxes are not open to everybody (--open_files): {_HOW}")

    def changing(self, request: web.Request) -> Caller:
        """Let callers change the host, and say who they are.

        :raises AccessError: the caller lives in a container, or is gone already.
        """
        if not _over_tcp(request):
            return Caller(peer_of(request))
        return Caller(None, self._credentialed(request, READWRITE, f"This changes the host: {_HOW}"))

    def user(self, caller: Caller, name: str | None) -> tuple[int, int]:
        """uid and gid for a container that the caller launches: of `name`, or else the caller's own.

        :raises AccessError: the caller may not launch as this user.
        :raises ParseError: there is no such user.
        """
        if caller.peer is None:
            name = name or self._policy.users[0]
            if name not in self._policy.users:
                raise AccessError(f"Over TCP no container is launched as '{name}': --http_users says as whom")
        elif name is None:
            return caller.peer.uid, caller.peer.gid
        try:
            entry = pwd.getpwnam(name)
        except (KeyError, ValueError):  # the latter: a name with a NUL
            raise ParseError(f"Failed to get user information for '{name}': there is no such user") from None
        if caller.peer is not None and caller.peer.uid != 0:
            if entry.pw_uid != caller.peer.uid:
                raise AccessError("Only root may run a container as another user or group")
            return caller.peer.uid, caller.peer.gid
        if caller.peer is None and entry.pw_uid == 0:  # it was another user's name when the agent started
            raise AccessError(f"Over TCP no container is launched as root, which '{name}' is now")
        return entry.pw_uid, entry.pw_gid

    def _credentialed(self, request: web.Request, realm: str, without: str) -> str:
        """The principal of a request that credentials alone permit."""
        if self._policy.credentials is None:
            raise web.HTTPForbidden(text=without)
        principal = self._principal(request, realm)
        if _from_another_site(request):
            raise web.HTTPForbidden(text="Another site's page may not use your credentials here")
        _refuse_scripts(request)
        return principal

    def _principal(self, request: web.Request, realm: str) -> str:
        try:
            given = BasicAuth.decode(request.headers.get(hdrs.AUTHORIZATION, ""), encoding="utf-8")
        except ValueError:
            given = None
        known = self._policy.credentials
        if given is None or known is None or not known.admit(given.login, given.password):
            challenge = {hdrs.WWW_AUTHENTICATE: f'Basic realm="{realm}"'}
            raise web.HTTPUnauthorized(text="401 Unauthorized.", headers=challenge)
        return str(given.login)


def _from_another_site(request: web.Request) -> bool:
    if (site := request.headers.get("Sec-Fetch-Site")) is not None:
        return site not in ("same-origin", "none")
    page = request.headers.get(hdrs.ORIGIN) or request.headers.get(hdrs.REFERER)
    try:
        return page is not None and urlsplit(page).netloc != request.host
    except ValueError:  # it is no URL
        return True


def _refuse_scripts(request: web.Request) -> None:
    """Any page can include a script, and with it the browser sends the credentials that it knows."""
    if "jsonp" in request.query:
        raise web.HTTPForbidden(text="What needs credentials is not to be had as JSONP")


def _from_a_page(request: web.Request) -> bool:
    """Whether a page in a browser sends this. One that reaches us by a name of its own (DNS rebinding) can do without
    these headers, but not without that name, a domain, as its Host."""
    name = request.host.partition(":")[0]
    is_domain = "." in name and not name.replace(".", "").isdecimal() and not name.endswith(".localhost")
    told = hdrs.ORIGIN in request.headers or hdrs.REFERER in request.headers
    return is_domain or told or request.headers.get("Sec-Fetch-Site", "none") != "none"


def _over_tcp(request: web.Request) -> bool:
    return _socket(request) is None


def _socket(request: web.Request) -> socket.socket | None:
    """The Unix socket that the request came over."""
    connection = request.transport.get_extra_info("socket") if request.transport else None
    return connection if connection is not None and connection.family == socket.AF_UNIX else None


def peer_of(request: web.Request) -> Peer:
    """The caller.

    :raises AccessError: it lives in a container, or is a page in a browser, or is gone already.
    """
    connection = _socket(request)
    if connection is None:
        raise AccessError("This needs the agent's Unix socket")
    if _from_a_page(request):
        raise AccessError("A page in a browser may not use the agent's socket")
    peer = Peer(*struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
    if _pid_namespace_depth(peer.pid) != 1:
        raise AccessError("A process inside a container may not use the agent's socket")
    return peer


def _pid_namespace_depth(pid: int) -> int:
    """1 in the agent's own PID namespace, more in those below; 0 if the process is gone or beyond our sight."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(numbers)
