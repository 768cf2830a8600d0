from portslice.engines.mesos.schema import mesos_pb2 as _mesos_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OfferID(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: str
    def __init__(self, value: _Optional[str] = ...) -> None: ...

class Filters(_message.Message):
    __slots__ = ("refuse_seconds",)
    REFUSE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    refuse_seconds: float
    def __init__(self, refuse_seconds: _Optional[float] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("type", "launch", "launch_group")
    class Launch(_message.Message):
        __slots__ = ("task_infos",)
        TASK_INFOS_FIELD_NUMBER: _ClassVar[int]
        task_infos: _containers.RepeatedCompositeFieldContainer[_mesos_pb2.TaskInfo]
        def __init__(self, task_infos: _Optional[_Iterable[_Union[_mesos_pb2.TaskInfo, _Mapping]]] = ...) -> None: ...
    class LaunchGroup(_message.Message):
        __slots__ = ("executor", "task_group")
        EXECUTOR_FIELD_NUMBER: _ClassVar[int]
        TASK_GROUP_FIELD_NUMBER: _ClassVar[int]
        executor: _mesos_pb2.ExecutorInfo
        task_group: _mesos_pb2.TaskGroupInfo
        def __init__(self, executor: _Optional[_Union[_mesos_pb2.ExecutorInfo, _Mapping]] = ..., task_group: _Optional[_Union[_mesos_pb2.TaskGroupInfo, _Mapping]] = ...) -> None: ...
    TYPE_FIELD_NUMBER: _ClassVar[int]
    LAUNCH_FIELD_NUMBER: _ClassVar[int]
    LAUNCH_GROUP_FIELD_NUMBER: _ClassVar[int]
    type: str
    launch: Operation.Launch
    launch_group: Operation.LaunchGroup
    def __init__(self, type: _Optional[str] = ..., launch: _Optional[_Union[Operation.Launch, _Mapping]] = ..., launch_group: _Optional[_Union[Operation.LaunchGroup, _Mapping]] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("type", "framework_id", "subscribe", "accept", "decline", "revive", "suppress", "kill", "shutdown", "acknowledge", "reconcile", "message")
    class Subscribe(_message.Message):
        __slots__ = ("framework_info", "suppressed_roles")
        FRAMEWORK_INFO_FIELD_NUMBER: _ClassVar[int]
        SUPPRESSED_ROLES_FIELD_NUMBER: _ClassVar[int]
        framework_info: _mesos_pb2.FrameworkInfo
        suppressed_roles: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, framework_info: _Optional[_Union[_mesos_pb2.FrameworkInfo, _Mapping]] = ..., suppressed_roles: _Optional[_Iterable[str]] = ...) -> None: ...
    class Accept(_message.Message):
        __slots__ = ("offer_ids", "operations", "filters")
        OFFER_IDS_FIELD_NUMBER: _ClassVar[int]
        OPERATIONS_FIELD_NUMBER: _ClassVar[int]
        FILTERS_FIELD_NUMBER: _ClassVar[int]
        offer_ids: _containers.RepeatedCompositeFieldContainer[OfferID]
        operations: _containers.RepeatedCompositeFieldContainer[Operation]
        filters: Filters
        def __init__(self, offer_ids: _Optional[_Iterable[_Union[OfferID, _Mapping]]] = ..., operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ..., filters: _Optional[_Union[Filters, _Mapping]] = ...) -> None: ...
    class Decline(_message.Message):
        __slots__ = ("offer_ids", "filters")
        OFFER_IDS_FIELD_NUMBER: _ClassVar[int]
        FILTERS_FIELD_NUMBER: _ClassVar[int]
        offer_ids: _containers.RepeatedCompositeFieldContainer[OfferID]
        filters: Filters
        def __init__(self, offer_ids: _Optional[_Iterable[_Union[OfferID, _Mapping]]] = ..., filters: _Optional[_Union[Filters, _Mapping]] = ...) -> None: ...
    class Roles(_message.Message):
        __slots__ = ("roles",)
        ROLES_FIELD_NUMBER: _ClassVar[int]
        roles: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, roles: _Optional[_Iterable[str]] = ...) -> None: ...
    class Kill(_message.Message):
        __slots__ = ("task_id", "slave_id", "kill_policy")
        TASK_ID_FIELD_NUMBER: _ClassVar[int]
        SLAVE_ID_FIELD_NUMBER: _ClassVar[int]
        KILL_POLICY_FIELD_NUMBER: _ClassVar[int]
        task_id: _mesos_pb2.TaskID
        slave_id: _mesos_pb2.SlaveID
        kill_policy: _mesos_pb2.KillPolicy
        def __init__(self, task_id: _Optional[_Union[_mesos_pb2.TaskID, _Mapping]] = ..., slave_id: _Optional[_Union[_mesos_pb2.SlaveID, _Mapping]] = ..., kill_policy: _Optional[_Union[_mesos_pb2.KillPolicy, _Mapping]] = ...) -> None: ...
    class Shutdown(_message.Message):
        __slots__ = ("executor_id", "slave_id")
        EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
        SLAVE_ID_FIELD_NUMBER: _ClassVar[int]
        executor_id: _mesos_pb2.ExecutorID
        slave_id: _mesos_pb2.SlaveID
        def __init__(self, executor_id: _Optional[_Union[_mesos_pb2.ExecutorID, _Mapping]] = ..., slave_id: _Optional[_Union[_mesos_pb2.SlaveID, _Mapping]] = ...) -> None: ...
    class Acknowledge(_message.Message):
        __slots__ = ("slave_id", "task_id", "uuid")
        SLAVE_ID_FIELD_NUMBER: _ClassVar[int]
        TASK_ID_FIELD_NUMBER: _ClassVar[int]
        UUID_FIELD_NUMBER: _ClassVar[int]
        slave_id: _mesos_pb2.SlaveID
        task_id: _mesos_pb2.TaskID
        uuid: bytes
        def __init__(self, slave_id: _Optional[_Union[_mesos_pb2.SlaveID, _Mapping]] = ..., task_id: _Optional[_Union[_mesos_pb2.TaskID, _Mapping]] = ..., uuid: _Optional[bytes] = ...) -> None: ...
    class Reconcile(_message.Message):
        __slots__ = ("tasks",)
        class Task(_message.Message):
            __slots__ = ("task_id", "slave_id")
            TASK_ID_FIELD_NUMBER: _ClassVar[int]
            SLAVE_ID_FIELD_NUMBER: _ClassVar[int]
            task_id: _mesos_pb2.TaskID
            slave_id: _mesos_pb2.SlaveID
            def __init__(self, task_id: _Optional[_Union[_mesos_pb2.TaskID, _Mapping]] = ..., slave_id: _Optional[_Union[_mesos_pb2.SlaveID, _Mapping]] = ...) -> None: ...
        TASKS_FIELD_NUMBER: _ClassVar[int]
        tasks: _containers.RepeatedCompositeFieldContainer[Call.Reconcile.Task]
        def __init__(self, tasks: _Optional[_Iterable[_Union[Call.Reconcile.Task, _Mapping]]] = ...) -> None: ...
    class Message(_message.Message):
        __slots__ = ("slave_id", "executor_id", "data")
        SLAVE_ID_FIELD_NUMBER: _ClassVar[int]
        EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
        DATA_FIELD_NUMBER: _ClassVar[int]
        slave_id: _mesos_pb2.SlaveID
        executor_id: _mesos_pb2.ExecutorID
        data: bytes
        def __init__(self, slave_id: _Optional[_Union[_mesos_pb2.SlaveID, _Mapping]] = ..., executor_id: _Optional[_Union[_mesos_pb2.ExecutorID, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...
    TYPE_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_ID_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    DECLINE_FIELD_NUMBER: _ClassVar[int]
    REVIVE_FIELD_NUMBER: _ClassVar[int]
    SUPPRESS_FIELD_NUMBER: _ClassVar[int]
    KILL_FIELD_NUMBER: _ClassVar[int]
    SHUTDOWN_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGE_FIELD_NUMBER: _ClassVar[int]
    RECONCILE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    type: str
    framework_id: _mesos_pb2.FrameworkID
    subscribe: Call.Subscribe
    accept: Call.Accept
    decline: Call.Decline
    revive: Call.Roles
    suppress: Call.Roles
    kill: Call.Kill
    shutdown: Call.Shutdown
    acknowledge: Call.Acknowledge
    reconcile: Call.Reconcile
    message: Call.Message
    def __init__(self, type: _Optional[str] = ..., framework_id: _Optional[_Union[_mesos_pb2.FrameworkID, _Mapping]] = ..., subscribe: _Optional[_Union[Call.Subscribe, _Mapping]] = ..., accept: _Optional[_Union[Call.Accept, _Mapping]] = ..., decline: _Optional[_Union[Call.Decline, _Mapping]] = ..., revive: _Optional[_Union[Call.Roles, _Mapping]] = ..., suppress: _Optional[_Union[Call.Roles, _Mapping]] = ..., kill: _Optional[_Union[Call.Kill, _Mapping]] = ..., shutdown: _Optional[_Union[Call.Shutdown, _Mapping]] = ..., acknowledge: _Optional[_Union[Call.Acknowledge, _Mapping]] = ..., reconcile: _Optional[_Union[Call.Reconcile, _Mapping]] = ..., message: _Optional[_Union[Call.Message, _Mapping]] = ...) -> None: ...
