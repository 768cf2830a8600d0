"""/metrics/snapshot: a flat object of doubles with every name that an agent of Mesos 1.11 has, and ours.

What cannot occur here is 0 for ever: nothing is cached, provisioned or oversubscribed, and no filter is added or
removed for a container, since the programs look ports up in a map. A name that is there at 0 does no harm to alerts
and dashboards; one that is missing does.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator

from aiohttp import web

from portslice.agent.service import Agent
from portslice.containers.container import Container, State
from portslice.errors import ParseError
from portslice.http import machine
from portslice.http.answers import json_response
from portslice.http.executors import task_states
from portslice.units import Duration

_MB = 1 << 20
_NEVER = (
    *(f"containerizer/fetcher/cache_size_{kind}_bytes" for kind in ("total", "used")),
    "containerizer/mesos/provisioner/bind/remove_rootfs_errors",
    "containerizer/mesos/provisioner/remove_container_errors",
    *(f"gc/path_removals_{how}" for how in ("failed", "pending", "succeeded")),
    *(f"resource_provider_manager/{what}" for what in ("events/disconnect", "events/subscribe", "subscribed")),
    "slave/executor_directory_max_allowed_age_secs",  # sandboxes are kept by number, not by age
    "slave/executors_preempted",
    *(f"slave/{what}" for what in ("invalid_framework_messages", "invalid_status_updates", "valid_framework_messages")),
    "slave/tasks_gone",
    *(f"slave/{name}_revocable_{what}" for name in ("cpus", "gpus", "mem", "disk") for what in ("total", "used")),
    *(f"slave/{name}_revocable_percent" for name in ("cpus", "gpus", "mem", "disk")),
)
_NEVER_WITH_PORT_MAPPING = (
    *(
        f"port_mapping/{doing}_{where}_filters_{what}"
        for doing, wheres, whats in (
            (
                "adding",
                ("eth0_ip", "lo_ip", "veth_ip", "veth_icmp", "veth_arp", "eth0_icmp", "eth0_arp"),
                ("errors", "already_exist"),
            ),
            ("removing", ("eth0_ip", "lo_ip", "veth_ip", "eth0_icmp", "eth0_arp"), ("errors", "do_not_exist")),
            ("updating", ("eth0_icmp", "eth0_arp"), ("errors", "already_exist", "do_not_exist")),
        )
        for where in wheres
        for what in whats
    ),
    "port_mapping/updating_container_ip_filters_errors",
)


class Metrics:
    """The metrics of an agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def routes(self) -> list[web.RouteDef]:
        """The endpoint."""
        return [web.route("*", "/metrics/snapshot", self.snapshot)]

    async def snapshot(self, request: web.Request) -> web.Response:
        """A flat object of doubles. What is not known within `timeout`, e.g. 5secs, is left out."""
        text = request.query.get("timeout")
        try:
            timeout = None if text is None else Duration.parse(text).seconds
        except ParseError as error:
            raise web.HTTPBadRequest(text=f"Invalid timeout '{text}': {error}.\n") from error
        return json_response(request, await self.values(timeout))

    async def values(self, timeout_secs: float | None = None) -> dict[str, float]:
        """By name. Mesos: `GET_METRICS`, too."""
        values = dict.fromkeys(_NEVER, 0.0) | dict(self._agent_values()) | dict(self._resources())
        values |= {_machine_name(name): value for name, value in machine.readings().items()}
        if (isolator := self._agent.port_mapping) is not None:
            living = self._agent.containerizer.living()
            try:
                counted = await asyncio.wait_for(asyncio.to_thread(isolator.metrics, living), timeout_secs)
                values |= dict.fromkeys(_NEVER_WITH_PORT_MAPPING, 0.0) | counted
            except TimeoutError:
                pass
        return {name: float(value) for name, value in sorted(values.items())}

    def _agent_values(self) -> Iterator[tuple[str, float]]:
        agent = self._agent
        alive = _alive(agent)
        running = sum(container.state is State.RUNNING for container in alive)
        yield "containerizer/mesos/container_destroy_errors", agent.containerizer.destroy_errors
        yield "containerizer/fetcher/task_fetches_failed", agent.containerizer.fetch_errors
        yield "containerizer/fetcher/task_fetches_succeeded", agent.containerizer.fetches
        yield "slave/container_launch_errors", agent.containerizer.launch_errors
        yield "slave/executors_registering", len(alive) - running
        yield "slave/executors_running", running - len(agent.ending)
        yield "slave/executors_terminated", agent.terminated
        yield "slave/executors_terminating", len(agent.ending)
        yield "slave/frameworks_active", len({container.framework_id for container in alive})
        yield "slave/recovery_errors", agent.recovery_errors
        yield "slave/recovery_time_secs", agent.recovery_secs
        yield "slave/registered", agent.cluster.registered
        states = Counter(state for container in alive for state in task_states(agent, container))
        for state in ("killing", "running", "staging", "starting"):
            yield f"slave/tasks_{state}", states[f"TASK_{state.upper()}"]
        for state in ("failed", "finished", "killed", "lost"):
            yield f"slave/tasks_{state}", agent.ended[f"TASK_{state.upper()}"]
        yield "slave/valid_status_updates", agent.status_updates
        yield "slave/uptime_secs", time.time() - agent.started

    def _resources(self) -> Iterator[tuple[str, float]]:
        """Memory and disk in MB; `percent` is a fraction, as in Mesos."""
        alive = _alive(self._agent)
        used = {
            "cpus": sum(container.cpus or 0 for container in alive),
            "mem": sum(container.mem or 0 for container in alive) / _MB,
            "disk": sum(container.disk or 0 for container in alive) / _MB,
        }
        for name in ("cpus", "gpus", "mem", "disk"):
            total = self._agent.offer.resources.scalar(name) or 0
            yield f"slave/{name}_total", total
            yield f"slave/{name}_used", used.get(name, 0)
            yield f"slave/{name}_percent", used.get(name, 0) / total if total else 0


def _alive(agent: Agent) -> list[Container]:
    """The executors; what standalone containers use is not taken off what the agent offers."""
    found = agent.containerizer.all()
    return [container for container in found if container.state is not State.EXITED and not container.standalone]


def _machine_name(name: str) -> str:
    return f"system/{name.removeprefix('avg_')}"
