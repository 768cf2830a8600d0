"""Being who one says to the master: `--credential`, by SASL's mechanism CRAM-MD5 in messages of libprocess.

    agent                                master
    Authenticate(pid)               ──▶  "master"
                                    ◀──  Mechanisms("CRAM-MD5"), from a process that is there for this one time
    Start("CRAM-MD5")               ──▶
                                    ◀──  Step(challenge)
    Step(principal, HMAC-MD5)       ──▶
                                    ◀──  Completed, Failed (the secret is wrong), or Error (something else is)

The secret does not travel. But who listens can try secrets on what he heard: let it be long and random. And it is the
agent that proves itself: that the master is the right one is known by its address alone (`wire.Inbox`).

A try that comes to no end is given up after a random time, whose bound doubles with each one. What comes out of turn
ends a try; what no try waits for is dropped.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from portslice.credentials import Credential
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.wire import Inbox, Pid
from portslice.errors import PortsliceError

log = logging.getLogger(__name__)

MECHANISM = "CRAM-MD5"
MAX_DATA = 4096  # bytes of a challenge or an answer
_ANSWERS = (
    messages.AuthenticationMechanismsMessage,
    messages.AuthenticationStepMessage,
    messages.AuthenticationCompletedMessage,
    messages.AuthenticationFailedMessage,
    messages.AuthenticationErrorMessage,
)
_MAX_UNREAD = 8  # messages

_M = TypeVar("_M", bound=Message)


class RefusedError(PortsliceError):
    """The master does not know this credential."""


class _FailedError(PortsliceError):
    """This try came to nothing."""


@dataclass(frozen=True)
class Timeouts:
    """How long a try may take, in seconds: a random time from `least` on; up to `factor` longer the first time, then
    twice that, and so on, but never longer than `most`."""

    least: float
    most: float
    factor: float

    def secs(self, tries: int) -> float:
        """Of the try that comes after so many."""
        bound = min(self.least + self.factor * 2.0 ** min(tries + 1, 30), self.most)
        return random.uniform(self.least, max(self.least, bound))


class Authentication:
    """The agent's part.

    :param send: sends a message to a process of the master's, by its name.
    """

    def __init__(
        self, credential: Credential, timeouts: Timeouts, inbox: Inbox, send: Callable[[Message, str], None]
    ) -> None:
        self._credential = credential
        self._timeouts = timeouts
        self._send = send
        self._heard: asyncio.Queue[tuple[Pid, Message]] | None = None
        for kind in _ANSWERS:
            inbox.on(cast(type[Message], kind), self._hear)

    async def authenticate(self, pid: Pid, master: Pid) -> None:
        """Have the master know this agent; as often as it takes.

        :raises RefusedError: it knows better.
        """
        tries = 0
        while True:
            log.info("Authenticating with master %s", master)
            secs = self._timeouts.secs(tries)
            self._heard = asyncio.Queue(_MAX_UNREAD)
            began = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(secs):
                    accepted = await self._try(pid)
            except (TimeoutError, _FailedError) as error:
                log.warning("Failed to authenticate with master %s: %s", master, str(error) or "it does not answer")
            else:
                if not accepted:
                    raise RefusedError(f"Master {master} refused authentication")
                log.info("Successfully authenticated with master %s", master)
                return
            finally:
                self._heard = None
            tries += 1
            await asyncio.sleep(began + secs - asyncio.get_running_loop().time())

    async def _try(self, pid: Pid) -> bool:
        """Whether the master knows this credential.

        :raises _FailedError: that did not come out.
        """
        self._send(messages.AuthenticateMessage(pid=str(pid)), "master")
        session, offered = await self._expect(messages.AuthenticationMechanismsMessage, None)
        if MECHANISM not in offered.mechanisms:
            raise _FailedError(f"it knows {', '.join(offered.mechanisms)[:200] or 'nothing'}, but not {MECHANISM}")
        self._send(messages.AuthenticationStartMessage(mechanism=MECHANISM), session.name)
        _, challenge = await self._expect(messages.AuthenticationStepMessage, session)
        if not 0 < len(challenge.data) <= MAX_DATA:
            raise _FailedError(f"its challenge has {len(challenge.data)} bytes")
        answer = self._credential.respond(challenge.data)
        self._send(messages.AuthenticationStepMessage(data=answer), session.name)
        _, end = await self._next(session)
        if isinstance(end, messages.AuthenticationFailedMessage):
            return False
        if isinstance(end, messages.AuthenticationCompletedMessage):
            return True
        raise _unexpected(end)

    async def _expect(self, kind: type[_M], session: Pid | None) -> tuple[Pid, Any]:
        sender, message = await self._next(session)
        if not isinstance(message, kind):
            raise _unexpected(message)
        return sender, message

    async def _next(self, session: Pid | None) -> tuple[Pid, Message]:
        """What comes next, from whoever this is talked over with."""
        assert self._heard is not None
        while True:
            sender, message = await self._heard.get()
            if session is not None and sender != session:
                continue  # of an earlier try
            if isinstance(message, messages.AuthenticationErrorMessage):
                raise _FailedError(f"Authentication error: {message.error[:200]}")
            return sender, message

    def _hear(self, sender: Pid, message: Message) -> None:
        if self._heard is None or self._heard.full():
            log.debug("Dropping %s from %s, for which nobody waits", message.DESCRIPTOR.name, sender)
        else:
            self._heard.put_nowait((sender, message))


def _unexpected(message: Message) -> _FailedError:
    name = message.DESCRIPTOR.name.removeprefix("Authentication").removesuffix("Message").lower()
    return _FailedError(f"Unexpected authentication '{name}' received")
