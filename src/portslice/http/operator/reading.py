"""The calls of the operator API that only read. What has a place in another endpoint is that endpoint's, reworded."""

import asyncio
import base64
from collections.abc import Iterable
from typing import Any

from portslice.agent.service import Agent
from portslice.flags import as_strings
from portslice.http.executors import Executor, Framework, resource
from portslice.http.files import FileInfo, Files
from portslice.http.metrics import Metrics
from portslice.http.operator.fields import RESOURCE_STATISTICS, in_order
from portslice.http.operator.protocol import named
from portslice.http.state import AgentState
from portslice.http.version import VERSION
from portslice.resources import Attributes, Resource
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
        return {"flags": named(as_strings(self._agent.flags))}

    async def version(self, _argument: Answer) -> Answer:
        names = ("version", "build_date", "build_time", "build_user")
        return {"version_info": {**{name: VERSION[name] for name in names}, **VERSION}}

    async def metrics(self, argument: Answer) -> Answer:
        timeout = argument.get("timeout")
        values = await self._metrics.values(None if timeout is None else timeout["nanoseconds"] / 1e9)
        return {"metrics": named(values)}

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

    async def _frameworks(self) -> list[Framework]:
        return await asyncio.to_thread(self._state.frameworks)


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


def _infos(frameworks: list[Framework]) -> Answer:
    return {
        "frameworks": [{"framework_info": each.info} for each in frameworks if not each.completed],
        "completed_frameworks": [{"framework_info": each.info} for each in frameworks if each.completed],
    }


def _executors(frameworks: list[Framework]) -> Answer:
    shown = [each for framework in frameworks for each in framework.executors]
    return {
        "executors": [{"executor_info": _executor(each)} for each in shown if not each.ended],
        "completed_executors": [{"executor_info": _executor(each)} for each in shown if each.ended],
    }


def _tasks(frameworks: list[Framework]) -> Answer:
    shown = [each for framework in frameworks for each in framework.executors]
    return {
        "pending_tasks": [],
        "queued_tasks": [task for each in shown for task in each.queued],
        "launched_tasks": [task for each in shown for task in each.launched],
        "terminated_tasks": [],
        "completed_tasks": [task for each in shown for task in each.completed],
    }


def _executor(executor: Executor) -> Answer:
    """The command line stays untold, as in /state."""
    container = executor.container
    return {
        "executor_id": _id(container.name),
        "framework_id": _id(container.framework_id),
        "resources": executor.resources,
        "name": container.executor_name,
        "source": container.source,
    }


def _resource(given: Resource) -> Answer:
    role = {} if given.role == "*" else {"role": given.role}
    return {**resource(given), **role}


def _attributes(attributes: Attributes) -> Iterable[Answer]:
    for name, value in attributes.items():
        if isinstance(value, str):
            yield {"name": name, "type": "TEXT", "text": {"value": value}}
        else:
            yield resource(Resource(name, value))


def _file(info: FileInfo) -> Answer:
    path, nlink, size, mtime_ns, mode, uid, gid = info
    mtime = {"nanoseconds": mtime_ns}
    return {"path": path, "nlink": nlink, "size": size, "mtime": mtime, "mode": mode, "uid": uid, "gid": gid}
