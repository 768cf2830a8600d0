"""`portslice master` in a testbed's namespace."""

import sys

from tests.kernel.waiting import until
from tests.mesos.master import PORT, AnyMaster


class OwnMaster(AnyMaster):
    """Ours."""

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

    def stop(self) -> int:
        status = super().stop()
        assert status == 0
        return status
