"""A real ZooKeeper in a testbed's namespace, from Debian's libzookeeper-java, and what a master leaves in it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from portslice.demo.testbed import Testbed
from tests.kernel.waiting import until
from tests.mesos.master import Master

PORT = 2181
PATH = "/cluster/mesos"
CREDENTIAL = "mesos:secret"
SESSION_SECS = 2
_JARS = Path("/usr/share/java")
_NAMES = ("zookeeper", "zookeeper-jute", "netty-all", "slf4j-api", "slf4j-simple", "metrics-core", "snappy-java")
_CANDIDATE = Path(__file__).with_name("candidate.py")


def missing() -> list[str]:
    """What is not installed."""
    files = (_JARS / f"{name}.jar" for name in _NAMES)
    return [str(file) for file in (*files, Path("/usr/bin/java")) if not file.exists()]


class ZooKeeper:
    """One server, which can be stopped and started again on the same data."""

    def __init__(self, bed: Testbed) -> None:
        self._bed = bed
        self._directory = bed.directory / "zookeeper"
        self._process: subprocess.Popen[Any] | None = None

    @property
    def url(self) -> str:
        """For --master."""
        return f"zk://{CREDENTIAL}@127.0.0.1:{PORT}{PATH}"

    def start(self) -> None:
        """Start it; who wants it waits until it answers."""
        self._directory.mkdir(exist_ok=True)
        settings = {
            "dataDir": self._directory / "data",
            "clientPort": PORT,
            "clientPortAddress": "127.0.0.1",
            "admin.enableServer": "false",
            "tickTime": 500,
        }
        configuration = self._directory / "zoo.cfg"
        configuration.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        classes = ":".join(str(_JARS / f"{name}.jar") for name in _NAMES)
        java = ("java", "-Xmx64m", "-Dzookeeper.jmx.log4j.disable=true", "-cp", classes)
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        with (self._directory / "log").open("a") as log:
            self._process = self._bed.start(
                self._bed.host, *java, main, str(configuration), stdout=log, stderr=subprocess.STDOUT
            )

    def stop(self) -> None:
        """End it; the data stay."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)


class Candidacy:
    """A master's place in the election: an ephemeral sequential node, which only who has the credential can read."""

    def __init__(self, bed: Testbed, master: Master, data: str | None = None) -> None:
        info = {"hostname": f"host-of-{master.ip}", "pid": f"master@{master.address}", "version": "1.11.0"}
        words = (f"127.0.0.1:{PORT}", PATH, CREDENTIAL, str(SESSION_SECS), data or json.dumps(info))
        out = bed.directory / f"candidate-{master.ip}"
        with out.open("w") as stdout:
            self._process = bed.start(bed.host, sys.executable, str(_CANDIDATE), *words, stdout=stdout)
        self.node = str(until(out.read_text, "node in ZooKeeper")).strip()

    def withdraw(self) -> None:
        """Die; the node goes when the session is over."""
        self._process.kill()
        self._process.wait(10)
