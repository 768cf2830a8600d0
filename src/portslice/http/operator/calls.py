"""The calls of the agent's operator API, and what each may say."""

from typing import Any

from portslice.http.operator.messages import ANY, BOOL, DURATION, INT32, TEXT, UINT32, UINT64, Schema

_ID = {"value!": TEXT, "parent": ANY}
_CONTAINER = {"container_id!": _ID}
_KILL = {"container_id!": _ID, "signal": INT32}
_VARIABLE = {"name!": TEXT, "value": TEXT, "type": TEXT, "secret": ANY}
_URI = {"value!": TEXT, "executable": BOOL, "extract": BOOL, "cache": BOOL, "output_file": TEXT}
_COMMAND = {
    "uris": [_URI],
    "environment": {"variables": [_VARIABLE]},
    "shell": BOOL,
    "value": TEXT,
    "arguments": [TEXT],
    "user": TEXT,
}
_ARGUMENTS: dict[str, Any] = {
    "GET_METRICS": {"timeout": DURATION},
    "SET_LOGGING_LEVEL": {"level!": UINT32, "duration!": DURATION},
    "LIST_FILES": {"path!": TEXT},
    "READ_FILE": {"path!": TEXT, "offset!": UINT64, "length": UINT64},
    "GET_CONTAINERS": {"show_nested": BOOL, "show_standalone": BOOL},
    "LAUNCH_CONTAINER": {"container_id!": _ID, "command": _COMMAND, "resources": [ANY], "container": ANY},
    "WAIT_CONTAINER": _CONTAINER,
    "KILL_CONTAINER": _KILL,
    "REMOVE_CONTAINER": _CONTAINER,
    "WAIT_NESTED_CONTAINER": _CONTAINER,
    "KILL_NESTED_CONTAINER": _KILL,
    "REMOVE_NESTED_CONTAINER": _CONTAINER,
    "ATTACH_CONTAINER_OUTPUT": _CONTAINER,
}
_OPTIONAL = {"GET_CONTAINERS"}  # whose argument need not be there
_WITHOUT = {
    "GET_HEALTH", "GET_FLAGS", "GET_VERSION", "GET_LOGGING_LEVEL", "GET_STATE", "GET_FRAMEWORKS", "GET_EXECUTORS",
    "GET_TASKS", "GET_AGENT", "GET_OPERATIONS", "GET_RESOURCE_PROVIDERS",
}  # fmt: skip
_NOT_HERE = {
    "UNKNOWN", "LAUNCH_NESTED_CONTAINER", "LAUNCH_NESTED_CONTAINER_SESSION", "ATTACH_CONTAINER_INPUT", "PRUNE_IMAGES",
    "ADD_RESOURCE_PROVIDER_CONFIG", "UPDATE_RESOURCE_PROVIDER_CONFIG", "REMOVE_RESOURCE_PROVIDER_CONFIG",
    "MARK_RESOURCE_PROVIDER_GONE",
}  # fmt: skip

AGENT = Schema("agent", _ARGUMENTS, _WITHOUT, _NOT_HERE, _OPTIONAL)
