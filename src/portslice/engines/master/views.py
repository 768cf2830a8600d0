"""What a master shows: /state, /state-summary, /slaves, /frameworks, /roles, /tasks, /flags, /version and /health, in
the shapes of Mesos."""

from typing import Any

from aiohttp import web

from portslice.engines.master import fairness
from portslice.engines.master.bundle import ANYBODY, Bundle
from portslice.engines.master.cluster import Cluster
from portslice.engines.master.model import Framework
from portslice.engines.master.shapes import (
    agent_in_full,
    agent_json,
    counts,
    framework_json,
    framework_summary,
    quantities,
    task_json,
)
from portslice.engines.mesos.schema.mesos_pb2 import Task
from portslice.flags import as_strings
from portslice.http.answers import json_response
from portslice.http.version import VERSION

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
            web.get("/state-summary", self._summary),
            web.get("/quota", self._no_quota),
            web.get("/weights", self._no_weights),
            web.get("/maintenance/schedule", self._no_maintenance),
            web.get("/maintenance/status", self._no_maintenance),
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
            "slaves": [agent_json(each) for each in cluster.agents.values()],
            "recovered_slaves": self._recovered(),
            "frameworks": [framework_json(each) for each in known[: len(cluster.frameworks)]],
            "completed_frameworks": [framework_json(each) for each in known[len(cluster.frameworks) :]],
            "orphan_tasks": [],
            "unregistered_frameworks": [],
        }
        return json_response(request, value, in_order=True)

    async def _slaves(self, request: web.Request) -> web.Response:
        """The agents; ?slave_id=."""
        wanted = request.query.get("slave_id")
        agents = [each for each in self._cluster.agents.values() if wanted in (None, each.id)]
        slaves = [agent_in_full(each) for each in agents]
        return json_response(request, {"slaves": slaves, "recovered_slaves": self._recovered()}, in_order=True)

    async def _frameworks(self, request: web.Request) -> web.Response:
        """The frameworks; ?framework_id=."""
        wanted = request.query.get("framework_id")
        value = {
            "frameworks": [framework_json(f) for f in self._cluster.frameworks.values() if wanted in (None, f.id)],
            "completed_frameworks": [framework_json(f) for f in self._cluster.completed if wanted in (None, f.id)],
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
            offered = sum((o.bundle for each in members for o in each.offers.values() if o.role == role), Bundle())
            reserved = Bundle({key: amount for key, amount in total.amounts.items() if key[1] == role != ANYBODY})
            roles.append(
                {
                    "name": role,
                    "weight": 1.0,
                    "quota": {"role": role, "guarantee": {}, "limit": {}, "consumed": quantities(used)},
                    "resources": quantities(used + offered),
                    "allocated": quantities(used),
                    "offered": quantities(offered),
                    "reserved": quantities(reserved),
                    "frameworks": [each.id for each in members],
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
        return json_response(request, {"tasks": [task_json(each) for each in chosen]}, in_order=True)

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

    async def _summary(self, request: web.Request) -> web.Response:
        """The agents and frameworks, with the numbers of their tasks in each state."""
        cluster = self._cluster
        frameworks = cluster.frameworks.values()
        tasks = [task for each in frameworks for task in (*each.tasks.values(), *each.completed)]
        of_agent: dict[str, list[Task]] = {}
        for task in tasks:
            of_agent.setdefault(task.slave_id.value, []).append(task)
        value = {
            "hostname": cluster.hostname,
            **({"cluster": cluster.flags.cluster} if cluster.flags.cluster is not None else {}),
            "slaves": [
                agent_json(each)
                | counts(of_agent.get(each.id, ()))
                | {"framework_ids": sorted({task.framework_id.value for task in of_agent.get(each.id, ())})}
                for each in cluster.agents.values()
            ],
            "frameworks": [
                framework_summary(each)
                | counts((*each.tasks.values(), *each.completed))
                | {"slave_ids": sorted({task.slave_id.value for task in (*each.tasks.values(), *each.completed)})}
                for each in frameworks
            ],
        }
        return json_response(request, value, in_order=True)

    async def _no_quota(self, request: web.Request) -> web.Response:
        """Quotas: this master has none."""
        return json_response(request, {})

    async def _no_weights(self, request: web.Request) -> web.Response:
        """Weights of roles: all are 1 here."""
        return json_response(request, [])

    async def _no_maintenance(self, request: web.Request) -> web.Response:
        """Maintenance: this master plans none."""
        return json_response(request, {})

    def _recovered(self) -> list[dict[str, Any]]:
        return [{"id": each, **self._cluster.registry.agents[each]} for each in self._cluster.recovered]


def _begun(task: Task) -> float:
    return task.statuses[0].timestamp if task.statuses else float("inf")
