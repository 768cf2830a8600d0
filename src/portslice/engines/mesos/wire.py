"""libprocess, as far as an agent speaks it: a message is a POST whose path names the receiver and the type.

    POST /master/mesos.internal.RegisterSlaveMessage HTTP/1.1
    User-Agent: libprocess/slave(1)@10.0.0.2:5051       the sender, as a process id ("pid")
    Libprocess-From: slave(1)@10.0.0.2:5051
    Connection: Keep-Alive
    Host:
    Content-Length: 176

Nobody waits for the HTTP answer: a reply is a message of its own, over a connection of the other side's. So what is
sent goes over one connection a peer, which keeps it in order, and what the peer answers there is thrown away; its end
is how the peer's death is noticed. Delivery is at most once: who needs more repeats himself.

What comes in is not authenticated by anything but where it comes from. `Inbox` takes messages only of the peer of one
link: the pid must be that peer's, and so must be the address of the connection. A peer on this host has its address in
common with all processes here, and with all containers: so there, instead, the other end of the connection must belong
to the same user as the peer's end of the link; a container's end is not among the host's sockets at all.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Self

from aiohttp import web
from google.protobuf.message import DecodeError, Message

from portslice.complaints import Complaints
from portslice.errors import ParseError
from portslice.network.sockdiag import Address, SockDiag

log = logging.getLogger(__name__)

MAX_MESSAGE = 8 << 20  # bytes; Mesos has no bound, and messages of some hundred KB are the largest that are usual
_MAX_UNSENT = 32 << 20
_PATIENCE_SECS = 30.0
_COMPLAINT_SECS = 1.0
_PID = re.compile(r"([^@\s/]+)@([0-9.]+):([0-9]{1,5})")


class Pid(NamedTuple):
    """A libprocess process: its name, and the IPv4 address and port at which it is served."""

    name: str
    ip: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `slave(1)@10.0.0.2:5051`.

        :raises ParseError: it is something else.
        """
        match = _PID.fullmatch(text)
        if match is None or int(match[3]) > 65535:
            raise ParseError(f"'{text[:100]}' is no libprocess process id")
        return cls(match[1], match[2], int(match[3]))

    @property
    def address(self) -> Address:
        return self.ip, self.port

    def __str__(self) -> str:
        return f"{self.name}@{self.ip}:{self.port}"


# Going out


class Link:
    """One connection to a peer, over which messages go out in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.local: Address = writer.get_extra_info("sockname")
        self.remote: Address = writer.get_extra_info("peername")

    @classmethod
    async def open(cls, address: Address, timeout_secs: float) -> Self:
        """Connect.

        :raises OSError: nothing listens there, or nothing answers within that time (TimeoutError).
        """
        async with asyncio.timeout(timeout_secs):
            return cls(*await asyncio.open_connection(*address))

    @property
    def unsent(self) -> int:
        """Bytes that the peer has not taken yet."""
        return self._writer.transport.get_write_buffer_size()

    def send(self, sender: Pid, receiver: str, message: Message) -> None:
        """Send a message to the process of this name. If the connection breaks it is lost.

        A peer that takes nothing for so long that megabytes wait is given up.
        """
        body = message.SerializeToString()
        head = (
            f"POST /{receiver}/{message.DESCRIPTOR.full_name} HTTP/1.1\r\n"
            f"User-Agent: libprocess/{sender}\r\nLibprocess-From: {sender}\r\n"
            f"Connection: Keep-Alive\r\nHost: \r\nContent-Length: {len(body)}\r\n\r\n"
        )
        if self.unsent + len(body) > _MAX_UNSENT:
            log.error("%s takes no messages: giving up the connection", self.remote)
            self._writer.transport.abort()
        self._writer.write(head.encode() + body)

    async def closed(self) -> None:
        """Wait for the connection's end."""
        with suppress(OSError):
            while await self._reader.read(1 << 16):
                pass

    async def flush(self) -> None:
        """Wait until all has been handed to the kernel; not for ever."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECS):
                self._writer.transport.set_write_buffer_limits(0)
                await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


# Coming in


class Mailbox:
    """Takes messages to processes that live here; from whom, a subclass says.

    :param processes: their names, as a regular expression.
    :param rule: whom they obey, for whoever is refused.
    """

    def __init__(self, processes: str, rule: str) -> None:
        self._processes = processes
        self._rule = rule
        self._complaints = Complaints(log, _COMPLAINT_SECS)  # of strangers
        self._handlers: dict[str, tuple[type[Message], Callable[[Any, Message], None]]] = {}

    def routes(self) -> list[web.RouteDef]:
        path = f"/{{process:{self._processes}}}" + r"/{message:mesos\.internal\.[A-Za-z]+}"
        return [web.post(path, self._receive)]

    def _objection(self, request: web.Request, sender: Pid, name: str) -> str | None:
        """Why this message is not taken."""
        raise NotImplementedError

    def _origin(self, request: web.Request, sender: Pid) -> Any:
        """What a handler is told of where a message comes from."""
        return sender

    def _most(self, name: str) -> int:
        """Bytes that a message of this name may have."""
        return MAX_MESSAGE

    async def _receive(self, request: web.Request) -> web.Response:
        name = request.match_info["message"]
        sender = _sender(request)
        if sender is None:
            raise web.HTTPNotFound
        if (objection := self._objection(request, sender, name)) is not None:
            self._complaints.warning("Ignoring %s that claims to be from %s, because %s", name, sender, objection)
            return web.Response(status=403, text=f"{self._rule}, and {objection}.\n")
        body = await read_body(request, self._most(name))
        if name not in self._handlers:
            log.warning("Dropping %s from %s: messages of this type are not understood", name, sender)
            return web.Response(status=202)
        kind, handler = self._handlers[name]
        try:
            message = kind.FromString(body)
            if not message.IsInitialized():
                raise DecodeError("required fields are missing")
        except DecodeError as error:
            log.error("Failed to deserialize '%s' from %s: %s", name, sender, str(error)[:200])
            return web.Response(status=400, text=f"Failed to deserialize '{name}'.\n")
        handler(self._origin(request, sender), message)
        return web.Response(status=202)


class Inbox(Mailbox):
    """Takes what the peer of a link sends.

    :param name: the process to which it is sent.
    """

    def __init__(self, name: str) -> None:
        super().__init__(re.escape(name), "Only the master is obeyed")
        self.name = name
        self.link: Link | None = None
        self._diag = SockDiag()

    def on(self, kind: type[Message], handler: Callable[[Pid, Message], None]) -> None:
        """Have messages of this type handled: called with the sender and the message."""
        self._handlers[kind.DESCRIPTOR.full_name] = kind, handler

    def _objection(self, request: web.Request, sender: Pid, name: str) -> str | None:
        if self.link is None:
            return "there is none now"
        if sender.address != self.link.remote:
            return f"that is {self.link.remote[0]}:{self.link.remote[1]}"
        if request.transport is None:
            return "it has gone"
        peer, own = (request.transport.get_extra_info(end) for end in ("peername", "sockname"))
        owner = self._diag.owner(self.link.remote, self.link.local)
        if (peer[0] == sender.ip) if owner is None else (self._diag.owner(peer, own) == owner):
            return None
        return f"what sends from {peer[0]}:{peer[1]} is something else"


def _sender(request: web.Request) -> Pid | None:
    agent = request.headers.get("User-Agent", "")
    text = request.headers.get("Libprocess-From") or (agent[11:] if agent.startswith("libprocess/") else "")
    try:
        return Pid.parse(text)
    except ParseError:
        return None


async def read_body(request: web.Request, most: int = MAX_MESSAGE) -> bytes:
    """The body of a request.

    :param most: how many bytes it may have.
    :raises web.HTTPException: it is too large, or does not come.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE_SECS):
            async for chunk in request.content.iter_chunked(1 << 16):
                body += chunk
                if len(body) > most:
                    raise web.HTTPRequestEntityTooLarge(most, len(body))
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    return bytes(body)
