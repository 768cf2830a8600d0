"""Where the leading master is: the value of `--master`.

    10.0.0.1:5050, master@10.0.0.1:5050, host:5050   this one; a name is looked up each time
    file:///path                                     the file holds one of these (portslice.flags reads it)
    zk://host1:2181,host2:2181/path                  elected over ZooKeeper (portslice.engines.mesos.zookeeper)
"""

import asyncio
import re
import socket
from typing import NamedTuple, Protocol

from portslice.engines.mesos.wire import Pid
from portslice.errors import ParseError, PortsliceError

_MASTER = re.compile(r"(?:master@)?([A-Za-z0-9.-]+):([0-9]{1,5})")
CREATE = "Failed to create a master detector"


class Master(NamedTuple):
    """A master: its process id, and the name of its host."""

    pid: Pid
    hostname: str


class Detector(Protocol):
    """Knows the leading master."""

    async def detect(self) -> Master:
        """The master; waits for one where there may be one later.

        :raises PortsliceError: nobody knows it now.
        """

    async def lost(self, master: Master) -> None:
        """Wait until this one leads no more."""

    async def close(self) -> None:
        """Look for none any more."""


def detector(text: str, session_secs: float) -> Detector:
    """What finds the master that a flag names.

    :param session_secs: of a session with ZooKeeper.
    :raises ParseError: it names none.
    """
    text = text.strip()
    if text.startswith("zk://"):
        from portslice.engines.mesos.zookeeper import Elected, Ensemble

        return Elected(Ensemble.parse(text), session_secs)
    return Named(text)


class Named:
    """The one master that a flag names."""

    def __init__(self, text: str) -> None:
        """:raises ParseError: it names none."""
        match = _MASTER.fullmatch(text)
        if match is None or not 0 < int(match[2]) < 65536:
            raise ParseError(f"{CREATE}: Failed to parse '{text[:200]}': --master=HOST:PORT, or a file of it")
        self._host, self._port = match[1], int(match[2])

    async def detect(self) -> Master:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, self._port, family=socket.AF_INET, type=socket.SOCK_STREAM)
        except OSError as error:
            raise PortsliceError(f"Failed to look up the master's name '{self._host}': {error.strerror}") from error
        return Master(Pid("master", str(found[0][4][0]), self._port), self._host)

    async def lost(self, master: Master) -> None:
        await asyncio.Event().wait()  # who is named leads for ever

    async def close(self) -> None:
        pass
