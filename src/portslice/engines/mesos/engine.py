"""The agent as one of a Mesos cluster: `--master`.

This is the process `slave(1)` of libprocess. It puts the parts together: `registration` keeps the master, `tasks` and
`executors` what runs here, `executor_api` hears executors, `meta` is what is on disk, and each message that comes in
(`wire.Inbox`) is one call of one of them.

The agent tells that it is a Mesos 1.11.0 agent, whose interface this is, with the capabilities that only say how
resources and roles are spelt. It has none of those that would have the master send more kinds of messages.

SIGUSR1, or the master's wish, ends the agent: its tasks are ended, and the next agent here is a new one to the master.
"""

import asyncio
import logging
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from aiohttp import web
from google.protobuf.message import Message

from portslice.agent import offer
from portslice.agent.service import Agent
from portslice.background import report
from portslice.engines.mesos import compatibility, resources, v1
from portslice.engines.mesos.authentication import Authentication, RefusedError, Timeouts
from portslice.engines.mesos.detector import detector
from portslice.engines.mesos.executor_api import ExecutorApi
from portslice.engines.mesos.meta import Meta, checked_id
from portslice.engines.mesos.registration import Registration
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.schema.capacity_pb2 import Capacity
from portslice.engines.mesos.schema.mesos_pb2 import TASK_ERROR, UUID, SlaveID, SlaveInfo, TaskInfo, TaskStatus
from portslice.engines.mesos.tasks import Tasks
from portslice.engines.mesos.view import View
from portslice.engines.mesos.wire import Inbox, Pid
from portslice.errors import ParseError, PortsliceError
from portslice.http.version import MESOS_VERSION
from portslice.ports import BlockAllocator
from portslice.units import Duration

log = logging.getLogger(__name__)

PROCESS = "slave(1)"
CAPABILITIES = (
    SlaveInfo.Capability.MULTI_ROLE,
    SlaveInfo.Capability.HIERARCHICAL_ROLE,
    SlaveInfo.Capability.RESERVATION_REFINEMENT,
)

MAX_UNSENT_MESSAGES = 4 << 20  # bytes
REREGISTRATION_TIMEOUT_MAX = Duration.parse("15secs")

_M = TypeVar("_M", bound=Message)


class MesosEngine:
    """The agent's part in a cluster."""

    def __init__(self, agent: Agent) -> None:
        """:raises PortsliceError: the flags do not fit."""
        flags = agent.flags
        if not flags.port:
            raise PortsliceError("--master needs a fixed --port: the master sends to it")
        if flags.executor_reregistration_timeout > REREGISTRATION_TIMEOUT_MAX:
            raise PortsliceError(
                f"Expected `--executor_reregistration_timeout` to be not more than {REREGISTRATION_TIMEOUT_MAX}"
            )
        variables = flags.executor_environment_variables or {}
        if not all(isinstance(value, str) for value in variables.values()):
            raise PortsliceError("`executor_environment_variables` must only contain string values")
        if flags.authenticatee != "crammd5":
            raise PortsliceError(
                f"Could not create authenticatee module '{flags.authenticatee}': crammd5 is the only one"
            )
        self._agent = agent
        self._detector = detector(flags.master or "", flags.zk_session_timeout.seconds)
        self._offer = offer.of(flags)
        self._meta = Meta(flags.work_dir)
        self._check_reconfiguration()
        self._resource_version = UUID(value=uuid.uuid4().bytes)
        self._inbox = Inbox(PROCESS)
        self._registration = Registration(
            self._detector,
            self._inbox,
            flags.port,
            ip=flags.ip,
            backoff_secs=flags.registration_backoff_factor.seconds,
            announcement=self._announcement,
        )
        if flags.credential is not None:
            timeouts = Timeouts(
                flags.authentication_timeout_min.seconds,
                flags.authentication_timeout_max.seconds,
                flags.authentication_backoff_factor.seconds,
            )
            self._registration.authentication = Authentication(
                flags.credential, timeouts, self._inbox, self._registration.send
            )
        self._tasks = Tasks(
            agent,
            self._meta,
            send=self._send_update,
            exited=self._registration.send,  # also behind an announcement that still tells of it
            ip=lambda: self._registration.ip,
            environment=self._environment,
        )
        self._executor_api = ExecutorApi(
            agent,
            self._tasks.executors,
            recovered=lambda: self._tasks.recovered,
            info=lambda: self._info(self._meta.slave_id),
            forward=self._forward,
        )
        agent.cluster = View(self._meta, self._registration, self._tasks, CAPABILITIES)
        self._stop: Callable[[], None] = lambda: None
        self._ending: asyncio.Task[None] | None = None
        self._refused: RefusedError | None = None
        self._listen()

    def _check_reconfiguration(self) -> None:
        flags, known = self._agent.flags, self._meta.info
        if flags.reconfiguration_policy not in compatibility.POLICIES:
            raise PortsliceError(
                f"Unknown --reconfiguration_policy '{flags.reconfiguration_policy}': it is "
                f"{' or '.join(compatibility.POLICIES)}"
            )
        if known is not None and flags.recover != "cleanup":
            current = self._info(known.id)
            compatibility.check(known, current, flags.reconfiguration_policy, self._meta.latest)

    def routes(self) -> list[web.RouteDef]:
        """Where the master's messages go, and the executors' calls."""
        return [*self._inbox.routes(), *self._executor_api.routes()]

    @asynccontextmanager
    async def running(self, stop: Callable[[], None]) -> AsyncIterator[None]:
        """Inside the block the agent belongs to the cluster.

        :raises RefusedError: behind it: the master does not know --credential. Tasks go on.
        """
        self._stop = stop
        self._tasks.recover()
        registering = asyncio.create_task(self._registration.run())
        registering.add_done_callback(self._not_registering)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._unregister)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)
            registering.cancel()
            self._tasks.close()
            await self._detector.close()
        if self._refused is not None:
            raise self._refused

    # What the master sends

    def _listen(self) -> None:
        tasks, executors = self._tasks, self._tasks.executors
        self._on(messages.SlaveRegisteredMessage, self._registered)
        self._on(messages.SlaveReregisteredMessage, self._reregistered)
        self._on(messages.RunTaskMessage, self._run_task)
        self._on(messages.RunTaskGroupMessage, self._run_task_group)
        self._on(
            messages.KillTaskMessage,
            lambda m: tasks.kill(m.framework_id, m.task_id, m.kill_policy if m.HasField("kill_policy") else None),
        )
        self._on(
            messages.ShutdownExecutorMessage,
            lambda m: tasks.shut_down_executor(m.framework_id, m.executor_id),
        )
        self._on(
            messages.FrameworkToExecutorMessage, lambda m: executors.tell(m.framework_id, m.executor_id, m.data)
        )
        self._on(
            messages.StatusUpdateAcknowledgementMessage, lambda m: tasks.acknowledge(m.framework_id, m.task_id, m.uuid)
        )
        self._on(messages.UpdateFrameworkMessage, self._update_framework)
        self._on(messages.ShutdownFrameworkMessage, lambda m: tasks.shut_down(m.framework_id))
        self._on(messages.CheckpointResourcesMessage, lambda _: None)  # there are none that are made while it runs
        self._on(messages.ShutdownMessage, lambda m: self._end(f"The master asks to shut down: {m.message[:1000]}"))

    def _on(self, kind: type[_M], handler: Callable[[_M], object]) -> None:
        def handle(_sender: Pid, message: Message) -> None:
            handler(cast(_M, message))

        self._inbox.on(kind, handle)

    def _registered(self, message: messages.SlaveRegisteredMessage) -> None:
        known = self._meta.slave_id
        if known is None:
            try:
                checked_id(message.slave_id.value)
            except ParseError as error:
                log.error("Ignoring the master's answer: %s", error)
                return
            log.info("Registered with master; given agent ID %s", message.slave_id.value)
            self._meta.register(self._info(message.slave_id))
        elif known != message.slave_id:
            self._end(f"Registered but got wrong id: {message.slave_id.value[:100]} (expected: {known.value})")
            return
        self._welcome(message.connection)

    def _reregistered(self, message: messages.SlaveReregisteredMessage) -> None:
        known = self._meta.slave_id
        if known != message.slave_id:
            self._end(f"Re-registered but got wrong id: {message.slave_id.value[:100]}")
            return
        log.info("Re-registered with master as %s", message.slave_id.value)
        self._meta.register(self._info(message.slave_id))  # it may be more than it was
        if not self._welcome(message.connection):
            return
        for reconciliation in message.reconciliations:
            self._tasks.reconcile(reconciliation)

    def _welcome(self, connection: messages.MasterSlaveConnection) -> bool:
        """Whether it is news: a try that was repeated is answered twice, with the same."""
        again = self._registration.registered
        self._registration.accepted(connection)
        if not again:
            self._tasks.ledger.resend()
        return not again

    def _run_task(self, message: messages.RunTaskMessage) -> None:
        log.info("Got assigned task '%s' for framework %s", message.task.task_id.value, message.framework.id.value)
        ids = [message.task.executor.executor_id.value] if message.task.HasField("executor") else []
        if self._can_be_told(message, [message.task]) and self._is_for_us(
            message.framework.id.value, message.task, *ids
        ):
            launch = message.launch_executor or not message.HasField("launch_executor")
            self._tasks.run(message.framework, message.task, launch_executor=launch)

    def _run_task_group(self, message: messages.RunTaskGroupMessage) -> None:
        framework, executor, group = message.framework, message.executor, message.task_group
        names = ", ".join(f"'{task.task_id.value}'" for task in group.tasks)
        log.info("Got assigned task group containing tasks [%s] for framework %s", names, framework.id.value)
        ids = framework.id.value, executor.executor_id.value
        if not self._can_be_told(message, group.tasks):
            return
        if group.tasks and all(self._is_for_us(ids[0], task, ids[1]) for task in group.tasks):
            launch = message.launch_executor or not message.HasField("launch_executor")
            self._tasks.run_group(framework, executor, group, launch_executor=launch)

    def _can_be_told(
        self, message: messages.RunTaskMessage | messages.RunTaskGroupMessage, tasks: Iterable[TaskInfo]
    ) -> bool:
        """A framework may say what no endpoint could hand on; Mesos' master passes it through."""
        try:
            v1.check(message)
        except ParseError as error:
            for task in tasks:
                log.warning("Refusing the task %.100r: %s", task.task_id.value, error)
                if isinstance(task.task_id.value, str) and isinstance(message.framework.id.value, str):
                    why, reason = f"Task is invalid: {error}", TaskStatus.REASON_TASK_INVALID
                    self._tasks.ledger.send_once(message.framework.id, task.task_id, TASK_ERROR, why, reason)
            return False
        return True

    def _is_for_us(self, framework_id: str, task: Any, *ids: str) -> bool:
        try:
            for each in (framework_id, task.task_id.value, *ids):
                checked_id(each)
        except ParseError as error:
            log.warning("Ignoring a task: %s", error)
            return False
        if task.slave_id != self._meta.slave_id:
            log.warning("Ignoring the task '%s' for another agent, %s", task.task_id.value, task.slave_id.value[:100])
            return False
        return self._ending is None

    def _update_framework(self, message: messages.UpdateFrameworkMessage) -> None:
        try:
            v1.check(message)
        except ParseError as error:
            log.warning("Ignoring an update of the framework %.100r: %s", message.framework_id.value, error)
            return
        if message.HasField("framework_info"):
            for each in (self._tasks.ledger, self._tasks.executors):
                each.update_framework(message.framework_id, message.framework_info)

    # What the master is sent

    def _info(self, slave_id: SlaveID | None) -> SlaveInfo:
        return SlaveInfo(
            hostname=self._agent.hostname,
            port=self._agent.flags.port,
            resources=map(resources.resource, self._offer.resources),
            attributes=resources.attributes(self._offer.attributes),
            id=slave_id,
            checkpoint=True,
        )

    def _announcement(self) -> Message:
        slave_id = self._meta.slave_id
        capabilities = [SlaveInfo.Capability(type=kind) for kind in CAPABILITIES]
        message: Message
        if slave_id is None:
            message = messages.RegisterSlaveMessage(
                slave=self._info(None),
                version=MESOS_VERSION,
                agent_capabilities=capabilities,
                resource_version_uuid=self._resource_version,
            )
        else:
            message = messages.ReregisterSlaveMessage(
                slave=self._info(slave_id),
                tasks=self._tasks.tasks(),
                executor_infos=self._tasks.executors.infos(),
                frameworks=self._tasks.frameworks(),
                version=MESOS_VERSION,
                agent_capabilities=capabilities,
                resource_version_uuid=self._resource_version,
            )
        message.MergeFromString(self._capacity().SerializeToString())
        return message

    def _capacity(self) -> Capacity:
        """For a master of ours: how many containers there are blocks for."""
        ephemeral = self._offer.resources.ports("ephemeral_ports")
        if self._agent.port_mapping is None or ephemeral is None:
            return Capacity()
        blocks = BlockAllocator(ephemeral, self._agent.flags.ephemeral_ports_per_container)
        return Capacity(containers=blocks.capacity)

    def _send_update(self, update: messages.StatusUpdate) -> None:
        if self._registration.registered:
            self._registration.send(messages.StatusUpdateMessage(update=update, pid=str(self._registration.pid)))

    def _forward(self, message: messages.ExecutorToFrameworkMessage) -> None:
        """Mesos promises nothing of these. They are not to take the place of what must be sent."""
        link = self._inbox.link
        if link is None or link.unsent > MAX_UNSENT_MESSAGES:
            log.warning("Dropping a message of the executor '%s'", message.executor_id.value)
        elif self._registration.registered:
            self._registration.send(message)

    def _environment(self) -> dict[str, str]:
        """Of every executor (slave/containerizer, `executorEnvironment`)."""
        pid = self._registration.pid
        if pid is None:
            return {}
        return {
            **(self._agent.flags.executor_environment_variables or {}),
            "LIBPROCESS_IP": pid.ip,
            "LIBPROCESS_PORT": "0",
            "MESOS_AGENT_ENDPOINT": f"{pid.ip}:{pid.port}",
            "MESOS_CONTAINER_IP": pid.ip,
            "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": str(self._agent.flags.executor_shutdown_grace_period),
            "MESOS_HTTP_COMMAND_EXECUTOR": "0",
            "MESOS_SLAVE_PID": str(pid),
        }

    # The end

    def _unregister(self) -> None:
        slave_id = self._meta.slave_id
        if slave_id is not None:
            self._registration.send(messages.UnregisterSlaveMessage(slave_id=slave_id))
        self._end("Received SIGUSR1 signal; unregistering and shutting down")

    def _end(self, why: str) -> None:
        """End the tasks and the agent."""
        if self._ending is None:
            log.warning("%s", why)
            self._ending = asyncio.create_task(self._end_all())
            self._ending.add_done_callback(report)

    def _not_registering(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and isinstance(error := task.exception(), RefusedError):
            self._refused = error
            self._stop()
        else:
            report(task)

    async def _end_all(self) -> None:
        await self._registration.flush()
        await self._tasks.end_all()
        self._meta.unregister()
        self._stop()
