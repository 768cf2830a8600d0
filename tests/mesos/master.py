"""A Mesos master in a testbed's namespace: what every one has in common, and the genuine one of Apache."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from portslice.demo.testbed import Testbed
from tests.kernel.waiting import until
from tests.mesos import install

PORT = 5050
_INSIDE = Path(__file__).with_name("inside.py")


class AnyMaster:
    """A master, which can be stopped and started again on the same registry.

    :param flags: of the master; names as its own.
    """

    def __init__(self, bed: Testbed, ip: str, **flags: str) -> None:
        self.bed = bed
        self.ip = ip
        self.directory = bed.directory / type(self).__name__
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
        """Start it and wait until it is the master."""
        raise NotImplementedError

    def stop(self) -> int:
        """End it; the registry stays. The exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)

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


class Master(AnyMaster):
    """The genuine one."""

    def __init__(self, bed: Testbed, ip: str, **flags: str) -> None:
        super().__init__(bed, ip, **flags)
        self._python = install.python27()
        self._libmesos = install.install()

    def start(self) -> None:
        """Start it and wait until it is elected."""
        self.directory.mkdir(exist_ok=True)
        settings = {
            "num_slaves": "0",
            "port": str(PORT),
            "work_dir": str(self.directory / "work"),
            "registration_backoff_factor": "10ms",
            **self._flags,
        }
        environment = {
            **os.environ,
            **install.environment(self._libmesos),
            **{f"MESOS_{name.upper()}": value for name, value in settings.items()},
            "LIBPROCESS_IP": self.ip,
            "LIBPROCESS_PORT": str(PORT),
        }
        # It wants to know the host's name and the address's, and there is no name server.
        hosts = self.directory / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{self.ip} {socket.gethostname()}\n")
        named = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts))
        command = (*named, str(self._python), str(_INSIDE))
        with (self.directory / "out").open("w") as out, (self.directory / "log").open("a") as log:
            process = self.bed.start(self.bed.host, *command, stdout=out, stderr=log, env=environment)
        self._process = process
        until(lambda: process.poll() is not None or (self.directory / "out").read_text(), "master")
        assert process.poll() is None, f"The master did not start:\n{self.log[-4000:]}"
