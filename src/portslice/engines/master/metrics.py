"""/metrics/snapshot: the master's metrics that are watched, by Mesos' names."""

import time
from collections import Counter
from collections.abc import Iterator

from aiohttp import web

from portslice.engines.master.bundle import Bundle
from portslice.engines.master.cluster import Cluster
from portslice.engines.mesos.schema.mesos_pb2 import TaskState
from portslice.http import machine
from portslice.http.answers import json_response

_STATES = ("staging", "starting", "running", "killing", "unreachable")
_ENDS = ("finished", "failed", "killed", "lost", "error", "gone", "dropped")
_COUNTED = (
    "slave_registrations",
    "slave_reregistrations",
    "slave_removals",
    "slave_removals/reason_registered",
    "slave_removals/reason_unregistered",
    "slave_unreachable_completed",
    "messages_register_slave",
    "messages_reregister_slave",
    "messages_unregister_slave",
    "messages_status_update",
    "messages_status_update_acknowledgement",
    "messages_launch_tasks",
    "messages_kill_task",
    "messages_reconcile_tasks",
    "messages_exited_executor",
    "messages_authenticate",
    *(f"{kind}_status_update{what}" for kind in ("valid", "invalid") for what in ("s", "_acknowledgements")),
    *(f"tasks_{end}" for end in _ENDS),
)


class Metrics:
    """The endpoint."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/metrics/snapshot", self._snapshot)]

    async def _snapshot(self, request: web.Request) -> web.Response:
        """A flat object of doubles."""
        return json_response(request, self.values())

    def values(self) -> dict[str, float]:
        """All of them, by name."""
        return {name: float(value) for name, value in self._values()}

    def _values(self) -> Iterator[tuple[str, float]]:
        cluster = self._cluster
        agents, frameworks = cluster.agents.values(), cluster.frameworks.values()
        yield "master/elected", 1
        yield "master/uptime_secs", time.time() - cluster.started
        connected = sum(each.connected for each in agents)
        for name, number in (("active", connected), ("connected", connected)):
            yield f"master/slaves_{name}", number
        for name in ("inactive", "disconnected"):
            yield f"master/slaves_{name}", len(agents) - connected
        yield "master/slaves_unreachable", len(cluster.unreachable)
        subscribed = sum(each.connected for each in frameworks)
        for name in ("active", "connected"):
            yield f"master/frameworks_{name}", subscribed
        for name in ("inactive", "disconnected"):
            yield f"master/frameworks_{name}", len(frameworks) - subscribed
        yield "master/outstanding_offers", sum(len(each.offers) for each in frameworks)
        states = Counter(TaskState.Name(task.state) for each in frameworks for task in each.tasks.values())
        for state in _STATES:
            yield f"master/tasks_{state}", states[f"TASK_{state.upper()}"]
        for name in _COUNTED:
            yield f"master/{name}", cluster.counted[name]
        yield "allocator/mesos/allocation_runs", cluster.counted["allocation_runs"]
        total = sum((each.total for each in agents), Bundle())
        used = sum((each.used() for each in agents), Bundle())
        for name in ("cpus", "gpus", "mem", "disk"):
            all_, taken = total.scalar(name), used.scalar(name)
            yield f"master/{name}_total", all_
            yield f"master/{name}_used", taken
            yield f"master/{name}_percent", taken / all_ if all_ else 0
        for name, value in machine.readings().items():
            yield f"system/{name.removeprefix('avg_')}", value
