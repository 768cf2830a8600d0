"""The calls of the operator API that only read. What has a place in another endpoint is that endpoint's, reworded."""

import asyncio
import base64
from collections.abc import Iterable, Iterator
from typing import Any

from portslice.agent.service import Agent
from portslice.flags import as_strings
from portslice.http.files import FileInfo, Files
from portslice.http.metrics import Metrics
from portslice.http.monitor import FRAMEWORK_ID, VERSION
from portslice.http.operator.fields import RESOURCE_STATISTICS, in_order
from portslice.http.state import AgentState
from portslice.resources import Attributes, Resource, Resources, Value
from portslice.statistics import Usage

Answer = dict[str, Any]


class Reading:
    """One method a call; each returns the member of the answer that is named like the call, or None for no member."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._metrics = Metrics(agent)
        self._state = AgentState(agent)
        self._files = Files(agent)

    async def health(self, _argument: Answer) -> Answer:
        return {"healthy": True}

    async def flags(self, _argument: Answer) -> Answer:
        return {"flags": _named(as_strings(self._agent.flags))}

    async def version(self, _argument: Answer) -> Answer:
        names = ("version", "build_date", "build_time", "build_user")
        return {"version_info": {**{name: VERSION[name] for name in names}, **VERSION}}

    async def metrics(self, argument: Answer) -> Answer:
        timeout = argument.get("timeout")
        values = await self._metrics.values(None if timeout is None else timeout["nanoseconds"] / 1e9)
        return {"metrics": _named(values)}

    async def logging_level(self, _argument: Answer) -> Answer:
        return {"level": self._agent.verbosity.level}

    async def state(self, _argument: Answer) -> Answer:
        frameworks = await self._frameworks()
        return {
            "get_tasks": _tasks(frameworks),
            "get_executors": _executors(frameworks),
            "get_frameworks": _infos(frameworks),
        }

    async def containers(self, argument: Answer) -> Answer | None:
        standalone = argument.get("show_standalone", False)
        usages = [each for each in await self._agent.snapshots.take() if standalone or not each.container.standalone]
        return {"containers": await asyncio.to_thread(lambda: list(map(_container, usages)))} if usages else None

    async def frameworks(self, _argument: Answer) -> Answer:
        return _infos(await self._frameworks())

    async def executors(self, _argument: Answer) -> Answer:
        return _executors(await self._frameworks())

    async def tasks(self, _argument: Answer) -> Answer:
        return _tasks(await self._frameworks())

    async def agent(self, _argument: Answer) -> Answer:
        agent = self._agent
        info: Answer = {"hostname": agent.hostname, "port": agent.port}
        info["resources"] = [_resource(each) for each in agent.offer.resources]
        if attributes := list(_attributes(agent.offer.attributes)):
            info["attributes"] = attributes
        return {"agent_info": {**info, "id": _id(agent.id)}}

    async def nothing(self, _argument: Answer) -> Answer:
        """Of what this agent never has any."""
        return {}

    async def list_files(self, argument: Answer) -> Answer:
        found = await asyncio.to_thread(self._files.list, argument["path"])
        return {"file_infos": [_file(each) for each in found]}

    async def read_file(self, argument: Answer) -> Answer:
        piece = await asyncio.to_thread(self._files.read, argument["path"], argument["offset"], argument.get("length"))
        return {"size": piece.size, "data": base64.b64encode(piece.data).decode()}

    async def _frameworks(self) -> list[Answer]:
        """As /state has them."""
        value = await asyncio.to_thread(self._state.value)
        return list(value["frameworks"])


def _named(values: dict[str, Any]) -> list[Answer]:
    return [{"name": name, "value": value} for name, value in sorted(values.items())]


def _id(value: str) -> Answer:
    return {"value": value}


def _container(usage: Usage) -> Answer:
    shown = usage.containers_json()
    names: Answer = {}
    if not usage.container.standalone:
        names = {"framework_id": _id(shown["framework_id"]), "executor_id": _id(shown["executor_id"])}
        names["executor_name"] = shown["executor_name"]
    return {
        **names,
        "container_id": _id(shown["container_id"]),
        "container_status": shown["status"],
        "resource_statistics": in_order(usage.statistics, RESOURCE_STATISTICS),
    }


def _infos(frameworks: list[Answer]) -> Answer:
    names = ("user", "name", "id", "failover_timeout", "checkpoint", "role", "hostname")
    infos = [{**{name: each[name] for name in names}, "id": _id(each["id"])} for each in frameworks]
    return {"frameworks": [{"framework_info": info} for info in infos], "completed_frameworks": []}


def _executors(frameworks: list[Answer]) -> Answer:
    return {
        kind: [{"executor_info": _executor(each)} for framework in frameworks for each in framework[kind]]
        for kind in ("executors", "completed_executors")
    }


def _tasks(frameworks: list[Answer]) -> Answer:
    executors = [
        each for framework in frameworks for kind in ("executors", "completed_executors") for each in framework[kind]
    ]

    def of(kind: str) -> list[Answer]:
        return [_task(task) for executor in executors for task in executor[kind]]

    return {
        "pending_tasks": [],
        "queued_tasks": of("queued_tasks"),
        "launched_tasks": of("tasks"),
        "terminated_tasks": [],
        "completed_tasks": of("completed_tasks"),
    }


def _executor(executor: Answer) -> Answer:
    """Of /state's executor; the command line stays untold, as there."""
    return {
        "executor_id": _id(executor["id"]),
        "framework_id": _id(FRAMEWORK_ID),
        "resources": list(_allocated(executor["resources"])),
        "name": executor["name"],
        "source": executor["source"],
    }


def _task(task: Answer) -> Answer:
    ids = {"task_id": _id(task["id"]), "agent_id": _id(task["slave_id"])}
    statuses = [
        {
            "task_id": ids["task_id"],
            "state": each["state"],
            "agent_id": ids["agent_id"],
            "executor_id": ids["task_id"],
            "timestamp": each["timestamp"],
            "container_status": each["container_status"],
        }
        for each in task["statuses"]
    ]
    return {
        "name": task["name"],
        "task_id": ids["task_id"],
        "framework_id": _id(task["framework_id"]),
        "agent_id": ids["agent_id"],
        "state": task["state"],
        "resources": list(_allocated(task["resources"])),
        "statuses": statuses,
    }


def _allocated(resources: dict[str, float | str]) -> Iterator[Answer]:
    """Of /state's resources: what is 0 is not there, and by Mesos' thousandths less than half of one is 0."""
    for name, value in sorted(resources.items()):
        listed: Iterable[Resource]
        if isinstance(value, str):
            listed = Resources.parse(f"{name}:{value}")
        else:
            listed = [Resource(name, round(value, 3))] if round(value, 3) else []
        for resource in listed:
            yield {**_resource(resource), "allocation_info": {"role": resource.role}}


def _resource(resource: Resource) -> Answer:
    role = {} if resource.role == "*" else {"role": resource.role}
    return {"name": resource.name, **_typed(resource.value), **role}


def _attributes(attributes: Attributes) -> Iterable[Answer]:
    for name, value in attributes.items():
        if isinstance(value, str):
            yield {"name": name, "type": "TEXT", "text": {"value": value}}
        else:
            yield {"name": name, **_typed(value)}


def _typed(value: Value) -> Answer:
    if isinstance(value, float):
        return {"type": "SCALAR", "scalar": {"value": value}}
    if isinstance(value, tuple):
        return {"type": "RANGES", "ranges": {"range": [{"begin": begin, "end": end} for begin, end in value]}}
    return {"type": "SET", "set": {"item": sorted(value)}}


def _file(info: FileInfo) -> Answer:
    path, nlink, size, mtime_ns, mode, uid, gid = info
    mtime = {"nanoseconds": mtime_ns}
    return {"path": path, "nlink": nlink, "size": size, "mtime": mtime, "mode": mode, "uid": uid, "gid": gid}
