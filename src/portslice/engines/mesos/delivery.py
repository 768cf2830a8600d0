"""What executors are sent to run, and what their containers have for it.

A container has what its executor and the living tasks ask for: it is changed before a task is delivered and after one
has ended, its ports with the traffic going on. What it cannot be given, the task that asks for it is refused; the
others are none the worse for it.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable
from dataclasses import replace

from portslice.agent.service import Agent
from portslice.containers.container import Change, Container
from portslice.engines.mesos import commands
from portslice.engines.mesos.commands import Amounts
from portslice.engines.mesos.executor import Executor
from portslice.engines.mesos.ledger import Entry, Ledger
from portslice.engines.mesos.schema.executor_pb2 import Event
from portslice.engines.mesos.schema.mesos_pb2 import TASK_FAILED, TaskStatus
from portslice.errors import PortsliceError

log = logging.getLogger(__name__)


class Delivery:
    """Of queued tasks to subscribed executors."""

    def __init__(self, agent: Agent, ledger: Ledger) -> None:
        self._agent = agent
        self._ledger = ledger

    async def deliver(self, executor: Executor) -> None:
        """Deliver the queued tasks of a subscribed executor."""
        async with executor.delivering:
            units = _units(self._ledger.of_executor(executor.key))
            together = await self._fit(executor, [entry for unit in units for entry in unit]) is None
            for unit in units:
                problem = None if together else await self._fit(executor, unit)
                if executor.subscription is None or executor.record.ending:
                    return
                if problem is not None:
                    self._refuse(unit, problem)
                elif not any(entry.ended for entry in unit):  # that is: killed meanwhile
                    self._hand_over(executor, unit)
            await self._fit(executor)

    def _refuse(self, unit: list[Entry], problem: str) -> None:
        message = f"Failed to update resources for container: {problem}"
        for entry in unit:
            self._ledger.say(entry, TASK_FAILED, message=message, reason=TaskStatus.REASON_CONTAINER_UPDATE_FAILED)

    def _hand_over(self, executor: Executor, unit: list[Entry]) -> None:
        for entry in unit:
            entry.container = executor.container
            entry.record.delivered = True
            self._ledger.save(entry)
        executor.send(_launch(unit))

    async def shrink(self, executor: Executor) -> None:
        """Take from the container what a task had that has ended."""
        async with executor.delivering:
            await self._fit(executor)

    async def _fit(self, executor: Executor, more: Collection[Entry] = ()) -> str | None:
        """Let the container have what its executor and the delivered tasks ask for, and those besides.

        :return: why it has not, if it has not.
        """
        container = executor.container
        if container is None or executor.record.ended:
            return None
        living = [each for each in self._ledger.of_executor(executor.key) if each.record.delivered and not each.ended]
        try:
            wanted = commands.amounts(executor.record.executor, [each.record.task for each in (*living, *more)])
            if wanted != executor.has:
                await asyncio.to_thread(self._change, container, wanted, with_less=not more)
                executor.has = wanted
        except PortsliceError as error:
            log.warning("The container of the %s cannot be updated: %s", executor, error)
            return str(error)
        return None

    def _change(self, container: Container, wanted: Amounts, *, with_less: bool) -> None:
        """:param with_less: memory that is used, and so cannot be taken, is left; the rest is taken all the same."""
        change = Change(cpus=wanted.cpus, mem=wanted.mem, disk=wanted.disk, ports=wanted.ports)
        try:
            self._agent.containerizer.update(container.id, change)
        except PortsliceError:
            if not with_less:
                raise
            self._agent.containerizer.update(container.id, replace(change, mem=None))


def _units(entries: Iterable[Entry]) -> list[list[Entry]]:
    """What is to be delivered, task groups together."""
    units: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        if not entry.record.delivered and not entry.ended:
            units.setdefault(unit_of(entry), []).append(entry)
    return list(units.values())


def unit_of(entry: Entry) -> tuple[str, ...]:
    """The ids of the tasks that are delivered together with this one."""
    return tuple(each.value for each in entry.record.group) or (entry.key[1],)


def _launch(unit: list[Entry]) -> Event:
    tasks = [entry.record.task for entry in unit]
    if unit[0].record.group:
        return Event(type=Event.LAUNCH_GROUP, launch_group=Event.LaunchGroup(task_group={"tasks": tasks}))
    return Event(type=Event.LAUNCH, launch=Event.Launch(task=tasks[0]))
