"""The calls of the master's operator API, and what each may say."""

from typing import Any

from portslice.http.operator.messages import ANY, DURATION, TEXT, UINT32, UINT64, Schema

_ARGUMENTS: dict[str, Any] = {
    "GET_METRICS": {"timeout": DURATION},
    "SET_LOGGING_LEVEL": {"level!": UINT32, "duration!": DURATION},
    "TEARDOWN": {"framework_id!": {"value!": TEXT}},
    # What Mesos knows and this master does not serve.
    "LIST_FILES": {"path!": TEXT},
    "READ_FILE": {"path!": TEXT, "offset!": UINT64, "length": UINT64},
    "UPDATE_WEIGHTS": ANY,
    "RESERVE_RESOURCES": ANY,
    "UNRESERVE_RESOURCES": ANY,
    "CREATE_VOLUMES": ANY,
    "DESTROY_VOLUMES": ANY,
    "GROW_VOLUME": ANY,
    "SHRINK_VOLUME": ANY,
    "UPDATE_MAINTENANCE_SCHEDULE": ANY,
    "START_MAINTENANCE": ANY,
    "STOP_MAINTENANCE": ANY,
    "DRAIN_AGENT": ANY,
    "DEACTIVATE_AGENT": ANY,
    "REACTIVATE_AGENT": ANY,
    "SET_QUOTA": ANY,
    "REMOVE_QUOTA": ANY,
    "UPDATE_QUOTA": ANY,
    "MARK_AGENT_GONE": ANY,
}
_WITHOUT = {
    "GET_HEALTH", "GET_FLAGS", "GET_VERSION", "GET_LOGGING_LEVEL", "GET_STATE", "GET_AGENTS", "GET_FRAMEWORKS",
    "GET_EXECUTORS", "GET_OPERATIONS", "GET_TASKS", "GET_ROLES", "GET_WEIGHTS", "GET_MASTER",
    "GET_MAINTENANCE_STATUS", "GET_MAINTENANCE_SCHEDULE", "GET_QUOTA", "SUBSCRIBE",
}  # fmt: skip

MASTER = Schema("master", _ARGUMENTS, _WITHOUT, {"UNKNOWN"})
