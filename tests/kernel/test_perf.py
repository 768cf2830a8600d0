"""cgroups/perf_event: what perf(1) counts in a container's cgroup, against what its own process says that it did.

No machine that the tests run on need have counters in hardware: events of the kernel's own are everywhere.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from portslice.agent import startup
from portslice.agent.flags import AgentFlags
from portslice.containers import helper
from portslice.demo.node import Node, node
from portslice.demo.testbed import testbed
from portslice.flags import load
from tests.kernel.calling import about, call
from tests.kernel.waiting import until

EVENTS = "task-clock,page-faults,cs"
INTERVAL_SECS, DURATION_SECS = 2, 1
FLAGS = (f"--perf_interval={INTERVAL_SECS}secs", f"--perf_duration={DURATION_SECS}secs")

# Touches new pages in bursts, and notes what the kernel says of the process itself (getrusage(2)).
WORK = """
import mmap, resource, time
while True:
    with mmap.mmap(-1, 100 * 4096) as area:
        for page in range(100): area[page * 4096] = 1
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(time.time(), used.ru_minflt, used.ru_nvcsw + used.ru_nivcsw, used.ru_utime + used.ru_stime, flush=True)
    time.sleep(0.005)
"""


class Noted(NamedTuple):
    """What the process had done by a time."""

    time: float
    page_faults: int
    context_switches: int
    cpu_secs: float


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    isolation = "--isolation=cgroups/cpu,cgroups/perf_event"
    with testbed() as bed, node(bed, isolation, f"--perf_events={EVENTS}", *FLAGS) as agent:
        yield agent


def perf(agent: Node, name: str) -> dict[str, Any]:
    return dict(agent.statistics(name)["perf"])


def counted(agent: Node, name: str) -> dict[str, Any] | None:
    """A container's figures, once there are any."""
    found = perf(agent, name)
    return found if found["duration"] else None


def notes(container: dict[str, Any]) -> list[Noted]:
    lines = Path(container["sandbox"], "stdout").read_text().splitlines(keepends=True)
    words = [line.split() for line in lines if line.endswith("\n")]
    return [Noted(float(when), int(faults), int(switches), float(cpu)) for when, faults, switches, cpu in words]


def running(agent: Node) -> list[int]:
    """The agent's perf, and what perf waits for."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if words[0] == "perf" and any(agent.cgroups_root in word for word in words):
                children = (process / "task" / process.name / "children").read_text().split()
                found += [int(process.name), *map(int, children)]
        except OSError:
            continue  # it has ended
    return found


def test_counts_are_those_of_the_process(agent: Node) -> None:
    """Not less than in the quietest second of the time in question, and not more than in all of it."""
    worker = agent.launch("worker", "python3", "-c", WORK)
    agent.launch("idle")
    until(lambda: notes(worker), "a beginning")
    began = time.time()

    def sample() -> dict[str, Any] | None:
        found = perf(agent, "worker")
        return found if found["timestamp"] > began else None

    found = until(sample, "a sample")
    assert found.keys() == {"timestamp", "duration", "task_clock", "page_faults", "context_switches"}
    assert {name: type(value) for name, value in found.items() if name != "timestamp"} == {
        "duration": float,
        "task_clock": float,
        "page_faults": int,
        "context_switches": int,
    }
    assert found["duration"] == DURATION_SECS
    done = [each for each in notes(worker) if each.time >= found["timestamp"] - 1]
    ends = [next((end for end in done if end.time >= first.time + DURATION_SECS), None) for first in done]
    pairs = [(first, end) for first, end in zip(done, ends, strict=True) if end is not None]
    for of_the_process, of_perf, unit in (
        ("page_faults", "page_faults", 1),
        ("context_switches", "context_switches", 1),
        ("cpu_secs", "task_clock", 1000),
    ):
        least = min(getattr(end, of_the_process) - getattr(first, of_the_process) for first, end in pairs) * unit
        most = (getattr(done[-1], of_the_process) - getattr(done[0], of_the_process)) * unit
        assert 0.9 * least <= found[of_perf] <= 1.1 * most, of_perf
    idle = until(lambda: counted(agent, "idle"), "a sample of the other")
    assert idle["page_faults"] == 0
    assert idle["context_switches"] < 20, "its init looks around once a second"


@pytest.mark.native
def test_one_that_hangs_is_not_the_last(agent: Node) -> None:
    """MESOS-3423. Until it is given up nothing is known of a container that has just come."""
    agent.launch("c")
    stopped = until(lambda: running(agent), "perf")[0]
    os.kill(stopped, signal.SIGSTOP)
    late = agent.launch("late")
    assert perf(agent, "late") == {"timestamp": late["created"], "duration": 0.0}
    assert '"perf":{"duration":0.0,"timestamp":' in agent.bed.run(
        agent.bed.host, "curl", "-sS", "http://127.0.0.1:5051/monitor/statistics"
    ).stdout
    text = f"Perf sample of {DURATION_SECS}secs failed to complete within {INTERVAL_SECS + 1}secs"
    until(lambda: text in agent.log, "an end of patience")
    assert not Path(f"/proc/{stopped}").exists()
    until(lambda: counted(agent, "late"), "the next sample")


def test_an_id_that_perf_cannot_read_costs_others_nothing(agent: Node) -> None:
    command = {"value": "exec sleep 1000"}
    assert call(agent, "LAUNCH_CONTAINER", **about("a,b"), command=command).status == 200
    agent.launch("c")
    until(lambda: counted(agent, "c"), "a sample")
    assert agent.client.statistics("a,b")["statistics"]["perf"]["duration"] == 0.0


def test_a_container_that_ends_meanwhile_is_no_error(agent: Node) -> None:
    agent.launch("stays")
    before = agent.log
    for _ in range(2):
        agent.launch("goes")
        until(lambda: running(agent), "perf")
        agent.kill("goes")
        since = time.time()
        until(lambda since=since: perf(agent, "stays")["timestamp"] > since - DURATION_SECS, "a sample")  # type: ignore[misc]
    new = agent.log[len(before) :]
    assert "Failed to" not in new


@pytest.mark.native
def test_nothing_outlives_the_agent(agent: Node) -> None:
    agent.launch("c")
    for end in (agent.stop, agent.crash):
        processes = until(lambda: found if len(found := running(agent)) > 1 else None, "perf and its sleep")
        end()
        until(lambda found=processes: not [pid for pid in found if Path(f"/proc/{pid}").exists()], "their end")  # type: ignore[misc]
        agent.start()
    assert perf(agent, "c")["duration"] == 0.0


def flags(*given: str) -> AgentFlags:
    return load(AgentFlags, ["--isolation=cgroups/perf_event", *given], {})[0]


REFUSED = {
    "interval": (
        (f"--perf_events={EVENTS}", "--perf_interval=1secs"),
        "Sampling perf for duration (10secs) > interval (1secs) is not supported.",
    ),
    "event": (
        ("--perf_events=task-clock,nonsense",),
        "Invalid perf events: { nonsense, task-clock }: event syntax error",
    ),
    "field": (
        ("--perf_events=dummy",),
        "Invalid perf events: { dummy }: Failed to parse perf sample: Unexpected event 'dummy' in perf output",
    ),
    "duration": (
        (f"--perf_events={EVENTS}", "--perf_duration=0ns"),
        "--perf_duration=0ns is too short: it should not be smaller than 20ms",
    ),
}


@pytest.mark.native
@pytest.mark.parametrize(("given", "text"), REFUSED.values(), ids=REFUSED)
def test_refused(given: tuple[str, ...], text: str) -> None:
    with pytest.raises(startup.StartupError) as error:
        startup.isolators(flags(*given))
    words = "Could not create MesosContainerizer: Failed to create isolator 'cgroups/perf_event': "
    assert str(error.value).startswith(f"Failed to create a containerizer: {words}{text}")


@pytest.mark.native
def test_without_perf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody misses it unless there is something to count."""
    monkeypatch.setitem(helper.ENVIRONMENT, "PATH", str(tmp_path))
    startup.isolators(flags())
    with pytest.raises(startup.StartupError, match=r"Perf is not supported: .*: apt-get install linux-perf"):
        startup.isolators(flags(f"--perf_events={EVENTS}"))
