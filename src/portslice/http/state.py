"""/state: the agent and its containers, in the order and the shapes of Mesos.

A container is the executor of one command task here, both of the container's name: a client that joins executors with
/monitor/statistics by framework and executor finds every one. No framework has launched it; since Mesos knows no
executor without one, all are of a framework whose id is empty. What has ended is among its completed executors as long
as the agent remembers it.
"""

import asyncio
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from aiohttp import web

from portslice.agent.service import Agent
from portslice.containers.container import Container, State
from portslice.flags import as_strings
from portslice.http.monitor import FRAMEWORK_ID, VERSION, long_json_response
from portslice.http.routing import DELEGATE
from portslice.ports import PortSet
from portslice.resources import Resource, Resources, format_value

FRAMEWORK_NAME = "portslice"
_MB = 1 << 20
_SCALARS = ("disk", "mem", "gpus", "cpus")  # always there, and in this order
_ROLE = "*"


class AgentState:
    """The state of an agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def routes(self) -> list[web.RouteDef]:
        """The endpoint."""
        return [web.route("*", "/state", self.state)]

    async def state(self, request: web.Request) -> web.Response:
        """The agent, its resources, attributes and flags, and its containers as executors of one framework."""
        value = await asyncio.to_thread(self.value)  # with a thousand containers it takes a while
        return await long_json_response(request, value, in_order=True)

    def value(self) -> dict[str, Any]:
        """What /state shows, as JSON."""
        agent, offered = self._agent, self._agent.offer.resources
        containers = [each for each in agent.containerizer.all() if not each.standalone]
        free = [resource for resource in offered if resource.role == _ROLE]
        roles = dict.fromkeys(resource.role for resource in offered if resource.role != _ROLE)
        reserved = {role: [resource for resource in offered if resource.role == role] for role in roles}
        allocated = (each for each in containers if each.state is not State.EXITED)
        return {
            **{name: VERSION[name] for name in _VERSION},
            "start_time": agent.started,
            "id": agent.id,
            "pid": f"{DELEGATE}@{self._address()}:{agent.port}",
            "hostname": agent.hostname,
            "capabilities": [],
            "resources": _summed(offered),
            "reserved_resources": {role: _summed(resources) for role, resources in reserved.items()},
            "unreserved_resources": _summed(free),
            "reserved_resources_full": {role: list(map(_full, resources)) for role, resources in reserved.items()},
            "unreserved_resources_full": list(map(_full, free)),
            "reserved_resources_allocated": {},
            "unreserved_resources_allocated": _used(allocated),
            "resource_providers": [],
            "attributes": {
                name: format_value(value) if isinstance(value, tuple) else value
                for name, value in agent.offer.attributes.items()
            },
            **({"log_dir": str(agent.flags.log_dir)} if agent.flags.log_dir else {}),
            "flags": as_strings(agent.flags),
            "frameworks": [self._framework(containers)] if containers else [],
            "completed_frameworks": [],
        }

    def _framework(self, containers: list[Container]) -> dict[str, Any]:
        network_infos = self._network_infos()
        executors = [(each.state is State.EXITED, self._executor(each, network_infos)) for each in containers]
        return {
            "id": FRAMEWORK_ID,
            "name": FRAMEWORK_NAME,
            "user": "root",
            "failover_timeout": 0.0,
            "checkpoint": True,
            "hostname": self._agent.hostname,
            "role": _ROLE,
            "executors": [executor for ended, executor in executors if not ended],
            "completed_executors": [executor for ended, executor in executors if ended],
        }

    def _executor(self, container: Container, network_infos: list[Any]) -> dict[str, Any]:
        resources = _used([container])
        task = {
            "id": container.name,
            "name": container.name,
            "framework_id": FRAMEWORK_ID,
            "executor_id": "",  # of a command task
            "slave_id": self._agent.id,
            "state": container.task_state,
            "resources": resources,
            "role": _ROLE,
            "statuses": list(_statuses(container, network_infos)),
        }
        staging, ended = container.state is State.PREPARING, container.state is State.EXITED
        return {
            "id": container.name,
            "name": container.executor_name,
            "source": container.name,
            "container": container.id,
            "directory": str(container.sandbox),
            "resources": resources,
            "role": _ROLE,
            "tasks": [] if staging or ended else [task],
            "queued_tasks": [task] if staging else [],
            "completed_tasks": [task] if ended else [],
        }

    def _network_infos(self) -> list[dict[str, Any]]:
        """Of every container: they have the host's addresses."""
        isolator = self._agent.port_mapping
        addresses = isolator.addresses.shared if isolator is not None else [ip_address(self._address())]
        return [
            {"ip_addresses": [{"protocol": f"IPv{each.version}", "ip_address": str(each)} for each in addresses]},
        ]

    def _address(self) -> str:
        """Where the agent is reached: what --ip says, or where the host's packets come from."""
        if self._agent.flags.ip not in (None, "0.0.0.0"):
            return str(self._agent.flags.ip)
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
            unsent.connect(("192.0.2.1", 9))  # any address elsewhere: nothing is sent, the kernel looks up a route
            return str(unsent.getsockname()[0])
        return "127.0.0.1"


_VERSION = ("version", "git_sha", "git_tag", "build_date", "build_time", "build_user")


def _statuses(container: Container, network_infos: list[Any]) -> Iterator[dict[str, Any]]:
    status = {"container_id": {"value": container.id}, "network_infos": network_infos}
    if container.state is not State.PREPARING:
        yield {"state": "TASK_RUNNING", "timestamp": container.created, "container_status": status}
    if container.state is State.EXITED:
        yield {"state": container.task_state, "timestamp": container.finished, "container_status": status}


def _summed(resources: Iterable[Resource]) -> dict[str, float | str]:
    """Resources by name, over their roles: scalars as numbers, ranges and sets as Mesos' text."""
    collected = Resources(tuple(resources))
    shown: dict[str, float | str] = {name: collected.scalar(name) or 0.0 for name in _SCALARS}
    for resource in collected:
        if isinstance(resource.value, float):
            shown[resource.name] = collected.scalar(resource.name) or 0.0
        else:
            ranges = collected.ranges(resource.name)
            shown[resource.name] = format_value(resource.value if ranges is None else ranges)
    return shown


def _full(resource: Resource) -> dict[str, Any]:
    """As Mesos' message `Resource`."""
    value = resource.value
    if isinstance(value, float):
        shown: dict[str, Any] = {"type": "SCALAR", "scalar": {"value": value}}
    elif isinstance(value, tuple):
        shown = {"type": "RANGES", "ranges": {"range": [{"begin": begin, "end": end} for begin, end in value]}}
    else:
        shown = {"type": "SET", "set": {"item": sorted(value)}}
    return {"name": resource.name, **shown, "role": resource.role}


def _used(containers: Iterable[Container]) -> dict[str, float | str]:
    """What was asked for. Ephemeral ports are not: the agent gives them."""
    listed = list(containers)
    ports = PortSet(ranges for each in listed if each.network for ranges in each.network.ports.ranges)
    shown: dict[str, float | str] = {
        "disk": sum(each.disk or 0 for each in listed) / _MB,
        "mem": sum(each.mem or 0 for each in listed) / _MB,
        "gpus": 0.0,
        "cpus": round(float(sum(each.cpus or 0 for each in listed)), 3),
    }
    return {**shown, "ports": format_value(tuple((each.begin, each.end) for each in ports.ranges))} if ports else shown
