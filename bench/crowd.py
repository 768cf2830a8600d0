"""A host with an agent and many containers on it, each with a block of 32 ephemeral ports and one assigned port."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.report import progress
from portslice.demo.node import Node, node
from portslice.demo.testbed import Testbed, testbed

BLOCK = 32
MAX_CONTAINERS = 1000  # of 1,024 blocks
_FLAGS = (
    "--resources=ephemeral_ports:[6144-38911];ports:[38912-40959]",
    f"--ephemeral_ports_per_container={BLOCK}",
)


class Crowd:
    """The containers of one agent, in the order of their launch."""

    def __init__(self, agent: Node) -> None:
        self.agent = agent
        self.containers: list[dict[str, Any]] = []

    @property
    def bed(self) -> Testbed:
        """The host that they are on, and its world."""
        return self.agent.bed

    def launch(self, count: int) -> list[float]:
        """Launch so many more, one after another; how long each took, in seconds."""
        times = []
        for _ in range(count):
            began = time.perf_counter()
            self.containers.append(self.agent.launch(f"c{len(self.containers)}", ports=1))
            times.append(time.perf_counter() - began)
            if len(self.containers) % 100 == 0:
                progress(f"{len(self.containers)} containers run; the last 100 took {sum(times[-100:]):.1f} s")
        return times

    def namespace(self, number: int) -> Path:
        """The network namespace of a container; its number may be negative, as an index."""
        return self.agent.namespace(self.containers[number])

    def port(self, number: int) -> int:
        """Its assigned port."""
        return int(self.containers[number]["ports"][0][0])


@contextmanager
def crowd(*flags: str) -> Iterator[Crowd]:
    """An agent without containers yet, on a testbed of its own; all of it is gone afterwards."""
    with testbed() as bed, node(bed, *_FLAGS, *flags) as agent:
        yield Crowd(agent)


def cpu_secs(pid: int) -> float:
    """What a process has used of the CPUs so far (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> tuple[int, int]:
    """(resident, proportional) memory of a process: what many share is counted to each in part in the latter."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        found[name] = int(value.split()[0]) * 1024
    return found["Rss"], found["Pss"]
