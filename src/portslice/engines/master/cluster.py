"""What a master knows of its cluster: agents, frameworks, and the ids that it gave.

State is soft, as in Mesos: a master that starts knows the ids (registry.py), and learns the rest as agents come back
with their tasks, and frameworks subscribe.
"""

import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from portslice.engines.master.flags import MasterFlags
from portslice.engines.master.model import Agent, Framework
from portslice.engines.master.registry import Registry
from portslice.http.version import MESOS_VERSION

RECOVERED_SECS = 600.0
"""So long agents and frameworks are waited for after a start: Mesos' --agent_reregister_timeout."""
_COMPLETED = 50


Watcher = Callable[[str, Any], None]
"""Called with what happened, by the name that the operator API has for it, and to whom or what."""


class Cluster:
    """The state, and nothing that is done about it.

    :ivar agents: those that are registered, by id; also while they are disconnected.
    :ivar unreachable: those that did not answer pings, the last of them.
    """

    def __init__(self, flags: MasterFlags, registry: Registry) -> None:
        self.flags = flags
        self.registry = registry
        self.id = registry.id
        self.started = time.time()
        self.agents: dict[str, Agent] = {}
        self.unreachable: dict[str, Agent] = {}
        self.frameworks: dict[str, Framework] = {}
        self.completed: deque[Framework] = deque(maxlen=_COMPLETED)
        self.counted: Counter[str] = Counter()
        self.watchers: list[Watcher] = []

    def happened(self, kind: str, subject: Any) -> None:
        """Tell whoever watches.

        :param subject: of TASK_ADDED the task, of TASK_UPDATED the task and its status, of AGENT_* the agent, of
            FRAMEWORK_* the framework.
        """
        for watcher in list(self.watchers):
            watcher(kind, subject)

    def info(self, ip: str) -> dict[str, Any]:
        """The MasterInfo, as JSON.

        :param ip: the address at which whoever asks reaches it.
        """
        port, hostname = self.flags.port, self.flags.hostname or ip
        return {
            "id": self.id,
            "ip": int.from_bytes(socket.inet_aton(ip), "little"),
            "port": port,
            "pid": f"master@{ip}:{port}",
            "hostname": hostname,
            "version": MESOS_VERSION,
            "address": {"hostname": hostname, "ip": ip, "port": port},
        }

    @property
    def hostname(self) -> str:
        return self.flags.hostname or self.flags.ip

    @property
    def pid(self) -> str:
        return f"master@{self.flags.ip}:{self.flags.port}"

    def limit(self, agent: Agent) -> int | None:
        """How many tasks it may have at once."""
        given = self.flags.max_executors_per_agent
        return agent.blocks if given is None else given if agent.blocks is None else min(given, agent.blocks)

    @property
    def recovered(self) -> list[str]:
        """Agents that were here before a restart, and are not back yet."""
        return [each for each in self.registry.agents if each not in self.agents and each not in self.unreachable]
