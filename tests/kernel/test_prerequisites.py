"""What a start depends on that the two kernels differ in: fq_codel, and with it the documentation's command line.

What it depends on besides is the same everywhere: test_startup.py, test_doctor.py."""

import json
import signal
import subprocess
import sys

import pytest

from portslice.demo.node import Node
from portslice.demo.testbed import Testbed
from portslice.network.probe import Status
from tests.kernel.conftest import HAS_FQ_CODEL
from tests.kernel.test_doctor import examine
from tests.kernel.waiting import until

MESOS_SLAVE = "import sys; from portslice.cli import agent; sys.argv[0] = 'mesos-slave'; sys.exit(agent.mesos_agent())"


def test_the_command_line_of_the_documentation(bed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it; only where it writes is told by the environment. Without fq_codel its last flag is refused."""
    arguments = [
        "--isolation=network/port_mapping",
        "--resources=ports:[31000-32000];ephemeral_ports:[32768-57344]",
        "--ephemeral_ports_per_container=1024",
        "--egress_rate_limit_per_container=37500KB",
        "--egress_unique_flow_per_container",
    ]
    agent = Node(bed)
    monkeypatch.setenv("MESOS_WORK_DIR", str(agent.directory / "work"))
    monkeypatch.setenv("MESOS_RUNTIME_DIR", str(agent.runtime))
    monkeypatch.setenv("MESOS_CGROUPS_ROOT", agent.cgroups_root)
    command = [sys.executable, "-c", MESOS_SLAVE]
    if not HAS_FQ_CODEL:
        refused = bed.run(bed.host, *command, *arguments, check=False)
        assert refused.returncode == 1
        assert "--egress_unique_flow_per_container needs fq_codel" in refused.stderr
        arguments.pop()
    process = bed.start(bed.host, *command, *arguments, stderr=subprocess.DEVNULL)
    try:
        curl = ["curl", "-s", "http://localhost:5051/monitor/statistics"]
        assert until(lambda: bed.run(bed.host, *curl, check=False).stdout, "answer") == "[]"
        agent.launch("quiet")
        (element,) = json.loads(bed.run(bed.host, *curl).stdout)
        assert element["executor_id"] == "quiet"
        assert element["statistics"]["net_tx_rate_limit"] == 37500 * 1024
        agent.kill("quiet")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert agent.leftovers() == []


def test_a_foreign_egress_qdisc_is_kept(bed: Testbed, fq_codel: None) -> None:
    """It has the very handle that ours would have; the data plane, half made by then, is taken back."""
    bed.run(bed.host, *["tc", "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "htb", "default", "1"])
    agent = Node(bed, "--egress_unique_flow_per_container")
    refused = agent.agent()
    assert refused.returncode == 1
    assert "Failed to create isolator 'network/port_mapping': Egress qdisc already exists on eth0" in refused.stderr
    assert "qdisc htb 1: root" in bed.run(bed.host, *["tc", "qdisc", "show", "dev", "eth0"]).stdout
    assert agent.leftovers() == []


def test_fq_codel_is_needed_only_for_unique_flows(bed: Testbed) -> None:
    with_it = Status.OK if HAS_FQ_CODEL else None
    assert examine(bed)["fq_codel"].status is (with_it or Status.WARNING)
    assert examine(bed, "--egress_unique_flow_per_container")["fq_codel"].status is (with_it or Status.MISSING)
    checks = examine(bed, "--egress_unique_flow_per_container", "--egress_flow_classifier_parent=x")
    assert checks["flow classifier"].detail.endswith("Failed to tokenize string: x")
