from portslice.engines.mesos.schema import mesos_pb2 as _mesos_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RegisterSlaveMessage(_message.Message):
    __slots__ = ("slave", "version", "agent_capabilities", "resource_version_uuid")
    SLAVE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AGENT_CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_VERSION_UUID_FIELD_NUMBER: _ClassVar[int]
    slave: _mesos_pb2.SlaveInfo
    version: str
    agent_capabilities: _containers.RepeatedCompositeFieldContainer[_mesos_pb2.SlaveInfo.Capability]
    resource_version_uuid: _mesos_pb2.UUID
    def __init__(self, slave: _Optional[_Union[_mesos_pb2.SlaveInfo, _Mapping]] = ..., version: _Optional[str] = ..., agent_capabilities: _Optional[_Iterable[_Union[_mesos_pb2.SlaveInfo.Capability, _Mapping]]] = ..., resource_version_uuid: _Optional[_Union[_mesos_pb2.UUID, _Mapping]] = ...) -> None: ...

class ReregisterSlaveMessage(_message.Message):
    __slots__ = ("slave", "tasks", "executor_infos", "version", "frameworks", "agent_capabilities", "resource_version_uuid")
    SLAVE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_INFOS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORKS_FIELD_NUMBER: _ClassVar[int]
    AGENT_CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_VERSION_UUID_FIELD_NUMBER: _ClassVar[int]
    slave: _mesos_pb2.SlaveInfo
    tasks: _containers.RepeatedCompositeFieldContainer[_mesos_pb2.Task]
    executor_infos: _containers.RepeatedCompositeFieldContainer[_mesos_pb2.ExecutorInfo]
    version: str
    frameworks: _containers.RepeatedCompositeFieldContainer[_mesos_pb2.FrameworkInfo]
    agent_capabilities: _containers.RepeatedCompositeFieldContainer[_mesos_pb2.SlaveInfo.Capability]
    resource_version_uuid: _mesos_pb2.UUID
    def __init__(self, slave: _Optional[_Union[_mesos_pb2.SlaveInfo, _Mapping]] = ..., tasks: _Optional[_Iterable[_Union[_mesos_pb2.Task, _Mapping]]] = ..., executor_infos: _Optional[_Iterable[_Union[_mesos_pb2.ExecutorInfo, _Mapping]]] = ..., version: _Optional[str] = ..., frameworks: _Optional[_Iterable[_Union[_mesos_pb2.FrameworkInfo, _Mapping]]] = ..., agent_capabilities: _Optional[_Iterable[_Union[_mesos_pb2.SlaveInfo.Capability, _Mapping]]] = ..., resource_version_uuid: _Optional[_Union[_mesos_pb2.UUID, _Mapping]] = ...) -> None: ...

class MasterSlaveConnection(_message.Message):
    __slots__ = ("total_ping_timeout_seconds",)
    TOTAL_PING_TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    total_ping_timeout_seconds: float
    def __init__(self, total_ping_timeout_seconds: _Optional[float] = ...) -> None: ...

class SlaveRegisteredMessage(_message.Message):
    __slots__ = ("slave_id", "connection")
    SLAVE_ID_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    slave_id: _mesos_pb2.SlaveID
    connection: MasterSlaveConnection
    def __init__(self, slave_id: _Optional[_Union[_mesos_pb2.SlaveID, _Mapping]] = ..., connection: _Optional[_Union[MasterSlaveConnection, _Mapping]] = ...) -> None: ...

class ReconcileTasksMessage(_message.Message):
    __slots__ = ("framework_id", "statuses", "framework")
    FRAMEWORK_ID_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    framework_id: _mesos_pb2.FrameworkID
    statuses: _containers.RepeatedCompositeFieldContainer[_mesos_pb2.TaskStatus]
    framework: _mesos_pb2.FrameworkInfo
    def __init__(self, framework_id: _Optional[_Union[_mesos_pb2.FrameworkID, _Mapping]] = ..., statuses: _Optional[_Iterable[_Union[_mesos_pb2.TaskStatus, _Mapping]]] = ..., framework: _Optional[_Union[_mesos_pb2.FrameworkInfo, _Mapping]] = ...) -> None: ...

class SlaveReregisteredMessage(_message.Message):
    __slots__ = ("slave_id", "reconciliations", "connection")
    SLAVE_ID_FIELD_NUMBER: _ClassVar[int]
    RECONCILIATIONS_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    slave_id: _mesos_pb2.SlaveID
    reconciliations: _containers.RepeatedCompositeFieldContainer[ReconcileTasksMessage]
    connection: MasterSlaveConnection
    def __init__(self, slave_id: _Optional[_Union[_mesos_pb2.SlaveID, _Mapping]] = ..., reconciliations: _Optional[_Iterable[_Union[ReconcileTasksMessage, _Mapping]]] = ..., connection: _Optional[_Union[MasterSlaveConnection, _Mapping]] = ...) -> None: ...

class UnregisterSlaveMessage(_message.Message):
    __slots__ = ("slave_id",)
    SLAVE_ID_FIELD_NUMBER: _ClassVar[int]
    slave_id: _mesos_pb2.SlaveID
    def __init__(self, slave_id: _Optional[_Union[_mesos_pb2.SlaveID, _Mapping]] = ...) -> None: ...

class PingSlaveMessage(_message.Message):
    __slots__ = ("connected",)
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    connected: bool
    def __init__(self, connected: _Optional[bool] = ...) -> None: ...

class PongSlaveMessage(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointResourcesMessage(_message.Message):
    __slots__ = ("resources",)
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    resources: _containers.RepeatedCompositeFieldContainer[_mesos_pb2.Resource]
    def __init__(self, resources: _Optional[_Iterable[_Union[_mesos_pb2.Resource, _Mapping]]] = ...) -> None: ...

class ShutdownMessage(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class UpdateFrameworkMessage(_message.Message):
    __slots__ = ("framework_id", "pid", "framework_info")
    FRAMEWORK_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_INFO_FIELD_NUMBER: _ClassVar[int]
    framework_id: _mesos_pb2.FrameworkID
    pid: str
    framework_info: _mesos_pb2.FrameworkInfo
    def __init__(self, framework_id: _Optional[_Union[_mesos_pb2.FrameworkID, _Mapping]] = ..., pid: _Optional[str] = ..., framework_info: _Optional[_Union[_mesos_pb2.FrameworkInfo, _Mapping]] = ...) -> None: ...

class ShutdownFrameworkMessage(_message.Message):
    __slots__ = ("framework_id",)
    FRAMEWORK_ID_FIELD_NUMBER: _ClassVar[int]
    framework_id: _mesos_pb2.FrameworkID
    def __init__(self, framework_id: _Optional[_Union[_mesos_pb2.FrameworkID, _Mapping]] = ...) -> None: ...

class RunTaskMessage(_message.Message):
    __slots__ = ("framework_id", "framework", "pid", "task", "launch_executor")
    FRAMEWORK_ID_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LAUNCH_EXECUTOR_FIELD_NUMBER: _ClassVar[int]
    framework_id: _mesos_pb2.FrameworkID
    framework: _mesos_pb2.FrameworkInfo
    pid: str
    task: _mesos_pb2.TaskInfo
    launch_executor: bool
    def __init__(self, framework_id: _Optional[_Union[_mesos_pb2.FrameworkID, _Mapping]] = ..., framework: _Optional[_Union[_mesos_pb2.FrameworkInfo, _Mapping]] = ..., pid: _Optional[str] = ..., task: _Optional[_Union[_mesos_pb2.TaskInfo, _Mapping]] = ..., launch_executor: _Optional[bool] = ...) -> None: ...

class RunTaskGroupMessage(_message.Message):
    __slots__ = ("framework", "executor", "task_group", "launch_executor")
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_FIELD_NUMBER: _ClassVar[int]
    TASK_GROUP_FIELD_NUMBER: _ClassVar[int]
    LAUNCH_EXECUTOR_FIELD_NUMBER: _ClassVar[int]
    framework: _mesos_pb2.FrameworkInfo
    executor: _mesos_pb2.ExecutorInfo
    task_group: _mesos_pb2.TaskGroupInfo
    launch_executor: bool
    def __init__(self, framework: _Optional[_Union[_mesos_pb2.FrameworkInfo, _Mapping]] = ..., executor: _Optional[_Union[_mesos_pb2.ExecutorInfo, _Mapping]] = ..., task_group: _Optional[_Union[_mesos_pb2.TaskGroupInfo, _Mapping]] = ..., launch_executor: _Optional[bool] = ...) -> None: ...

class KillTaskMessage(_message.Message):
    __slots__ = ("framework_id", "task_id", "kill_policy")
    FRAMEWORK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    KILL_POLICY_FIELD_NUMBER: _ClassVar[int]
    framework_id: _mesos_pb2.FrameworkID
    task_id: _mesos_pb2.TaskID
    kill_policy: _mesos_pb2.KillPolicy
    def __init__(self, framework_id: _Optional[_Union[_mesos_pb2.FrameworkID, _Mapping]] = ..., task_id: _Optional[_Union[_mesos_pb2.TaskID, _Mapping]] = ..., kill_policy: _Optional[_Union[_mesos_pb2.KillPolicy, _Mapping]] = ...) -> None: ...

class StatusUpdate(_message.Message):
    __slots__ = ("framework_id", "executor_id", "slave_id", "status", "timestamp", "uuid", "latest_state")
    FRAMEWORK_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
    SLAVE_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    UUID_FIELD_NUMBER: _ClassVar[int]
    LATEST_STATE_FIELD_NUMBER: _ClassVar[int]
    framework_id: _mesos_pb2.FrameworkID
    executor_id: _mesos_pb2.ExecutorID
    slave_id: _mesos_pb2.SlaveID
    status: _mesos_pb2.TaskStatus
    timestamp: float
    uuid: bytes
    latest_state: _mesos_pb2.TaskState
    def __init__(self, framework_id: _Optional[_Union[_mesos_pb2.FrameworkID, _Mapping]] = ..., executor_id: _Optional[_Union[_mesos_pb2.ExecutorID, _Mapping]] = ..., slave_id: _Optional[_Union[_mesos_pb2.SlaveID, _Mapping]] = ..., status: _Optional[_Union[_mesos_pb2.TaskStatus, _Mapping]] = ..., timestamp: _Optional[float] = ..., uuid: _Optional[bytes] = ..., latest_state: _Optional[_Union[_mesos_pb2.TaskState, str]] = ...) -> None: ...

class StatusUpdateMessage(_message.Message):
    __slots__ = ("update", "pid")
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    update: StatusUpdate
    pid: str
    def __init__(self, update: _Optional[_Union[StatusUpdate, _Mapping]] = ..., pid: _Optional[str] = ...) -> None: ...

class StatusUpdateAcknowledgementMessage(_message.Message):
    __slots__ = ("slave_id", "framework_id", "task_id", "uuid")
    SLAVE_ID_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    UUID_FIELD_NUMBER: _ClassVar[int]
    slave_id: _mesos_pb2.SlaveID
    framework_id: _mesos_pb2.FrameworkID
    task_id: _mesos_pb2.TaskID
    uuid: bytes
    def __init__(self, slave_id: _Optional[_Union[_mesos_pb2.SlaveID, _Mapping]] = ..., framework_id: _Optional[_Union[_mesos_pb2.FrameworkID, _Mapping]] = ..., task_id: _Optional[_Union[_mesos_pb2.TaskID, _Mapping]] = ..., uuid: _Optional[bytes] = ...) -> None: ...

class ShutdownExecutorMessage(_message.Message):
    __slots__ = ("executor_id", "framework_id")
    EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_ID_FIELD_NUMBER: _ClassVar[int]
    executor_id: _mesos_pb2.ExecutorID
    framework_id: _mesos_pb2.FrameworkID
    def __init__(self, executor_id: _Optional[_Union[_mesos_pb2.ExecutorID, _Mapping]] = ..., framework_id: _Optional[_Union[_mesos_pb2.FrameworkID, _Mapping]] = ...) -> None: ...

class ExitedExecutorMessage(_message.Message):
    __slots__ = ("slave_id", "framework_id", "executor_id", "status")
    SLAVE_ID_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    slave_id: _mesos_pb2.SlaveID
    framework_id: _mesos_pb2.FrameworkID
    executor_id: _mesos_pb2.ExecutorID
    status: int
    def __init__(self, slave_id: _Optional[_Union[_mesos_pb2.SlaveID, _Mapping]] = ..., framework_id: _Optional[_Union[_mesos_pb2.FrameworkID, _Mapping]] = ..., executor_id: _Optional[_Union[_mesos_pb2.ExecutorID, _Mapping]] = ..., status: _Optional[int] = ...) -> None: ...

class FrameworkToExecutorMessage(_message.Message):
    __slots__ = ("slave_id", "framework_id", "executor_id", "data")
    SLAVE_ID_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    slave_id: _mesos_pb2.SlaveID
    framework_id: _mesos_pb2.FrameworkID
    executor_id: _mesos_pb2.ExecutorID
    data: bytes
    def __init__(self, slave_id: _Optional[_Union[_mesos_pb2.SlaveID, _Mapping]] = ..., framework_id: _Optional[_Union[_mesos_pb2.FrameworkID, _Mapping]] = ..., executor_id: _Optional[_Union[_mesos_pb2.ExecutorID, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ExecutorToFrameworkMessage(_message.Message):
    __slots__ = ("slave_id", "framework_id", "executor_id", "data")
    SLAVE_ID_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    slave_id: _mesos_pb2.SlaveID
    framework_id: _mesos_pb2.FrameworkID
    executor_id: _mesos_pb2.ExecutorID
    data: bytes
    def __init__(self, slave_id: _Optional[_Union[_mesos_pb2.SlaveID, _Mapping]] = ..., framework_id: _Optional[_Union[_mesos_pb2.FrameworkID, _Mapping]] = ..., executor_id: _Optional[_Union[_mesos_pb2.ExecutorID, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...
