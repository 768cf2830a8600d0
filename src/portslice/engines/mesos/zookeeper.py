"""The master that is elected over ZooKeeper, as Mesos' masters elect it.

Each master makes an ephemeral sequential node below the path, `json.info_0000000012`, which holds its MasterInfo as
JSON and goes with its session. The one with the lowest number leads. An agent makes no node: it looks which is the
lowest, and again whenever one came or went.

    nobody known ──▶ leader ──▶ another leader, or none: what the nodes say
         ▲             │
         └─────────────┴── no connection for the time of a session: who leads now is not known

kazoo keeps the session, in threads of its own. All that they do here is to wake the one task that looks.
"""

import asyncio
import json
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import KazooException, NoAuthError, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError

from portslice.background import report
from portslice.engines.mesos.detector import CREATE, Master
from portslice.engines.mesos.wire import Pid
from portslice.errors import ParseError

log = logging.getLogger(__name__)

# What kazoo tells of each packet, it tells with the password.
_kazoo_log = logging.getLogger(f"{__name__}.kazoo")
_kazoo_log.setLevel(logging.ERROR)

_URL = re.compile(r"zk://(?:([^@/]*)@)?([^@/]+)(/.*)?")
_SERVER = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?")
_NODE = re.compile(r"json\.info_[0-9]{10}")
_RETRY = {"max_tries": -1, "delay": 0.1, "backoff": 2, "max_delay": 5.0}
_PAUSE_SECS = 5.0


@dataclass(frozen=True)
class Ensemble:
    """`zk://user:password@host1:2181,host2:2181/path`.

    :param hosts: as kazoo wants them: `host1:2181,host2:2181`.
    :param credential: `user:password`; None: without.
    """

    hosts: str
    path: str
    credential: str | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """:raises ParseError: it is something else; a password is not repeated."""
        match = _URL.fullmatch(text)
        path = (match[3] or "/").rstrip("/") if match is not None else ""
        if match is not None and not path:
            raise ParseError(f"{CREATE}: Expecting a (chroot) path for ZooKeeper ('/' is not supported)")
        servers = match[2].split(",") if match is not None else []
        if match is None or "//" in path or not all(map(_SERVER.fullmatch, servers)):
            raise ParseError(f"{CREATE}: Failed to parse --master: zk://[USER:PASSWORD@]HOST:PORT,HOST:PORT,.../PATH")
        if match[1] is not None and ":" not in match[1]:
            raise ParseError(f"{CREATE}: Expecting 'username:password' before the '@' of --master=zk://...")
        return cls(match[2], path, match[1])


class Elected:
    """Follows the election.

    :param session_secs: after so long without a connection it is not known who leads.
    """

    def __init__(self, ensemble: Ensemble, session_secs: float) -> None:
        self._ensemble = ensemble
        self._session_secs = session_secs
        self._leader: Master | None = None
        self._changed = asyncio.Condition()
        self._stirred = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._client: KazooClient | None = None

    async def detect(self) -> Master:
        if self._following is None:
            self._following = asyncio.create_task(self._follow())
            self._following.add_done_callback(report)
        async with self._changed:
            await self._changed.wait_for(lambda: self._leader is not None)
            assert self._leader is not None
            return self._leader

    async def lost(self, master: Master) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._leader != master)

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        if self._client is not None:
            await asyncio.to_thread(self._client.stop)
            await asyncio.to_thread(self._client.close)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()

        def stir(*_: Any) -> None:
            with suppress(RuntimeError):  # the agent has ended
                loop.call_soon_threadsafe(self._stirred.set)

        credential = self._ensemble.credential
        client = self._client = KazooClient(
            self._ensemble.hosts,
            timeout=self._session_secs,
            connection_retry=_RETRY,
            auth_data=[("digest", credential)] if credential is not None else None,
            logger=_kazoo_log,
        )
        client.add_listener(stir)
        log.info("Looking for the leading master at '%s' of ZooKeeper on %s", self._ensemble.path, self._ensemble.hosts)
        client.start_async()
        silent = False
        while True:
            try:
                patience = self._session_secs if client.state != KazooState.CONNECTED else None
                await asyncio.wait_for(self._stirred.wait(), patience)
            except TimeoutError:
                if not silent:
                    log.warning("ZooKeeper does not answer for %g s: who leads is not known", self._session_secs)
                silent = True
                await self._set(None)
                continue
            self._stirred.clear()
            if client.state == KazooState.CONNECTED:
                silent = False
                try:
                    await self._set(await asyncio.to_thread(_look, client, self._ensemble.path, stir))
                except (KazooException, KazooTimeoutError) as error:
                    log.warning("Failed to look for the leading master: %s", _reason(error))
                    loop.call_later(_PAUSE_SECS, self._stirred.set)

    async def _set(self, leader: Master | None) -> None:
        if leader == self._leader:
            return
        if leader is None:
            log.warning("No master leads now")
        else:
            log.info("The leading master is %s (%s)", leader.pid, leader.hostname)
        async with self._changed:
            self._leader = leader
            self._changed.notify_all()


def _reason(error: Exception) -> str:
    if isinstance(error, NoAuthError):
        return "ZooKeeper does not let the agent read: say who it is, --master=zk://USER:PASSWORD@..."
    return f"{type(error).__name__}: {error}"


def _look(client: KazooClient, path: str, watch: Any) -> Master | None:
    """Who leads now; `watch` is called when that may have changed.

    :raises KazooException: ZooKeeper does not say.
    """
    while True:
        try:
            nodes = [name for name in client.get_children(path, watch=watch) if _NODE.fullmatch(name)]
        except NoNodeError:
            if client.exists(path, watch=watch) is not None:
                continue  # just made
            return None
        if not nodes:
            return None
        try:
            data, _ = client.get(f"{path}/{min(nodes)}")
        except NoNodeError:
            continue  # just gone
        try:
            return master_of(data)
        except ParseError as error:
            log.error("The node '%s/%s' names no master: %s", path, min(nodes), error)
            return None


def master_of(data: bytes) -> Master:
    """The master of a MasterInfo in JSON.

    :raises ParseError: it is something else.
    """
    try:
        info = json.loads(data)
        pid = Pid.parse(info["pid"])
        return Master(pid, str(info.get("hostname") or pid.ip))
    except (ParseError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ParseError(f"{data[:200]!r} is no MasterInfo: {error!r}") from error
