"""Who takes more memory than is its due: the container ends, and it is said why."""

import re
import signal
import sys

from portslice.demo.node import Node

MB = 1 << 20
HOG = "import sys; held = bytearray(int(sys.argv[1]) << 20); print(len(held))"
SURVIVOR = "import subprocess, sys, time; subprocess.run([sys.executable, '-c', sys.argv[1], '200']); time.sleep(1000)"
MESSAGE = r"Memory limit exceeded: Requested: 64MB Maximum Used: \d+[KM]?B\n\nMEMORY STATISTICS: \n(\w+ \d+\n)+"


def test_who_runs_out_of_memory_is_ended(agent: Node) -> None:
    """Whether the kernel killed its first process, or another one, which the others would have survived."""
    python = sys.executable
    agent.launch("modest", python, "-c", HOG, "8", mem=64 * MB)
    agent.launch("hog", python, "-c", HOG, "200", mem=64 * MB)
    agent.launch("survivor", python, "-c", SURVIVOR, HOG, mem=64 * MB)
    assert agent.client.wait("modest")["exit_status"] == 0
    for name in ("hog", "survivor"):
        ended = agent.client.wait(name)
        assert ended["exit_status"] == 128 + signal.SIGKILL
        assert re.fullmatch(MESSAGE, ended["message"])
        assert int(re.search(r"Used: (\d+)", ended["message"])[1]) > 0  # type: ignore[index]
    assert "exited (137: Memory limit exceeded: Requested: 64MB" in agent.cli("ps", "--all").stdout
    assert agent.get("/metrics/snapshot")["slave/tasks_failed"] == 2
