"""Being an agent of the master: found, registered, kept alive, registered again.

    detect ──▶ connect ──▶ authenticate ──▶ register, again and again ──▶ registered ──▶ pings
      ▲                         ▲                                                          │
      │                         └── "connected: false": the master missed something ───────┤
      └── the connection broke, no ping came for 75 s, or another leads ◀──────────────────┘

The first time the agent asks for an id; from then on, also after a restart, it registers again with it and tells of its
tasks. Before that it proves who it is, where there is a --credential (authentication.py). A wait before a try is
random, up to a bound that doubles with each one, so that a master that was away is not met by all its agents at once.
While there is no master the tasks go on.
"""

import asyncio
import logging
import random
from collections.abc import Callable

from google.protobuf.message import Message

from portslice.engines.mesos.authentication import Authentication
from portslice.engines.mesos.detector import Detector, Master
from portslice.engines.mesos.schema.messages_pb2 import (
    MasterSlaveConnection,
    PingSlaveMessage,
    PongSlaveMessage,
)
from portslice.engines.mesos.wire import Inbox, Link, Pid
from portslice.errors import PortsliceError

log = logging.getLogger(__name__)

BACKOFF_MAX_SECS = 60.0
PING_TIMEOUT_SECS = 75.0  # until the master says
_CONNECT_SECS = 10.0


class _NoMasterError(PortsliceError):
    """There is no master now."""


class Registration:
    """The agent's standing with the master.

    :param ip: the agent's own address, if it has only one; otherwise the one from which the master is reached.
    :param backoff_secs: bound of the first wait.
    :param announcement: the message that registers, as things are now.
    """

    authentication: Authentication | None = None
    """What comes before it."""

    def __init__(
        self,
        detector: Detector,
        inbox: Inbox,
        port: int,
        *,
        ip: str | None,
        backoff_secs: float,
        announcement: Callable[[], Message],
    ) -> None:
        self._detector = detector
        self._inbox = inbox
        self._port = port
        self._ip = ip
        self._backoff_secs = backoff_secs
        self._announcement = announcement
        self._link: Link | None = None
        self._hostname: str | None = None
        self._registered = asyncio.Event()
        self._pings: asyncio.Queue[bool] = asyncio.Queue(maxsize=1)
        self._ping_timeout_secs = PING_TIMEOUT_SECS
        inbox.on(PingSlaveMessage, self._pinged)

    @property
    def registered(self) -> bool:
        return self._registered.is_set()

    @property
    def master_hostname(self) -> str | None:
        """Of the master to which there is a connection."""
        return self._hostname

    @property
    def ip(self) -> str | None:
        """This host's address, as the master sees it; None before the first connection."""
        return self._ip or (self._link.local[0] if self._link is not None else None)

    @property
    def pid(self) -> Pid | None:
        """The agent's own."""
        return Pid(self._inbox.name, self.ip, self._port) if self.ip is not None else None

    def accepted(self, connection: MasterSlaveConnection) -> None:
        """The master has answered."""
        self._ping_timeout_secs = connection.total_ping_timeout_seconds or PING_TIMEOUT_SECS
        self._registered.set()

    def send(self, message: Message, receiver: str = "master") -> None:
        """Send to the master, if there is one."""
        if self._inbox.link is not None and self.pid is not None:
            self._inbox.link.send(self.pid, receiver, message)

    async def flush(self) -> None:
        """Wait until what was sent is on its way."""
        if self._link is not None:
            await self._link.flush()

    async def run(self) -> None:
        """Be registered, for ever.

        :raises RefusedError: the master knows better who this is not.
        """
        tries = 0
        master: Master | None = None
        while True:
            if await self._pause(tries, master):
                tries = 0
            tries += 1
            try:
                master = await self._detector.detect()
                link = await Link.open(master.pid.address, _CONNECT_SECS)
            except (OSError, PortsliceError) as error:
                log.warning("No master: %s", str(error) or "it does not answer")
                continue
            log.info("New master detected at %s", master.pid)
            self._hostname = master.hostname
            self._link = self._inbox.link = link
            try:
                await self._belong(master)
            except _NoMasterError as error:
                tries = 0 if self.registered else tries
                log.warning("%s: the master %s is lost, tasks go on", error, master.pid)
            finally:
                self._registered.clear()
                self._hostname = None
                self._inbox.link = None
                link.close()

    async def _pause(self, tries: int, master: Master | None) -> bool:
        """Wait before a try; whether another master leads meanwhile, which need not wait for what this one did."""
        wait_secs = self._wait_secs(tries)
        if master is None:
            await asyncio.sleep(wait_secs)
            return False
        try:
            await asyncio.wait_for(self._detector.lost(master), wait_secs)
        except TimeoutError:
            return False
        return True

    async def _belong(self, master: Master) -> None:
        """Be registered with this master until there is no more of it.

        :raises _NoMasterError: why.
        """
        assert self._link is not None
        ended = asyncio.create_task(self._link.closed())
        kept = asyncio.create_task(self._keep_registered(master))
        lost = asyncio.create_task(self._detector.lost(master))
        try:
            await asyncio.wait((ended, kept, lost), return_when=asyncio.FIRST_COMPLETED)
            if kept.done():
                kept.result()
            if lost.done():
                raise _NoMasterError("It leads no more")
            raise _NoMasterError("The connection has ended")
        finally:
            for task in (ended, kept, lost):
                task.cancel()

    async def _keep_registered(self, master: Master) -> None:
        while True:
            self._registered.clear()
            if self.authentication is not None and self.pid is not None:
                await self.authentication.authenticate(self.pid, master.pid)
            await self._register()
            try:
                while await asyncio.wait_for(self._pings.get(), self._ping_timeout_secs):
                    pass
            except TimeoutError:
                raise _NoMasterError(f"No ping for {self._ping_timeout_secs:g} s") from None
            log.warning("The master says that this agent is disconnected: registering again")

    async def _register(self) -> None:
        tries = 0
        while not self.registered:
            message = self._announcement()
            log.info("Sending %s to the master", message.DESCRIPTOR.name)
            self.send(message)
            try:
                await asyncio.wait_for(self._registered.wait(), self._wait_secs(tries := tries + 1))
            except TimeoutError:
                continue
        while not self._pings.empty():  # from before
            self._pings.get_nowait()

    def _wait_secs(self, tries: int) -> float:
        return random.uniform(0, min(self._backoff_secs * (1 << min(tries, 30)), BACKOFF_MAX_SECS))

    def _pinged(self, sender: Pid, message: Message) -> None:
        assert isinstance(message, PingSlaveMessage)
        self.send(PongSlaveMessage(), sender.name)
        if self._pings.full():
            self._pings.get_nowait()
        self._pings.put_nowait(message.connected)
