"""/state: the agent, and its containers as executors of frameworks, in the order and the shapes of Mesos."""

import asyncio
import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from aiohttp import web

from portslice.agent.service import Agent
from portslice.containers.container import Container, State
from portslice.flags import as_strings
from portslice.http.answers import long_json_response
from portslice.http.executors import MB, ROLE, Executor, Framework, frameworks, resource
from portslice.http.routing import DELEGATE
from portslice.http.version import VERSION
from portslice.ports import PortRange, PortSet
from portslice.resources import Resource, Resources, format_value

_SCALARS = ("disk", "mem", "gpus", "cpus")  # always there, and in this order


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
        shown = self.frameworks()
        free = [each for each in offered if each.role == ROLE]
        roles = dict.fromkeys(each.role for each in offered if each.role != ROLE)
        reserved = {role: [each for each in offered if each.role == role] for role in roles}
        containers = [executor.container for framework in shown for executor in framework.executors]
        allocated = (each for each in containers if each.state is not State.EXITED)
        return {
            **{name: VERSION[name] for name in _VERSION},
            "start_time": agent.started,
            "id": agent.id,
            "pid": f"{DELEGATE}@{self._address()}:{agent.port}",
            "hostname": agent.hostname,
            "capabilities": list(agent.cluster.capabilities),
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
            **({"master_hostname": master} if (master := agent.cluster.master_hostname) else {}),
            **({"log_dir": str(agent.flags.log_dir)} if agent.flags.log_dir else {}),
            "flags": as_strings(agent.flags),
            "frameworks": [_framework(each) for each in shown if not each.completed],
            "completed_frameworks": [_framework(each) for each in shown if each.completed],
        }

    def frameworks(self) -> list[Framework]:
        """What has containers here."""
        return frameworks(self._agent, self._network_infos())

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


def _framework(framework: Framework) -> dict[str, Any]:
    info = framework.info
    of_many = any(each.get("type") == "MULTI_ROLE" for each in info.get("capabilities", ()))
    return {
        "id": info["id"]["value"],
        "name": info["name"],
        "user": info["user"],
        "failover_timeout": info["failover_timeout"],
        "checkpoint": info["checkpoint"],
        "hostname": info.get("hostname", ""),
        **({"principal": info["principal"]} if "principal" in info else {}),
        **({"roles": info.get("roles", [])} if of_many else {"role": info.get("role", ROLE)}),
        "executors": [_executor(each) for each in framework.executors if not each.ended],
        "completed_executors": [_executor(each) for each in framework.executors if each.ended],
    }


def _executor(executor: Executor) -> dict[str, Any]:
    container = executor.container
    return {
        "id": container.name,
        "name": container.executor_name,
        "source": container.source,
        "container": container.id,
        "directory": str(container.sandbox),
        "resources": _used([container]),
        "role": executor.role,
        "tasks": [_task(each, executor.role) for each in executor.launched],
        "queued_tasks": [_task(each, executor.role) for each in executor.queued],
        "completed_tasks": [_task(each, executor.role) for each in executor.completed],
    }


def _task(task: dict[str, Any], role: str) -> dict[str, Any]:
    return {
        "id": task["task_id"]["value"],
        "name": task["name"],
        "framework_id": task["framework_id"]["value"],
        "executor_id": task.get("executor_id", {}).get("value", ""),  # a command task has none
        "slave_id": task["agent_id"]["value"],
        "state": task["state"],
        "resources": _of_task(task.get("resources", [])),
        "role": role,
        "statuses": [_status(each) for each in task.get("statuses", ())],
        **({"labels": task["labels"]["labels"]} if "labels" in task else {}),
        **{name: task[name] for name in ("discovery", "health_check") if name in task},
    }


def _status(status: dict[str, Any]) -> dict[str, Any]:
    where = status.get("container_status", {})
    return {
        "state": status["state"],
        "timestamp": status["timestamp"],
        "container_status": {name: where[name] for name in ("container_id", "network_infos") if name in where},
        **({"healthy": status["healthy"]} if "healthy" in status else {}),
    }


def _of_task(resources: list[dict[str, Any]]) -> dict[str, float | str]:
    """Resources of the v1 API by name, over their roles."""
    shown: dict[str, float | str] = dict.fromkeys(_SCALARS, 0.0)
    ports: dict[str, list[PortRange]] = {}
    for each in resources:
        name = each["name"]
        if "scalar" in each:
            shown[name] = round(float(shown.get(name, 0.0)) + each["scalar"]["value"], 3)
        elif "ranges" in each:
            ranges = each["ranges"].get("range", ())
            ports.setdefault(name, []).extend(PortRange(one["begin"], one["end"]) for one in ranges)
    return {**shown, **{name: str(PortSet(ranges)) for name, ranges in ports.items() if ranges}}


def _summed(resources: Iterable[Resource]) -> dict[str, float | str]:
    """Resources by name, over their roles: scalars as numbers, ranges and sets as Mesos' text."""
    collected = Resources(tuple(resources))
    shown: dict[str, float | str] = {name: collected.scalar(name) or 0.0 for name in _SCALARS}
    for each in collected:
        if isinstance(each.value, float):
            shown[each.name] = collected.scalar(each.name) or 0.0
        else:
            ranges = collected.ranges(each.name)
            shown[each.name] = format_value(each.value if ranges is None else ranges)
    return shown


def _full(each: Resource) -> dict[str, Any]:
    """As Mesos' message `Resource`."""
    return {**resource(each), "role": each.role}


def _used(containers: Iterable[Container]) -> dict[str, float | str]:
    """What was asked for. Ephemeral ports are not: the agent gives them."""
    listed = list(containers)
    ports = PortSet(ranges for each in listed if each.network for ranges in each.network.ports.ranges)
    shown: dict[str, float | str] = {
        "disk": sum(each.disk or 0 for each in listed) / MB,
        "mem": sum(each.mem or 0 for each in listed) / MB,
        "gpus": 0.0,
        "cpus": round(float(sum(each.cpus or 0 for each in listed)), 3),
    }
    return {**shown, "ports": format_value(tuple((each.begin, each.end) for each in ports.ranges))} if ports else shown
