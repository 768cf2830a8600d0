"""What the reading calls of the master's operator API say: messages of the v1 API, as JSON."""

from collections.abc import Callable
from typing import Any

from portslice.engines.master.bundle import Bundle
from portslice.engines.master.cluster import Cluster
from portslice.engines.master.metrics import Metrics
from portslice.engines.master.model import Agent, Framework
from portslice.engines.master.offers import as_json as offer_json
from portslice.engines.master.shapes import offered_in_full, used_in_full
from portslice.engines.mesos.schema.mesos_pb2 import ExecutorInfo, Task, TaskStatus
from portslice.engines.mesos.v1 import to_json
from portslice.flags import as_strings
from portslice.http.operator.protocol import named
from portslice.http.version import VERSION

Answer = dict[str, Any]


class Answers:
    """One method a call; each returns the member of the answer that is named like the call, or None for no member.

    :param level: of verbosity.
    """

    def __init__(self, cluster: Cluster, level: Callable[[], int]) -> None:
        self._cluster = cluster
        self._metrics = Metrics(cluster)
        self._level = level

    def health(self) -> Answer:
        return {"healthy": True}

    def flags(self) -> Answer:
        return {"flags": named(as_strings(self._cluster.flags))}

    def version(self) -> Answer:
        names = ("version", "build_date", "build_time", "build_user")
        return {"version_info": {**{name: VERSION[name] for name in names}, **VERSION}}

    def metrics(self) -> Answer:
        return {"metrics": named(self._metrics.values())}

    def logging_level(self) -> Answer:
        return {"level": self._level()}

    def state(self) -> Answer:
        return {
            "get_tasks": self.tasks(),
            "get_executors": self.executors(),
            "get_frameworks": self.frameworks(),
            "get_agents": self.agents(),
        }

    def agents(self) -> Answer:
        cluster = self._cluster
        recovered = [
            {"id": _id(each), "hostname": cluster.registry.agents[each]["hostname"]} for each in cluster.recovered
        ]
        return {"agents": [agent_json(each) for each in cluster.agents.values()], "recovered_agents": recovered}

    def frameworks(self) -> Answer:
        return {
            "frameworks": [framework_json(each) for each in self._cluster.frameworks.values()],
            "completed_frameworks": [framework_json(each) for each in self._cluster.completed],
        }

    def executors(self) -> Answer:
        shown = [
            {"executor_info": _executor(info), "agent_id": _id(agent_id)}
            for framework in self._cluster.frameworks.values()
            for (agent_id, _), info in framework.executors.items()
        ]
        return {"executors": shown}

    def tasks(self) -> Answer:
        frameworks = self._cluster.frameworks.values()
        completed = (task for each in (*frameworks, *self._cluster.completed) for task in each.completed)
        return {
            "tasks": [to_json(task) for each in frameworks for task in each.tasks.values()],
            "unreachable_tasks": [],
            "completed_tasks": [to_json(task) for task in completed],
        }

    def roles(self) -> Answer:
        roles: dict[str, list[Framework]] = {}
        for framework in self._cluster.frameworks.values():
            for role in framework.roles:
                roles.setdefault(role, []).append(framework)
        return {"roles": [_role(name, members) for name, members in sorted(roles.items())]}

    def weights(self) -> None:
        """All are 1."""

    def quota(self) -> Answer:
        return {"status": {}}

    def operations(self) -> Answer:
        return {}

    def maintenance_schedule(self) -> Answer:
        return {"schedule": {}}

    def maintenance_status(self) -> Answer:
        return {"status": {}}

    def master(self, ip: str) -> Answer:
        """:param ip: the address at which whoever asks reaches it."""
        started = self._cluster.started
        return {"master_info": self._cluster.info(ip), "start_time": started, "elected_time": started}


def agent_json(agent: Agent) -> Answer:
    """An agent of GET_AGENTS."""
    held = used_in_full((*agent.alive(), *agent.executors.values()))
    return {
        "agent_info": to_json(agent.info),
        "active": agent.connected,
        "deactivated": False,
        "version": agent.version,
        "pid": str(agent.pid),
        "registered_time": _time(agent.registered),
        **({"reregistered_time": _time(agent.reregistered)} if agent.reregistered is not None else {}),
        "total_resources": [to_json(each) | {"role": each.role} for each in agent.info.resources],
        **_some(allocated_resources=held, offered_resources=offered_in_full(agent.offers.values())),
        **_some(capabilities=[{"type": each} for each in agent.capabilities]),
    }


def framework_json(framework: Framework) -> Answer:
    """A framework of GET_FRAMEWORKS."""
    held = used_in_full((*framework.living(), *framework.executors.values()))
    registered, back = framework.registered, framework.reregistered
    return {
        "framework_info": to_json(framework.info),
        "active": framework.connected,
        "connected": framework.connected,
        "recovered": framework.recovered,
        "registered_time": _time(registered),
        "reregistered_time": _time(registered if back is None else back),
        **({"unregistered_time": _time(framework.unregistered)} if framework.unregistered else {}),
        **_some(offers=[offer_json(each) for each in framework.offers.values()]),
        **_some(allocated_resources=held, offered_resources=offered_in_full(framework.offers.values())),
        "offer_constraints": {},
    }


def event_json(kind: str, subject: Any) -> Answer:
    """Something that happened, as SUBSCRIBE tells it (`Cluster.happened`)."""
    match kind:
        case "TASK_ADDED":
            member: Answer = {"task": to_json(subject)}
        case "TASK_UPDATED":
            member = _updated(*subject)
        case "AGENT_ADDED":
            member = {"agent": agent_json(subject)}
        case "AGENT_REMOVED":
            member = {"agent_id": _id(subject.id)}
        case "FRAMEWORK_REMOVED":
            member = {"framework_info": to_json(subject.info)}
        case _:
            member = {"framework": framework_json(subject)}
    return {"type": kind, kind.lower(): member}


def _updated(task: Task, status: TaskStatus) -> Answer:
    state = to_json(task)["state"]
    return {"framework_id": to_json(task.framework_id), "status": to_json(status), "state": state}


def _executor(info: ExecutorInfo) -> Answer:
    """Its command line and environment stay untold, as at the agent."""
    return {name: value for name, value in to_json(info).items() if name not in ("command", "data")}


def _role(name: str, members: list[Framework]) -> Answer:
    had = sum((each.used_as(name) for each in members), Bundle())
    had += sum((o.bundle for each in members for o in each.offers.values() if o.role == name), Bundle())
    scalars = [
        {"name": scalar, "type": "SCALAR", "scalar": {"value": amount}} for scalar, amount in sorted(had.scalars())
    ]
    return {
        "name": name,
        "weight": 1.0,
        "frameworks": [_id(each.id) for each in members],
        **_some(resources=scalars),
    }


def _some(**members: list[Any]) -> Answer:
    """An empty list is no member."""
    return {name: value for name, value in members.items() if value}


def _id(value: str) -> Answer:
    return {"value": value}


def _time(secs: float) -> Answer:
    return {"nanoseconds": round(secs * 1e9)}
