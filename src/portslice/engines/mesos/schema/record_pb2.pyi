from portslice.engines.mesos.schema import mesos_pb2 as _mesos_pb2
from portslice.engines.mesos.schema import messages_pb2 as _messages_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskRecord(_message.Message):
    __slots__ = ("framework", "task", "updates", "acknowledged", "killed", "received", "executor_id", "group", "delivered", "kill_policy")
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    KILLED_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    KILL_POLICY_FIELD_NUMBER: _ClassVar[int]
    framework: _mesos_pb2.FrameworkInfo
    task: _mesos_pb2.TaskInfo
    updates: _containers.RepeatedCompositeFieldContainer[_messages_pb2.StatusUpdate]
    acknowledged: int
    killed: bool
    received: float
    executor_id: _mesos_pb2.ExecutorID
    group: _containers.RepeatedCompositeFieldContainer[_mesos_pb2.TaskID]
    delivered: bool
    kill_policy: _mesos_pb2.KillPolicy
    def __init__(self, framework: _Optional[_Union[_mesos_pb2.FrameworkInfo, _Mapping]] = ..., task: _Optional[_Union[_mesos_pb2.TaskInfo, _Mapping]] = ..., updates: _Optional[_Iterable[_Union[_messages_pb2.StatusUpdate, _Mapping]]] = ..., acknowledged: _Optional[int] = ..., killed: _Optional[bool] = ..., received: _Optional[float] = ..., executor_id: _Optional[_Union[_mesos_pb2.ExecutorID, _Mapping]] = ..., group: _Optional[_Iterable[_Union[_mesos_pb2.TaskID, _Mapping]]] = ..., delivered: _Optional[bool] = ..., kill_policy: _Optional[_Union[_mesos_pb2.KillPolicy, _Mapping]] = ...) -> None: ...

class ExecutorRecord(_message.Message):
    __slots__ = ("framework", "executor", "slave_id", "received", "subscribed", "ending", "ended", "command")
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_FIELD_NUMBER: _ClassVar[int]
    SLAVE_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBED_FIELD_NUMBER: _ClassVar[int]
    ENDING_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    framework: _mesos_pb2.FrameworkInfo
    executor: _mesos_pb2.ExecutorInfo
    slave_id: _mesos_pb2.SlaveID
    received: float
    subscribed: bool
    ending: bool
    ended: bool
    command: bool
    def __init__(self, framework: _Optional[_Union[_mesos_pb2.FrameworkInfo, _Mapping]] = ..., executor: _Optional[_Union[_mesos_pb2.ExecutorInfo, _Mapping]] = ..., slave_id: _Optional[_Union[_mesos_pb2.SlaveID, _Mapping]] = ..., received: _Optional[float] = ..., subscribed: _Optional[bool] = ..., ending: _Optional[bool] = ..., ended: _Optional[bool] = ..., command: _Optional[bool] = ...) -> None: ...
