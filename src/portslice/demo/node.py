"""An agent on the testbed's host: started, asked, stopped, killed, and cleaned up after.

Everything it writes is below the testbed's directory, but for its cgroups, whose root has a name of its own.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import Any

from portslice.cli.client import Client
from portslice.demo.testbed import Testbed
from portslice.errors import PortsliceError

RESOURCES = "ports:[31000-32000];ephemeral_ports:[32768-57344]"
ISOLATION = "cgroups/cpu,cgroups/mem,network/port_mapping"
_PROGRAM = (sys.executable, "-m", "portslice")
_START_SECS = 180.0  # an emulated machine is slow
_CLEANUP_SECS = 300.0  # so many containers that it takes a while


class Node:
    """One agent and its directories."""

    def __init__(self, bed: Testbed, *flags: str, name: str = "node") -> None:
        """:param flags: of the agent, besides directories; --isolation and --resources have defaults here."""
        self.bed = bed
        self.directory = bed.directory / name
        self.cgroups_root = f"{bed.directory.name}-{name}"
        given = {flag.partition("=")[0] for flag in flags}
        defaults = {"--isolation": ISOLATION, "--resources": RESOURCES}
        self.flags = [
            f"--work_dir={self.directory / 'work'}",
            f"--runtime_dir={self.runtime}",
            f"--cgroups_root={self.cgroups_root}",
            *(f"{flag}={value}" for flag, value in defaults.items() if flag not in given),
            *flags,
        ]
        self.process: subprocess.Popen[Any] | None = None
        self.client = Client(self.socket)

    @property
    def runtime(self) -> Path:
        """--runtime_dir."""
        return self.directory / "run"

    @property
    def command(self) -> list[str]:
        """The command line that starts the agent."""
        return [*_PROGRAM, "agent", *self.flags]

    @property
    def socket(self) -> Path:
        """The agent's socket."""
        return self.runtime / "agent.sock"

    @property
    def log(self) -> str:
        """All that the agents of this node wrote to standard error."""
        path = self.directory / "agent.log"
        return path.read_text() if path.exists() else ""

    def start(self) -> None:
        """Start the agent and wait until it answers.

        :raises RuntimeError: it ended instead; with its log.
        """
        self.directory.mkdir(exist_ok=True)
        with (self.directory / "agent.log").open("a") as log:
            self.process = self.bed.start(self.bed.host, *self.command, stderr=log)
        deadline = time.monotonic() + _START_SECS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"The agent ended with status {self.process.returncode}:\n{self.log}")
            try:
                self.client.containers()
                return
            except (PortsliceError, OSError):
                time.sleep(0.02)
        raise RuntimeError(f"The agent does not answer:\n{self.log}")

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def crash(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def agent(self, *flags: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run an agent to its end, with these flags after the node's own."""
        return self.bed.run(self.bed.host, *self.command, *flags, check=False, timeout=timeout)

    def cli(self, *arguments: str, timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a `portslice` command against this agent."""
        environment = {**os.environ, "PORTSLICE_SOCKET": str(self.socket)}
        result = subprocess.run(
            [*_PROGRAM, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and result.returncode != 0:
            raise RuntimeError(f"portslice {' '.join(arguments)}: {result.returncode}\n{result.stdout}{result.stderr}")
        return result

    def launch(self, name: str, *command: str, **request: Any) -> dict[str, Any]:
        """Start a container over the socket; `command` defaults to one that only waits."""
        return self.client.launch({"name": name, "command": list(command) or ["sleep", "infinity"], **request})

    def kill(self, *names: str) -> None:
        """Kill containers and wait for their end."""
        for name in names:
            self.client.kill(name, "SIGKILL")
            self.client.wait(name)

    def namespace(self, container: dict[str, Any]) -> Path:
        """A container's network namespace, for the testbed's `run`."""
        return self.runtime / "netns" / str(container["id"])

    def get(self, path: str, *, namespace: Path | None = None) -> Any:
        """A JSON endpoint of the agent over TCP, as a host process (or one in `namespace`) reads it."""
        where = namespace or self.bed.host
        return json.loads(self.bed.run(where, "curl", "-sS", "--fail", f"http://127.0.0.1:5051{path}").stdout)

    def statistics(self, name: str) -> dict[str, Any]:
        """A container's statistics from /monitor/statistics."""
        elements = self.get("/monitor/statistics")
        return dict(next(each["statistics"] for each in elements if each["executor_id"] == name))

    def drops(self, name: str) -> dict[str, int]:
        """Refused packets of a container by reason."""
        return dict(self.client.statistics(name)["drops"]["counts"])

    def cleanup(self) -> list[str]:
        """Stop the agent, end its containers, take everything from the host; what is left nevertheless, in words."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        result = self.agent("--recover=cleanup", timeout=_CLEANUP_SECS)
        problems = [] if result.returncode == 0 else [f"--recover=cleanup: {result.stderr}"]
        return problems + self.leftovers()

    def leftovers(self) -> list[str]:
        """Links, filters, reserved ports, mounts, cgroups and processes of ours that still are there."""
        left = []
        for line in self.bed.run(self.bed.host, "ip", "-o", "link", "show", "type", "veth").stdout.splitlines():
            if line.split(": ")[1].startswith("ps"):
                left.append(f"link {line.split(': ')[1]}")
        for device in ("eth0", "lo"):
            filters = self.bed.run(self.bed.host, "tc", "filter", "show", "dev", device, "ingress", check=False).stdout
            if filters.strip():
                left.append(f"filter on {device}: {filters.strip()}")
        if (self.runtime / "reserved_ports.json").exists():
            left.append("reserved ports")
        for line in Path("/proc/self/mounts").read_text().splitlines():
            if line.split()[1].startswith(f"{self.directory}/"):
                left.append(f"mount {line.split()[1]}")
        # not Path.glob, which fails when a directory of somebody else's goes away meanwhile
        left += [f"cgroup {path}" for path in glob(f"/sys/fs/cgroup/**/{self.cgroups_root}", recursive=True)]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.runtime) in command and int(process.name) != os.getpid():
                left.append(f"process {process.name} {command}")
        return left


@contextmanager
def node(bed: Testbed, *flags: str, name: str = "node") -> Iterator[Node]:
    """A started agent that is cleaned up after.

    :raises RuntimeError: it did not start, or something of it is left.
    """
    agent = Node(bed, *flags, name=name)
    try:
        agent.start()
        yield agent
    finally:
        left = agent.cleanup()
    if left:
        raise RuntimeError("The agent left behind: " + "; ".join(left))
