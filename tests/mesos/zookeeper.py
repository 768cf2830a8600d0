"""Real ZooKeeper in testbeds' namespaces, from Debian's libzookeeper-java, and what a master leaves in it."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from portslice.demo.testbed import Testbed
from tests.kernel.waiting import until
from tests.mesos.master import PORT as MASTER_PORT
from tests.mesos.master import AnyMaster

PORT = 2181
PATH = "/cluster/mesos"
SESSION_SECS = 3
_JARS = Path("/usr/share/java")
_NAMES = ("zookeeper", "zookeeper-jute", "netty-all", "slf4j-api", "slf4j-simple", "metrics-core", "snappy-java")
_CANDIDATE = Path(__file__).with_name("candidate.py")


def missing() -> list[str]:
    """What is not installed."""
    files = (_JARS / f"{name}.jar" for name in _NAMES)
    return [str(file) for file in (*files, Path("/usr/bin/java")) if not file.exists()]


class ZooKeeper:
    """One server, which can be stopped and started again on the same data.

    :param ip: where it listens.
    :param ensemble: the addresses of all its servers, if it is one of several.
    """

    def __init__(self, bed: Testbed, ip: str = "127.0.0.1", ensemble: Sequence[str] = ()) -> None:
        self._bed = bed
        self._ip = ip
        self._ensemble = ensemble
        self._directory = bed.directory / "zookeeper"
        self._process: subprocess.Popen[Any] | None = None

    def start(self) -> None:
        """Start it; who wants it waits until it answers."""
        data = self._directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        settings = {
            "dataDir": data,
            "clientPort": PORT,
            "clientPortAddress": self._ip,
            "admin.enableServer": "false",
            "tickTime": 500,
        }
        if self._ensemble:
            (data / "myid").write_text(str(self._ensemble.index(self._ip) + 1))
            settings |= {"tickTime": 200, "initLimit": 50, "syncLimit": 10}
            settings |= {f"server.{number}": f"{ip}:2888:3888" for number, ip in enumerate(self._ensemble, 1)}
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
    """A master's place in the election: an ephemeral sequential node.

    :param data: of the node, if not what a master writes.
    :param credential: `user:password`, without which nobody can read the node.
    """

    def __init__(
        self, master: AnyMaster, servers: str, *, data: str | None = None, credential: str | None = None
    ) -> None:
        address = {"hostname": f"host-of-{master.ip}", "ip": master.ip, "port": MASTER_PORT}
        pid = f"master@{master.address}"
        info = {"address": address, "hostname": address["hostname"], "pid": pid, "version": "1.11.0"}
        words = [servers, PATH, str(SESSION_SECS), data or json.dumps(info), *([credential] if credential else [])]
        out = master.bed.directory / f"candidate-{master.ip}"
        with out.open("w") as stdout:
            self._process = master.bed.start(
                master.bed.host, sys.executable, str(_CANDIDATE), *words, stdout=stdout
            )
        self.node = str(until(out.read_text, "node in ZooKeeper")).strip()

    @property
    def over(self) -> bool:
        """Whether its session is."""
        return self._process.poll() is not None

    def withdraw(self) -> None:
        """Die; the node goes when the session is over."""
        self._process.kill()
        self._process.wait(10)
