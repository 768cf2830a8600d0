"""Agents over libprocess: registered, pinged, missed.

    registers ──▶ we connect to the address that it names ──▶ answered ──▶ pinged, and pings answered
        ▲                                                                     │
        └───── comes back: registers again ──── connection ends, or no ───────┘
                                                answers: unreachable

A message is taken from an agent of this host that root or the master's user runs, or from an address that
--agent_networks names; the address in it must be the one that it comes from, or another one of this host. Once an agent
is registered, its connection is the only one that speaks for it as long as it lasts. With --authenticate_agents it is
registered only over a connection that was authenticated (authentication.py); then, unless --agent_networks says from
where, it may come from any other host.
"""

import asyncio
import itertools
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any, NamedTuple

from aiohttp import web
from google.protobuf.message import Message

from portslice.background import report
from portslice.engines.master.authentication import PROCESSES, Authenticator
from portslice.engines.master.callers import Callers
from portslice.engines.master.master import Master
from portslice.engines.master.model import Agent
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.schema.capacity_pb2 import Capacity
from portslice.engines.mesos.schema.mesos_pb2 import SlaveInfo
from portslice.engines.mesos.wire import Link, Mailbox, Pid
from portslice.errors import ParseError
from portslice.http.basic import BRAKE, Brake
from portslice.http.sources import is_own
from portslice.network.sockdiag import Address

log = logging.getLogger(__name__)

_CONNECT_SECS = 10.0
_VERSION = re.compile(r"[1-9][0-9]*\.[0-9]+\.[0-9]+.*")
_REGISTERING = {
    messages.RegisterSlaveMessage.DESCRIPTOR.full_name: "registration",
    messages.ReregisterSlaveMessage.DESCRIPTOR.full_name: "re-registration",
}
_AUTHENTICATING = {
    kind.DESCRIPTOR.full_name
    for kind in (
        messages.AuthenticateMessage,
        messages.AuthenticationStartMessage,
        messages.AuthenticationStepMessage,
    )
}
_FIRST = {*_REGISTERING, *_AUTHENTICATING}
_MAX_AUTHENTICATION = 1 << 14  # bytes of a message from somebody who is not known


class _Origin(NamedTuple):
    """Where a message comes from: the sender, its connection, and our end of that."""

    sender: Pid
    connection: Any
    own: Address
    brake: Brake


@dataclass
class _Line:
    """An agent and the connection that speaks for it."""

    agent: Agent
    connection: Any
    answered: bool = True  # the last ping
    work: list["asyncio.Task[None]"] = field(default_factory=list)

    @property
    def lives(self) -> bool:
        transport = self.connection.transport
        return transport is not None and not transport.is_closing()

    def cut(self) -> None:
        """Be done with it."""
        for task in self.work:
            task.cancel()
        if self.agent.link is not None:
            self.agent.link.close()
            self.agent.link = None


class Agents(Mailbox):
    """The master's side of all agents."""

    def __init__(self, master: Master) -> None:
        super().__init__(rf"master|slave-observer\([0-9]+\)|{PROCESSES}", "Agents alone are heard")
        self._master = master
        self._flags = master.cluster.flags
        self._callers = Callers()
        self._authenticator = Authenticator(self._flags.credentials)
        self._lines: dict[Pid, _Line] = {}
        self._observers = itertools.count(1)
        self._on(messages.RegisterSlaveMessage, self._register)
        self._on(messages.ReregisterSlaveMessage, self._reregister)
        self._on(messages.UnregisterSlaveMessage, self._unregister)
        self._on(messages.StatusUpdateMessage, self._updated)
        self._on(messages.ExitedExecutorMessage, self._exited)
        self._on(messages.ExecutorToFrameworkMessage, self._said)
        self._on(messages.PongSlaveMessage, self._answered)
        self._on(messages.AuthenticateMessage, self._authenticate)
        self._on(messages.AuthenticationStartMessage, self._authenticating)
        self._on(messages.AuthenticationStepMessage, self._authenticating)

    def close(self) -> None:
        """Cut all lines."""
        for line in self._lines.values():
            line.cut()
        self._authenticator.close()

    def _on(self, kind: type[Any], handler: Callable[[Any, Any], object]) -> None:
        """What only registered agents send is handled with their line."""
        name = kind.DESCRIPTOR.full_name

        def handle(origin: _Origin, message: Message) -> None:
            self._master.cluster.counted[f"messages_{_counted(kind)}"] += 1
            if name in _FIRST:
                handler(origin, message)
            elif (line := self._lines.get(origin.sender)) is not None:
                handler(line, message)

        self._handlers[name] = kind, handle

    # Who is heard

    def _objection(self, request: web.Request, sender: Pid, name: str) -> str | None:
        caller = self._callers.of(request)
        if caller is None:
            return "it has gone"
        if caller.ip != sender.ip and (caller.uid is None or not is_own(sender.ip)):
            return f"it comes from {caller.ip}"
        if caller.container or (caller.uid is not None and not caller.trusted):
            return f"it comes from {caller}"
        if caller.uid is None and not self._lets_in(caller.ip):
            return f"--agent_networks does not name {caller.ip}"
        line = self._lines.get(sender)
        if line is not None and line.lives and line.connection is not request.protocol:
            return "that agent has another connection"
        if name not in _FIRST and (line is None or not line.lives):
            return "no such agent is registered"
        if name in _REGISTERING and not self._is_known(request.protocol):
            what = _REGISTERING[name]
            self._complaints.warning("Refusing %s of agent at %s because it is not authenticated", what, sender)
            return "it is not authenticated"
        return None

    def _is_known(self, connection: Any) -> bool:
        return not self._flags.authenticate_agents or self._authenticator.principal(connection) is not None

    def _most(self, name: str) -> int:
        return _MAX_AUTHENTICATION if name in _AUTHENTICATING else super()._most(name)

    def _origin(self, request: web.Request, sender: Pid) -> _Origin:
        own = request.transport.get_extra_info("sockname") if request.transport is not None else ("", 0)
        return _Origin(sender, request.protocol, own, request.app[BRAKE])

    def _lets_in(self, ip: str) -> bool:
        networks = self._flags.agent_networks
        if networks is None:
            return self._flags.authenticate_agents
        return any(IPv4Address(ip) in network for network in networks.networks)

    # What they say

    def _authenticate(self, origin: _Origin, message: messages.AuthenticateMessage) -> None:
        self._authenticator.begin(origin.sender, origin.connection, origin.own, origin.brake, message)

    def _authenticating(self, origin: _Origin, message: Message) -> None:
        self._authenticator.hear(origin.sender, origin.connection, message)

    def _register(self, origin: _Origin, message: messages.RegisterSlaveMessage) -> None:
        line = self._lines.get(origin.sender)
        if line is not None and line.connection is origin.connection:
            line.agent.send(self._registered(line.agent))  # it was lost, or it is on its way
            return
        if _VERSION.fullmatch(message.version) is None:
            log.warning("Ignoring the registration of %s: its version is '%s'", origin.sender, message.version[:100])
            return
        if line is not None:
            self._drop(line)
            if self._master.cluster.agents.get(line.agent.id) is line.agent:
                self._master.membership.remove(line.agent, "registered")
        try:
            agent = self._master.membership.register(
                message.slave, origin.sender, message.version, _capabilities(message), _blocks(message)
            )
        except ParseError as error:
            log.warning("Ignoring the registration of %s: %s", origin.sender, error)
            return
        self._connect(agent, origin, self._registered(agent), ())

    def _reregister(self, origin: _Origin, message: messages.ReregisterSlaveMessage) -> None:
        agent_id = message.slave.id.value
        line = next((each for each in self._lines.values() if each.agent.id == agent_id), None)
        if line is not None and line.lives and line.connection is not origin.connection:
            log.warning("Ignoring %s, which says it is agent %s of %s", origin.sender, agent_id, line.agent.pid)
            return
        if line is not None and line.lives and line.agent.link is None and line.work:
            return  # the answer is on its way
        for old in {id(each): each for each in (line, self._lines.get(origin.sender)) if each is not None}.values():
            self._drop(old, keep=origin.connection)
        try:
            agent, missing = self._master.membership.reregister(
                message, origin.sender, _capabilities(message), _blocks(message)
            )
        except ParseError as error:
            log.warning("Ignoring the registration of %s: %s", origin.sender, error)
            return
        answer = messages.SlaveReregisteredMessage(
            slave_id={"value": agent.id}, reconciliations=missing, connection=self._connection()
        )
        told = {each.framework_id.value for each in message.tasks}
        told |= {each.framework_id.value for each in message.executor_infos}
        ended = [each for each in told if self._master.cluster.registry.is_removed(each)]
        self._connect(agent, origin, answer, ended)

    def _unregister(self, line: _Line, message: messages.UnregisterSlaveMessage) -> None:
        if message.slave_id.value == line.agent.id:
            self._drop(line, keep=line.connection)  # hung up on, it would register again while it ends
            self._master.membership.remove(line.agent, "unregistered")

    def _updated(self, line: _Line, message: messages.StatusUpdateMessage) -> None:
        self._master.tasks.updated(line.agent, message.update)

    def _exited(self, line: _Line, message: messages.ExitedExecutorMessage) -> None:
        self._master.executors.exited(line.agent, message)

    def _said(self, line: _Line, message: messages.ExecutorToFrameworkMessage) -> None:
        self._master.executors.said(line.agent, message)

    def _answered(self, line: _Line, _message: messages.PongSlaveMessage) -> None:
        line.answered = True

    # The connection to an agent

    def _connect(self, agent: Agent, origin: _Origin, answer: Message, ended: Iterable[str]) -> None:
        line = _Line(agent, origin.connection)
        agent.master = Pid("master", *origin.own)
        self._lines[agent.pid] = line
        line.work = [
            asyncio.create_task(self._serve(line, answer, ended)),
            asyncio.create_task(self._observe(line)),
        ]
        for task in line.work:
            task.add_done_callback(report)

    async def _serve(self, line: _Line, answer: Message, ended: Iterable[str]) -> None:
        """Connect to it, answer, and wait for the connection's end."""
        agent = line.agent
        try:
            link = await Link.open(agent.pid.address, _CONNECT_SECS)
        except OSError as error:
            log.warning("Agent %s does not listen at %s: %s", agent.id, agent.pid, error or "no answer")
            _hang_up(line)
            return
        agent.link = link
        agent.send(answer)
        self._master.membership.welcome(agent, ended)
        await link.closed()
        link.close()
        agent.link = None
        _hang_up(line)
        self._master.membership.disconnected(agent)

    async def _observe(self, line: _Line) -> None:
        """Ping it, until too many pings in a row were not answered."""
        observer, missed = f"slave-observer({next(self._observers)})", 0
        while missed < self._flags.max_agent_ping_timeouts:
            line.answered = False
            line.agent.send(messages.PingSlaveMessage(connected=True), observer)
            await asyncio.sleep(self._flags.agent_ping_timeout.seconds)
            missed = 0 if line.answered else missed + 1
        line.work.remove(asyncio.current_task())  # type: ignore[arg-type]
        self._drop(line)
        if self._master.cluster.agents.get(line.agent.id) is line.agent:
            self._master.membership.lost(line.agent)

    def _drop(self, line: _Line, keep: Any = None) -> None:
        """Be done with a line, and with its connection if it is not that one."""
        line.cut()
        if line.connection is not keep:
            _hang_up(line)
        if self._lines.get(line.agent.pid) is line:
            del self._lines[line.agent.pid]

    def _registered(self, agent: Agent) -> Message:
        return messages.SlaveRegisteredMessage(slave_id={"value": agent.id}, connection=self._connection())

    def _connection(self) -> messages.MasterSlaveConnection:
        seconds = self._flags.agent_ping_timeout.seconds * self._flags.max_agent_ping_timeouts
        return messages.MasterSlaveConnection(total_ping_timeout_seconds=seconds)


def _hang_up(line: _Line) -> None:
    """The agent notices, and registers again."""
    if line.lives:
        line.connection.transport.close()


def _capabilities(message: Any) -> list[str]:
    kinds = (each.type for each in message.agent_capabilities)
    return [SlaveInfo.Capability.Type.Name(kind) for kind in kinds]


def _blocks(message: Message) -> int | None:
    """Of ephemeral ports; None if the agent does not tell."""
    capacity = Capacity.FromString(message.SerializeToString())
    return capacity.containers if capacity.HasField("containers") else None


def _counted(kind: type[Any]) -> str:
    """RegisterSlaveMessage: register_slave."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.DESCRIPTOR.name.removesuffix("Message")).lower()
