"""Whether an agent may go on as the one that the master knows, although its flags have changed (Mesos'
--reconfiguration_policy).

What frameworks hold of an agent was offered to them as it was registered. So as a rule it comes back just so; the
policy `additive` lets it have more of what it had, since nobody can be using that yet.
"""

from collections.abc import Iterable
from pathlib import Path

from portslice.engines.mesos.schema.mesos_pb2 import Attribute, Resource, SlaveInfo, Value
from portslice.errors import PortsliceError

POLICIES = ("equal", "additive")
_RULE = "------------------------------------------------------------"
_NOT_PERMITTED = "Configuration change not permitted under `additive` policy: "


class IncompatibleError(PortsliceError):
    """It may not."""


def check(previous: SlaveInfo, current: SlaveInfo, policy: str, latest: Path) -> None:
    """Compare what was registered with what is there now.

    :param latest: the link that makes it the same agent.
    :raises IncompatibleError: with Mesos' words, and its remedy.
    """
    why = _difference(previous, current) if policy == "equal" else _loss(previous, current)
    if why is not None:
        raise IncompatibleError(
            f"Failed to perform recovery: {why}\n"
            "If recovery failed due to a change in configuration and you want to\n"
            "keep the current agent id, you might want to change the\n"
            "`--reconfiguration_policy` flag to a more permissive value.\n\n"
            "To restart this agent with a new agent id instead, do as follows:\n"
            f"rm -f {latest}\n"
            "This ensures that the agent does not recover old live executors."
        )


def _difference(previous: SlaveInfo, current: SlaveInfo) -> str | None:
    if _content(previous) == _content(current):
        return None
    return (
        f"Incompatible agent info detected. \n{_RULE}\nOld agent info:\n{previous}\n{_RULE}\nNew agent info:\n{current}"
        f"\n{_RULE}"
    )


def _content(info: SlaveInfo) -> dict[str, object]:
    """What is compared: as in Mesos the order of resources means nothing."""
    return {
        "hostname": info.hostname,
        "port": info.port,
        "resources": sorted((*_key(each), _shown(each)) for each in info.resources),
        "attributes": sorted(each.SerializeToString(deterministic=True) for each in info.attributes),
    }


def _loss(previous: SlaveInfo, current: SlaveInfo) -> str | None:
    if previous.hostname != current.hostname:
        return f"{_NOT_PERMITTED}Hostname changed from {previous.hostname} to {current.hostname}"
    if previous.port != current.port:
        return f"{_NOT_PERMITTED}Port changed from {previous.port} to {current.port}"
    resources = {_key(each): each for each in current.resources}
    for resource in previous.resources:
        now = resources.get(_key(resource))
        if now is None:
            return f"{_NOT_PERMITTED}Resource not found: {resource.name}({resource.role}):{_shown(resource)}"
        if resource.type == Value.SCALAR and resource.scalar.value > now.scalar.value:
            return (
                f"{_NOT_PERMITTED}Value of scalar resource '{resource.name}' decreased from {_shown(resource)} to "
                f"{_shown(now)}"
            )
        if not _includes(now, resource):
            kind = "range" if resource.type == Value.RANGES else "set"
            return (
                f"{_NOT_PERMITTED}Previous value of {kind} resource '{resource.name}' ({_shown(resource)}) not "
                f"included in current {_shown(now)}"
            )
    attributes = {each.name: each for each in current.attributes}
    for attribute in previous.attributes:
        known = attributes.get(attribute.name)
        if known is None:
            return f"{_NOT_PERMITTED}Couldn't find attribute {attribute.name}:{_shown(attribute)}"
        if known.type != attribute.type:
            types = f"{Value.Type.Name(attribute.type)} to {Value.Type.Name(known.type)}"
            return f"{_NOT_PERMITTED}Type of attribute '{attribute.name}' changed from {types}"
        if not _includes(known, attribute) if attribute.type == Value.RANGES else _shown(known) != _shown(attribute):
            return (
                f"{_NOT_PERMITTED}Value of {Value.Type.Name(known.type).lower()} attribute '{attribute.name}' changed "
                f"from {_shown(attribute)} to {_shown(known)}"
            )
    return None


def _key(resource: Resource) -> tuple[str, str, int]:
    return resource.name, resource.role, resource.type


def _includes(now: Resource | Attribute, before: Resource | Attribute) -> bool:
    if before.type == Value.RANGES:
        return all(any(first <= begin and end <= last for first, last in _pairs(now)) for begin, end in _pairs(before))
    return not isinstance(before, Resource) or not isinstance(now, Resource) or {*before.set.item} <= {*now.set.item}


def _pairs(found: Resource | Attribute) -> list[tuple[int, int]]:
    """The ranges, those that touch as one."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted((each.begin, each.end) for each in found.ranges.range):
        if joined and begin <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((begin, end))
    return joined


def _shown(found: Resource | Attribute) -> str:
    if found.type == Value.SCALAR:
        return f"{found.scalar.value:.12g}"
    if found.type == Value.RANGES:
        return f"[{_joined(f'{begin}-{end}' for begin, end in _pairs(found))}]"
    return f"{{{_joined(sorted(found.set.item))}}}" if isinstance(found, Resource) else found.text.value


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(texts)
