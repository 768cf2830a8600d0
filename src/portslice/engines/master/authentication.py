"""Agents that prove who they are: the other side of `portslice.engines.mesos.authentication`, which shows the messages.

What is known by it is a connection, not an address: the principal is that of whoever sends over this one, until it
ends. So nobody else at an agent's address, a container there for instance, speaks in its name.

A session has a time and an end, and there is one a connection: a new one takes the place of the last. What does not
succeed is slowed down as wrong credentials over HTTP are (`portslice.http.basic`), by an error, behind which an agent
tries again later.
"""

import asyncio
import itertools
import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, TypeVar

from google.protobuf.message import Message

from portslice.background import report
from portslice.credentials import Credentials
from portslice.engines.mesos.authentication import MAX_DATA, MECHANISM
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.wire import Link, Pid
from portslice.errors import ParseError, PortsliceError
from portslice.http.basic import Brake
from portslice.http.sources import Source

log = logging.getLogger(__name__)

PROCESSES = r"crammd5-authenticator-session\([0-9]+\)"
_SESSION_SECS = 15.0  # Mesos' --authentication_v0_timeout
_MAX_UNREAD = 4  # messages
_LATER = messages.AuthenticationErrorMessage(error="Too many wrong credentials: try again later")

_M = TypeVar("_M", bound=Message)


class _EndedError(PortsliceError):
    """A session came to nothing; the text is for the other side."""


@dataclass
class _Session:
    """One try over one connection.

    :param client: who wants to be known.
    :param peer: the process that speaks for it.
    :param own: the process that it speaks with.
    """

    client: Pid
    peer: Pid
    own: Pid
    source: Source
    heard: "asyncio.Queue[Message]" = field(default_factory=lambda: asyncio.Queue(_MAX_UNREAD))
    principal: str | None = None
    work: "asyncio.Task[None] | None" = None

    async def expect(self, kind: type[_M], name: str) -> _M:
        """The next message, which is to be of this type."""
        message = await self.heard.get()
        if not isinstance(message, kind):
            raise _EndedError(f"Expecting authentication '{name}'")
        return message

    def close(self) -> None:
        if self.work is not None:
            self.work.cancel()


class Authenticator:
    """The master's part."""

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials
        self._sessions: dict[Any, _Session] = {}  # by connection
        self._numbers = itertools.count(1)

    def principal(self, connection: Any) -> str | None:
        """Who is known to send over this connection."""
        session = self._sessions.get(connection)
        return session.principal if session is not None else None

    def begin(
        self, sender: Pid, connection: Any, own: tuple[str, int], brake: Brake, message: messages.AuthenticateMessage
    ) -> None:
        """Somebody wants to be known.

        :param own: the address of ours at which he reached us.
        """
        if connection.transport is None:
            return  # it has gone
        source = brake.sources.of(connection.transport)
        try:
            client = Pid.parse(message.pid)
            if client.address != sender.address:
                raise ParseError(f"{sender} speaks of {client}")
        except ParseError as error:
            if not brake.allowance.wait_secs(source):  # who floods fills no log
                log.warning("Ignoring an authentication: %s", error)
                brake.allowance.failed(source)
            return
        self._forget(connection)
        for each in [each for each in self._sessions if each.transport is None]:
            self._forget(each)
        name = f"crammd5-authenticator-session({next(self._numbers)})"
        session = _Session(client, sender, Pid(name, *own), source)
        self._sessions[connection] = session
        session.work = asyncio.create_task(self._serve(session, brake))
        session.work.add_done_callback(report)

    def hear(self, sender: Pid, connection: Any, message: Message) -> None:
        """Somebody goes on."""
        session = self._sessions.get(connection)
        if session is None or session.peer != sender or session.heard.full():
            log.debug("Dropping %s from %s, for which nobody waits", message.DESCRIPTOR.name, sender)
        else:
            session.heard.put_nowait(message)

    def close(self) -> None:
        """End all sessions."""
        for connection in list(self._sessions):
            self._forget(connection)

    def _forget(self, connection: Any) -> None:
        if (session := self._sessions.pop(connection, None)) is not None:
            session.close()

    async def _serve(self, session: _Session, brake: Brake) -> None:
        braked = brake.allowance.wait_secs(session.source) > 0
        if not braked:
            log.info("Authenticating %s", session.client)
        link = None
        try:
            async with asyncio.timeout(_SESSION_SECS):
                link = await Link.open(session.peer.address, _SESSION_SECS)
                end = await self._converse(session, link, brake)
                link.send(session.own, session.peer.name, end)
                await link.flush()
        except OSError as error:  # TimeoutError among them
            if not braked:
                log.warning("Failed to authenticate %s: %s", session.client, error or "it does not answer")
        finally:
            if session.principal is None and not braked:
                brake.allowance.failed(session.source)
            if link is not None:
                link.close()

    async def _converse(self, session: _Session, link: Link, brake: Brake) -> Message:
        """How it ends."""
        try:
            if brake.allowance.wait_secs(session.source):
                return _LATER
            offer = messages.AuthenticationMechanismsMessage(mechanisms=[MECHANISM])
            link.send(session.own, session.peer.name, offer)
            start = await session.expect(messages.AuthenticationStartMessage, "start")
            if start.mechanism != MECHANISM:
                raise _EndedError(f"Expecting the mechanism {MECHANISM}")
            challenge = f"<{secrets.randbits(128)}.{int(time.time())}@{session.own.ip}>".encode()
            link.send(session.own, session.peer.name, messages.AuthenticationStepMessage(data=challenge))
            step = await session.expect(messages.AuthenticationStepMessage, "step")
            if len(step.data) > MAX_DATA:
                raise _EndedError(f"Expecting not more than {MAX_DATA} bytes")
            if brake.allowance.wait_secs(session.source):  # many at once
                return _LATER
        except _EndedError as error:
            log.warning("Failed to authenticate %s: %s", session.client, error)
            return messages.AuthenticationErrorMessage(error=str(error))
        known = self._credentials
        session.principal = known.prove(challenge, step.data) if known is not None else None
        if session.principal is None:
            log.warning("Authentication of %s was unsuccessful: Invalid credentials", session.client)
            return messages.AuthenticationFailedMessage()
        log.info("Successfully authenticated principal '%s' at %s", session.principal, session.client)
        return messages.AuthenticationCompletedMessage()
