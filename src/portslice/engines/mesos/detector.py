"""Where the leading master is: the value of `--master`.

    10.0.0.1:5050, master@10.0.0.1:5050, host:5050   this one; a name is looked up each time
    file:///path                                     the file holds one of these (portslice.flags reads it)
    zk://host1:2181,host2:2181/path                  elected over ZooKeeper; not supported yet
"""

import asyncio
import re
import socket

from portslice.engines.mesos.wire import Pid
from portslice.errors import ParseError, PortsliceError

_MASTER = re.compile(r"(?:master@)?([A-Za-z0-9.-]+):([0-9]{1,5})")
_CREATE = "Failed to create a master detector"


class Detector:
    """Finds the one master that a flag names."""

    def __init__(self, text: str) -> None:
        """:raises ParseError: it names none."""
        text = text.strip()
        if text.startswith("zk://"):
            raise ParseError(
                f"{_CREATE}: zk:// is not supported yet: name the leading master itself, --master=HOST:PORT"
            )
        match = _MASTER.fullmatch(text)
        if match is None or not 0 < int(match[2]) < 65536:
            raise ParseError(f"{_CREATE}: Failed to parse '{text[:200]}': --master=HOST:PORT, or a file of it")
        self._host, self._port = match[1], int(match[2])

    async def detect(self) -> Pid:
        """The master, as a process id.

        :raises PortsliceError: nobody knows its name now.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, self._port, family=socket.AF_INET, type=socket.SOCK_STREAM)
        except OSError as error:
            raise PortsliceError(f"Failed to look up the master's name '{self._host}': {error.strerror}") from error
        return Pid("master", str(found[0][4][0]), self._port)
