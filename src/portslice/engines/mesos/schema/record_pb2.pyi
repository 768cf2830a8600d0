from portslice.engines.mesos.schema import mesos_pb2 as _mesos_pb2
from portslice.engines.mesos.schema import messages_pb2 as _messages_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskRecord(_message.Message):
    __slots__ = ("framework", "task", "updates", "acknowledged", "killed", "received")
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    KILLED_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    framework: _mesos_pb2.FrameworkInfo
    task: _mesos_pb2.TaskInfo
    updates: _containers.RepeatedCompositeFieldContainer[_messages_pb2.StatusUpdate]
    acknowledged: int
    killed: bool
    received: float
    def __init__(self, framework: _Optional[_Union[_mesos_pb2.FrameworkInfo, _Mapping]] = ..., task: _Optional[_Union[_mesos_pb2.TaskInfo, _Mapping]] = ..., updates: _Optional[_Iterable[_Union[_messages_pb2.StatusUpdate, _Mapping]]] = ..., acknowledged: _Optional[int] = ..., killed: _Optional[bool] = ..., received: _Optional[float] = ...) -> None: ...
