"""Agents, frameworks, executors and tasks as the old endpoints show them, /state before all: ids are texts, ranges
Mesos' text."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from portslice.engines.master.bundle import Bundle
from portslice.engines.master.model import Agent, Framework, Offer, role_of
from portslice.engines.mesos.schema.mesos_pb2 import (
    Attribute,
    ExecutorInfo,
    FrameworkInfo,
    Resource,
    Task,
    TaskState,
    TaskStatus,
    Value,
)
from portslice.engines.mesos.v1 import to_json
from portslice.resources import format_value

Shape = dict[str, Any]

_SCALARS = ("disk", "mem", "gpus", "cpus")  # always there, and in this order
_COUNTED = (
    "STAGING", "STARTING", "RUNNING", "KILLING", "FINISHED", "KILLED", "FAILED", "LOST", "ERROR", "UNREACHABLE",
)  # fmt: skip


def agent_json(agent: Agent) -> Shape:
    """Of /state."""
    return {
        "id": agent.id,
        "hostname": agent.info.hostname,
        "port": agent.pid.port,
        "attributes": {each.name: _attribute(each) for each in agent.info.attributes},
        "pid": str(agent.pid),
        "registered_time": agent.registered,
        **({"reregistered_time": agent.reregistered} if agent.reregistered is not None else {}),
        "resources": _listed(agent.info.resources),
        "used_resources": amounts(agent.used()),
        "offered_resources": amounts(agent.offered()),
        "reserved_resources": {role: _listed(mine) for role, mine in _reserved(agent).items()},
        "unreserved_resources": _listed(each for each in agent.info.resources if each.role == "*"),
        "active": agent.connected,
        "deactivated": False,
        "version": agent.version,
        "capabilities": agent.capabilities,
    }


def agent_in_full(agent: Agent) -> Shape:
    """Of /slaves."""
    return agent_json(agent) | {
        "reserved_resources_full": {role: list(map(to_json, mine)) for role, mine in _reserved(agent).items()},
        "unreserved_resources_full": [to_json(each) for each in agent.info.resources if each.role == "*"],
        "used_resources_full": used_in_full((*agent.alive(), *agent.executors.values())),
        "offered_resources_full": offered_in_full(agent.offers.values()),
    }


def framework_json(framework: Framework) -> Shape:
    """Of /state and /frameworks."""
    info = framework.info
    multi = framework.has(FrameworkInfo.Capability.MULTI_ROLE)
    return framework_summary(framework) | {
        "user": info.user,
        "failover_timeout": info.failover_timeout,
        "checkpoint": info.checkpoint,
        "registered_time": framework.registered,
        **({"reregistered_time": framework.reregistered} if framework.reregistered is not None else {}),
        "unregistered_time": framework.unregistered,
        **({"principal": info.principal} if info.HasField("principal") else {}),
        "resources": amounts(framework.used() + framework.offered()),
        **({"roles": framework.roles} if multi else {"role": framework.roles[0]}),
        "tasks": [task_json(each) for each in framework.tasks.values()],
        "unreachable_tasks": [],
        "completed_tasks": [task_json(each) for each in framework.completed],
        "offers": [_offer(each) for each in framework.offers.values()],
        "executors": [executor_json(info, agent_id) for (agent_id, _), info in framework.executors.items()],
        "offer_constraints": {},
    }


def framework_summary(framework: Framework) -> Shape:
    """Of /state-summary, but for the tasks."""
    return {
        "id": framework.id,
        "name": framework.info.name,
        "used_resources": amounts(framework.used()),
        "offered_resources": amounts(framework.offered()),
        "capabilities": [FrameworkInfo.Capability.Type.Name(each.type) for each in framework.info.capabilities],
        "hostname": framework.info.hostname,
        "webui_url": framework.info.webui_url,
        "active": framework.connected,
        "connected": framework.connected,
        "recovered": framework.recovered,
    }


def executor_json(info: ExecutorInfo, agent_id: str) -> Shape:
    """Its command line and environment stay untold, as at the agent."""
    return {
        "executor_id": info.executor_id.value,
        "name": info.name,
        "framework_id": info.framework_id.value,
        "command": {"argv": [], "uris": []},
        "resources": amounts(Bundle.of(info.resources)),
        **({"role": role_of(info)} if info.resources else {}),
        **({"labels": to_json(info.labels)["labels"]} if info.labels.labels else {}),
        **({"type": ExecutorInfo.Type.Name(info.type)} if info.HasField("type") else {}),
        "slave_id": agent_id,
    }


def task_json(task: Task) -> Shape:
    """Of /state and /tasks."""
    return {
        "id": task.task_id.value,
        "name": task.name,
        "framework_id": task.framework_id.value,
        "executor_id": task.executor_id.value,
        "slave_id": task.slave_id.value,
        "state": TaskState.Name(task.state),
        "resources": amounts(Bundle.of(task.resources)),
        "role": role_of(task),
        "statuses": [_status(each) for each in task.statuses],
        **({"labels": to_json(task.labels)["labels"]} if task.labels.labels else {}),
        **({"discovery": to_json(task.discovery)} if task.HasField("discovery") else {}),
    }


def counts(tasks: Iterable[Task]) -> dict[str, int]:
    """How many are in each state."""
    found = Counter(TaskState.Name(each.state) for each in tasks)
    return {f"TASK_{state}": found[f"TASK_{state}"] for state in _COUNTED}


def amounts(bundle: Bundle) -> Shape:
    """Those of /state; ranges as text."""
    ranges = dict.fromkeys(name for (name, _), amount in bundle.amounts.items() if not isinstance(amount, int))
    found: Shape = dict.fromkeys(_SCALARS, 0.0)
    return found | dict(bundle.scalars()) | {name: str(bundle.ranges(name)) for name in ranges}


def quantities(bundle: Bundle) -> dict[str, float]:
    """Those of /roles: what there is; of ports their number."""
    ranges = dict.fromkeys(name for (name, _), amount in bundle.amounts.items() if not isinstance(amount, int))
    found = {**dict(bundle.scalars()), **{each: float(len(bundle.ranges(each))) for each in ranges}}
    return dict(sorted(found.items()))


def used_in_full(holders: Iterable[Task | ExecutorInfo]) -> list[Shape]:
    """What they have, as messages, with the roles that it is allocated to."""
    return _in_full((role_of(each), Bundle.of(each.resources)) for each in holders)


def offered_in_full(offers: Iterable[Offer]) -> list[Shape]:
    """What is in them, likewise."""
    return _in_full((each.role, each.bundle) for each in offers)


def _in_full(parts: Iterable[tuple[str, Bundle]]) -> list[Shape]:
    of_roles: dict[str, Bundle] = {}
    for role, part in parts:
        of_roles[role] = of_roles.get(role, Bundle()) + part
    return [to_json(each) for role, bundle in sorted(of_roles.items()) for each in bundle.messages(role)]


def _reserved(agent: Agent) -> dict[str, list[Resource]]:
    roles = dict.fromkeys(each.role for each in agent.info.resources if each.role != "*")
    return {role: [each for each in agent.info.resources if each.role == role] for role in roles}


def _offer(offer: Offer) -> Shape:
    return {
        "id": offer.id,
        "framework_id": offer.framework.id,
        "allocation_info": {"role": offer.role},
        "slave_id": offer.agent.id,
        "resources": amounts(offer.bundle),
    }


def _status(status: TaskStatus) -> Shape:
    container = to_json(status.container_status)
    container.pop("executor_pid", None)
    return {
        "state": TaskState.Name(status.state),
        "timestamp": status.timestamp,
        **({"labels": to_json(status.labels)["labels"]} if status.labels.labels else {}),
        **({"container_status": container} if status.HasField("container_status") else {}),
        **({"healthy": status.healthy} if status.HasField("healthy") else {}),
    }


def _listed(resources: Iterable[Resource]) -> Shape:
    """All of an agent's, also what is never offered; ranges as Mesos' text."""
    found: Shape = dict.fromkeys(_SCALARS, 0.0)
    for each in resources:
        if each.type == Value.SCALAR:
            found[each.name] = round(found.get(each.name, 0.0) + each.scalar.value, 3)
        elif each.type == Value.RANGES:
            found[each.name] = format_value(tuple((one.begin, one.end) for one in each.ranges.range))
        else:
            found[each.name] = format_value(frozenset(each.set.item))
    return found


def _attribute(attribute: Attribute) -> float | str:
    if attribute.type == Value.SCALAR:
        return attribute.scalar.value
    if attribute.type == Value.RANGES:
        return format_value(tuple((one.begin, one.end) for one in attribute.ranges.range))
    return attribute.text.value
