"""Whatever happens in whatever order, a master never offers what somebody has."""

import asyncio
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from portslice.engines.master.bundle import Bundle
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.engines.mesos.schema.mesos_pb2 import TASK_FINISHED, TASK_RUNNING
from tests.unit.test_master_executors import EXECUTOR, OWN, World, resources

AMOUNTS = st.sampled_from([0.1, 1.0, 2.5, 9.0])
NAMES = st.sampled_from("abcd")
EXECUTORS = st.sampled_from([None, "e", "f"])


class History(RuleBasedStateMachine):
    """A master, an agent that is told of as it has heard, and a framework."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.loop.run_until_complete(self._begin())

    async def _begin(self) -> None:
        self.world = World(Path(self.directory.name))
        self.tasks: dict[str, Any] = {}  # what the agent has
        self.executors: dict[str, Any] = {}

    def teardown(self) -> None:
        self.loop.close()
        self.directory.cleanup()

    def _do(self, what: Any) -> None:
        async def work() -> None:
            what()

        self.loop.run_until_complete(work())
        self._hear()

    def _hear(self) -> None:
        for run in self.world.wire.take(messages.RunTaskMessage):
            self._run(run, [run.task], run.task.executor if run.task.HasField("executor") else None)
        for run in self.world.wire.take(messages.RunTaskGroupMessage):
            self._run(run, run.task_group.tasks, run.executor)

    def _run(self, run: Any, tasks: Any, executor: Any) -> None:
        if executor is not None:
            assert run.launch_executor == (executor.executor_id.value not in self.executors)
            self.executors.setdefault(executor.executor_id.value, executor)
        self.tasks.update((task.task_id.value, task) for task in tasks)

    @rule(tasks=st.lists(st.tuples(NAMES, EXECUTORS, AMOUNTS), max_size=3), own=AMOUNTS)
    def launch(self, tasks: list[tuple[str, str | None, float]], own: float) -> None:
        infos = []
        for name, executor, cpus in tasks:
            known = self.executors.get(executor or "")
            amount = known.resources[0].scalar.value if known is not None else own
            info = EXECUTOR | {"executor_id": {"value": executor}, "resources": resources(cpus=amount)}
            infos.append(self.world.task(name, info if executor else None, resources=resources(cpus=cpus)))
        self._do(lambda: self.world.launch(*infos))

    @rule(names=st.lists(NAMES, min_size=1, max_size=3, unique=True), name=st.sampled_from(["d", "e"]), cpus=AMOUNTS)
    def group(self, names: list[str], name: str, cpus: float) -> None:
        members = [self.world.task(each, resources=resources(cpus=cpus)) for each in names]
        self._do(lambda: self.world.group(self.world.default(name) | {"resources": resources(**OWN)}, *members))

    @rule(name=NAMES, ends=st.booleans())
    def update(self, name: str, ends: bool) -> None:
        if name in self.tasks:
            self._do(lambda: self.world.updated(name, TASK_FINISHED if ends else TASK_RUNNING))
            if ends:
                del self.tasks[name]
                self._do(self._acknowledge(name))

    def _acknowledge(self, name: str) -> Any:
        task = self.world.framework.tasks[name]
        return lambda: self.world.master.tasks.acknowledge(
            self.world.framework, self.world.agent.id, task.task_id, name.encode()
        )

    @precondition(lambda self: self.executors)
    @rule(data=st.data())
    def exit(self, data: st.DataObject) -> None:
        """Its tasks end with it."""
        name = data.draw(st.sampled_from(sorted(self.executors)))
        del self.executors[name]
        for each in [each for each in self.tasks.values() if each.executor.executor_id.value == name]:
            self.update(each.task_id.value, ends=True)
        self._do(lambda: self.world.exited(name))

    @rule()
    def decline(self) -> None:
        framework = self.world.framework
        self._do(lambda: self.world.master.launching.decline(framework, list(framework.offers), 0))

    @rule(lost=st.booleans())
    def come_back(self, lost: bool) -> None:
        """The agent's connection ends, or it was thought to be lost; it comes back with what it has."""

        def work() -> None:
            tasks = deepcopy(self.world.agent.tasks)
            if lost:
                self.world.master.membership.lost(self.world.agent)
                self.world.agent.tasks = tasks
            else:
                self.world.master.membership.disconnected(self.world.agent)
            self.world.come_back(*self.executors.values())

        self._do(work)

    @rule()
    def look(self) -> None:
        self._do(self.world.master.offers.make)

    @invariant()
    def never_offers_what_somebody_has(self) -> None:
        agent, framework = self.world.agent, self.world.framework
        has = sum((Bundle.of(each.resources) for each in (*self.tasks.values(), *self.executors.values())), Bundle())
        assert agent.used().amounts == framework.used().amounts == has.amounts
        assert agent.offered().amounts == framework.offered().amounts
        assert agent.used() + agent.offered() <= agent.total
        assert all(offer.agent is agent and offer.framework is framework for offer in framework.offers.values())
        assert {owner for owner, _ in agent.tasks} | {owner for owner, _ in agent.executors} <= {framework.id}
        assert {name for _, name in agent.executors} == {name for _, name in framework.executors} == set(self.executors)


TestHistories = History.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
