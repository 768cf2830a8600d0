"""`portslice master` in a testbed's namespace, with the interface of `tests.mesos.master`."""

import json
import signal
import subprocess
import sys
from typing import Any

from portslice.demo.testbed import Testbed
from tests.kernel.waiting import until

PORT = 5050


class OwnMaster:
    """The master, which can be stopped and started again on the same registry.

    :param flags: of the master; names as its own.
    """

    def __init__(self, bed: Testbed, ip: str, **flags: str) -> None:
        self.bed = bed
        self.ip = ip
        self.directory = bed.directory / "own-master"
        self._flags = flags
        self._process: subprocess.Popen[Any] | None = None

    @property
    def address(self) -> str:
        """For --master."""
        return f"{self.ip}:{PORT}"

    @property
    def log(self) -> str:
        """All that it wrote."""
        return (self.directory / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.directory.mkdir(exist_ok=True)
        settings = {"ip": self.ip, "port": str(PORT), "work_dir": str(self.directory / "work"), **self._flags}
        flags = [f"--{name}={value}" for name, value in settings.items()]
        command = (sys.executable, "-m", "portslice", "master", *flags)
        with (self.directory / "log").open("a") as log:
            process = self.bed.start(self.bed.host, *command, stderr=log)
        self._process = process
        health = ("curl", "-sS", "--fail", f"http://{self.address}/health")
        until(
            lambda: process.poll() is not None or self.bed.run(self.bed.host, *health, check=False).returncode == 0,
            "master",
        )
        assert process.poll() is None, f"The master did not start:\n{self.log[-4000:]}"

    def stop(self) -> None:
        """End it; the registry stays."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(10) == 0

    def pause(self) -> None:
        """Let it hear and say nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def get(self, path: str) -> Any:
        """One of its JSON endpoints."""
        url = f"http://{self.address}/master{path}"
        return json.loads(self.bed.run(self.bed.host, "curl", "-sS", "--fail", url).stdout)

    def agents(self) -> list[dict[str, Any]]:
        """The agents that are connected."""
        return [each for each in self.get("/slaves")["slaves"] if each["active"]]
