"""What a master shows: /state, /slaves, /frameworks, /roles, /tasks, /flags, /version and /health, in the shapes of
Mesos."""

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from portslice.engines.master import fairness
from portslice.engines.master.bundle import Bundle
from portslice.engines.master.cluster import Cluster
from portslice.engines.master.model import Agent, Framework, role_of
from portslice.engines.mesos.schema.mesos_pb2 import Attribute, FrameworkInfo, Resource, Task, TaskState, Value
from portslice.engines.mesos.v1 import to_json
from portslice.flags import as_strings
from portslice.http.monitor import VERSION, json_response
from portslice.resources import format_value

_SCALARS = ("disk", "mem", "gpus", "cpus")  # always there, and in this order
_TASKS_MAX = 100


class Views:
    """The endpoints that read."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/state", self._state),
            web.get("/slaves", self._slaves),
            web.get("/frameworks", self._frameworks),
            web.get("/roles", self._roles),
            web.get("/tasks", self._tasks),
            web.get("/flags", self._flags),
            web.get("/version", self._version),
            web.get("/health", self._health),
            web.get("/redirect", self._redirect),
        ]

    async def _state(self, request: web.Request) -> web.Response:
        """The whole cluster."""
        cluster = self._cluster
        leader = {"id": cluster.id, "pid": cluster.pid, "port": cluster.flags.port, "hostname": cluster.hostname}
        known = [*cluster.frameworks.values(), *cluster.completed]
        value = {
            **{name: VERSION[name] for name in ("version", "git_sha", "git_tag", "build_date", "build_time")},
            "build_user": VERSION["build_user"],
            "start_time": cluster.started,
            "elected_time": cluster.started,
            "id": cluster.id,
            "pid": cluster.pid,
            "hostname": cluster.hostname,
            "capabilities": [],
            "activated_slaves": float(sum(each.connected for each in cluster.agents.values())),
            "deactivated_slaves": float(sum(not each.connected for each in cluster.agents.values())),
            "unreachable_slaves": float(len(cluster.unreachable)),
            "leader": cluster.pid,
            "leader_info": leader,
            **({"cluster": cluster.flags.cluster} if cluster.flags.cluster is not None else {}),
            "flags": as_strings(cluster.flags),
            "slaves": [_agent(each) for each in cluster.agents.values()],
            "recovered_slaves": self._recovered(),
            "frameworks": [_framework(each) for each in known[: len(cluster.frameworks)]],
            "completed_frameworks": [_framework(each) for each in known[len(cluster.frameworks) :]],
            "orphan_tasks": [],
            "unregistered_frameworks": [],
        }
        return json_response(request, value, in_order=True)

    async def _slaves(self, request: web.Request) -> web.Response:
        """The agents; ?slave_id=."""
        wanted = request.query.get("slave_id")
        agents = [each for each in self._cluster.agents.values() if wanted in (None, each.id)]
        slaves = [_agent(each) | _in_full(each) for each in agents]
        return json_response(request, {"slaves": slaves, "recovered_slaves": self._recovered()}, in_order=True)

    async def _frameworks(self, request: web.Request) -> web.Response:
        """The frameworks; ?framework_id=."""
        wanted = request.query.get("framework_id")
        value = {
            "frameworks": [_framework(f) for f in self._cluster.frameworks.values() if wanted in (None, f.id)],
            "completed_frameworks": [_framework(f) for f in self._cluster.completed if wanted in (None, f.id)],
            "unregistered_frameworks": [],
        }
        return json_response(request, value, in_order=True)

    async def _roles(self, request: web.Request) -> web.Response:
        """Roles that frameworks have, with what they use."""
        found: dict[str, list[Framework]] = {}
        for framework in self._cluster.frameworks.values():
            for role in framework.roles:
                found.setdefault(role, []).append(framework)
        total = sum((each.total for each in self._cluster.agents.values()), Bundle())
        roles = []
        for role, members in sorted(found.items()):
            used = sum((each.used_as(role) for each in members), Bundle())
            roles.append(
                {
                    "name": role,
                    "weight": 1.0,
                    "frameworks": [each.id for each in members],
                    "resources": _amounts(used),
                    "dominant_share": fairness.share(used, total),
                }
            )
        return json_response(request, {"roles": roles}, in_order=True)

    async def _tasks(self, request: web.Request) -> web.Response:
        """Tasks of all frameworks, the last ones first; ?limit=&offset=&order=&task_id=&framework_id=."""
        query = request.query
        try:
            limit, offset = int(query.get("limit", _TASKS_MAX)), max(int(query.get("offset", 0)), 0)
        except ValueError:
            raise web.HTTPBadRequest(text="Failed to convert 'limit' or 'offset' to number") from None
        tasks = [
            task
            for framework in (*self._cluster.frameworks.values(), *self._cluster.completed)
            if query.get("framework_id") in (None, framework.id)
            for task in (*framework.tasks.values(), *framework.completed)
            if query.get("task_id") in (None, task.task_id.value)
        ]
        tasks.sort(key=_begun, reverse=query.get("order", "des") != "asc")
        chosen = tasks[offset:] if limit < 0 else tasks[offset : offset + limit]
        return json_response(request, {"tasks": [_task(each) for each in chosen]}, in_order=True)

    async def _flags(self, request: web.Request) -> web.Response:
        """The master's flags."""
        return json_response(request, {"flags": as_strings(self._cluster.flags)})

    async def _version(self, request: web.Request) -> web.Response:
        """The version."""
        return json_response(request, VERSION)

    async def _health(self, _request: web.Request) -> web.Response:
        """200."""
        return web.Response()

    async def _redirect(self, request: web.Request) -> web.Response:
        """307 to the leading master, which is this one."""
        raise web.HTTPTemporaryRedirect(f"//{request.host or f'{self._cluster.hostname}:{self._cluster.flags.port}'}")

    def _recovered(self) -> list[dict[str, Any]]:
        return [{"id": each, **self._cluster.registry.agents[each]} for each in self._cluster.recovered]


def _agent(agent: Agent) -> dict[str, Any]:
    return {
        "id": agent.id,
        "hostname": agent.info.hostname,
        "port": agent.pid.port,
        "attributes": {each.name: _attribute(each) for each in agent.info.attributes},
        "pid": str(agent.pid),
        "registered_time": agent.registered,
        **({"reregistered_time": agent.reregistered} if agent.reregistered is not None else {}),
        "resources": _listed(agent.info.resources),
        "used_resources": _amounts(agent.used()),
        "offered_resources": _amounts(agent.offered()),
        "reserved_resources": {
            role: _listed(each for each in agent.info.resources if each.role == role)
            for role in dict.fromkeys(each.role for each in agent.info.resources if each.role != "*")
        },
        "unreserved_resources": _listed(each for each in agent.info.resources if each.role == "*"),
        "active": agent.connected,
        "deactivated": False,
        "version": agent.version,
        "capabilities": agent.capabilities,
    }


def _in_full(agent: Agent) -> dict[str, Any]:
    resources = agent.info.resources
    return {
        "reserved_resources_full": {
            role: [to_json(each) for each in resources if each.role == role]
            for role in dict.fromkeys(each.role for each in resources if each.role != "*")
        },
        "unreserved_resources_full": [to_json(each) for each in resources if each.role == "*"],
        "used_resources_full": [to_json(each) for each in agent.used().messages()],
        "offered_resources_full": [to_json(each) for each in agent.offered().messages()],
    }


def _framework(framework: Framework) -> dict[str, Any]:
    info = framework.info
    multi = framework.has(FrameworkInfo.Capability.MULTI_ROLE)
    return {
        "id": framework.id,
        "name": info.name,
        "used_resources": _amounts(framework.used()),
        "offered_resources": _amounts(framework.offered()),
        "capabilities": [FrameworkInfo.Capability.Type.Name(each.type) for each in info.capabilities],
        "hostname": info.hostname,
        "webui_url": info.webui_url,
        "active": framework.connected,
        "connected": framework.connected,
        "recovered": framework.recovered,
        "user": info.user,
        "failover_timeout": info.failover_timeout,
        "checkpoint": info.checkpoint,
        "registered_time": framework.registered,
        **({"reregistered_time": framework.reregistered} if framework.reregistered is not None else {}),
        "unregistered_time": framework.unregistered,
        "resources": _amounts(framework.used() + framework.offered()),
        **({"roles": framework.roles} if multi else {"role": framework.roles[0]}),
        "tasks": [_task(each) for each in framework.tasks.values()],
        "unreachable_tasks": [],
        "completed_tasks": [_task(each) for each in framework.completed],
        "offers": [_offer(each.id, framework.id, each.agent.id, each.bundle) for each in framework.offers.values()],
        "executors": [],
        "offer_constraints": {},
    }


def _offer(offer_id: str, framework_id: str, slave_id: str, bundle: Bundle) -> dict[str, Any]:
    return {"id": offer_id, "framework_id": framework_id, "slave_id": slave_id, "resources": _amounts(bundle)}


def _task(task: Task) -> dict[str, Any]:
    return {
        "id": task.task_id.value,
        "name": task.name,
        "framework_id": task.framework_id.value,
        "executor_id": "",
        "slave_id": task.slave_id.value,
        "state": TaskState.Name(task.state),
        "resources": _amounts(Bundle.of(task.resources)),
        "role": role_of(task),
        "statuses": [
            {
                "state": TaskState.Name(each.state),
                "timestamp": each.timestamp,
                **({"container_status": to_json(each.container_status)} if each.HasField("container_status") else {}),
            }
            for each in task.statuses
        ],
        **({"labels": to_json(task.labels)["labels"]} if task.labels.labels else {}),
        **({"discovery": to_json(task.discovery)} if task.HasField("discovery") else {}),
    }


def _begun(task: Task) -> float:
    return task.statuses[0].timestamp if task.statuses else float("inf")


def _listed(resources: Iterable[Resource]) -> dict[str, Any]:
    """All of an agent's, also what is never offered; ranges as Mesos' text."""
    found: dict[str, Any] = dict.fromkeys(_SCALARS, 0.0)
    for each in resources:
        if each.type == Value.SCALAR:
            found[each.name] = round(found.get(each.name, 0.0) + each.scalar.value, 3)
        elif each.type == Value.RANGES:
            found[each.name] = format_value(tuple((one.begin, one.end) for one in each.ranges.range))
        else:
            found[each.name] = format_value(frozenset(each.set.item))
    return found


def _amounts(bundle: Bundle) -> dict[str, Any]:
    ranges = dict.fromkeys(name for (name, _), amount in bundle.amounts.items() if not isinstance(amount, int))
    found: dict[str, Any] = dict.fromkeys(_SCALARS, 0.0)
    return found | dict(bundle.scalars()) | {name: str(bundle.ranges(name)) for name in ranges}


def _attribute(attribute: Attribute) -> float | str:
    if attribute.type == Value.SCALAR:
        return attribute.scalar.value
    if attribute.type == Value.RANGES:
        return format_value(tuple((one.begin, one.end) for one in attribute.ranges.range))
    return attribute.text.value
