"""Real clients of Mesos, unchanged, read the agent: mesos-go of Debian, and mesoshttp and avmesos of PyPI."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from portslice.demo.node import RESOURCES, Node, node
from portslice.demo.testbed import testbed
from tests.kernel.asking import ask
from tests.kernel.waiting import until
from tests.mesos import install

pytestmark = [pytest.mark.native, pytest.mark.timeout(900)]

CLIENTS = Path(__file__).parents[1] / "clients"
CACHE = CLIENTS.parents[1] / "build/clients"
URL = "http://127.0.0.1:5051"
PRINCIPAL, SECRET = "ops", "swordfish"
MB = 1 << 20


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    file = tmp_path_factory.mktemp("secrets") / "credentials"
    file.write_text(json.dumps({"credentials": [{"principal": PRINCIPAL, "secret": SECRET}]}))
    file.chmod(0o600)
    flags = (
        f"--http_credentials=file://{file}",
        "--authenticate_http_readwrite",
        "--http_heartbeat_interval=20ms",
        f"--resources=cpus:2;mem:1024;disk:1024;{RESOURCES}",
    )
    with testbed() as bed, node(bed, "--cgroups_enable_cfs", *flags) as agent:
        yield agent


@pytest.fixture(scope="module")
def mesos_go() -> Path:
    """The program, compiled."""
    try:
        return install.mesos_go(CLIENTS / "mesos_go.go")
    except install.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of an environment with the clients of PyPI."""
    lock = CLIENTS / "requirements.lock"
    home = CACHE / f"python-{sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not home.exists():
        draft = home.with_suffix(".new")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(draft)], check=True)
        install = [str(draft / "bin/python"), "-m", "pip", "install", "-q", "--require-hashes", "-r", str(lock)]
        result = subprocess.run(install, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            pytest.skip(f"the clients cannot be installed: {result.stderr.strip().splitlines()[-1]}")
        draft.rename(home)
    return home / "bin/python"


def talker(agent: Node) -> dict[str, Any]:
    """A container that wrote something."""
    command = ("sh", "-c", "echo hello; echo oops >&2; exec sleep 1000")
    container = agent.launch("talker", *command, cpus=0.5, mem=64 * MB, ports="31005-31006", egress=10**7)
    until(lambda: Path(container["sandbox"], "stderr").read_text(), "its output")
    return container


def without_times(statistics: dict[str, Any]) -> dict[str, Any]:
    """What does not change from one reading to the next while nothing is done."""
    names = ("cpus_limit", "mem_limit_bytes", "net_rx_packets", "net_tx_packets", "net_tx_bytes", "net_tx_errors")
    return {name: statistics[name] for name in names}


def test_mesos_go_decodes_what_the_agent_says(agent: Node, mesos_go: Path) -> None:
    container = talker(agent)
    stopped = agent.bed.run(
        agent.bed.host, str(mesos_go), URL, PRINCIPAL, SECRET, container["id"], container["sandbox"], timeout=300
    )
    found = json.loads(stopped.stdout)

    assert found["GET_HEALTH"]["get_health"] == {"healthy": True}
    flags = {each["name"]: each.get("value") for each in found["GET_FLAGS"]["get_flags"]["flags"]}
    assert flags == ask(agent, "/flags").json["flags"]
    version = found["GET_VERSION"]["get_version"]["version_info"]
    assert version["version"] == ask(agent, "/version").json["version"]
    metrics = {each["name"]: each["value"] for each in found["GET_METRICS"]["get_metrics"]["metrics"]}
    assert metrics.keys() == ask(agent, "/metrics/snapshot").json.keys()
    assert (metrics["slave/executors_running"], metrics["slave/cpus_used"]) == (1, 0.5)
    assert found["GET_LOGGING_LEVEL"]["get_logging_level"] == {"level": 0}

    (shown,) = found["GET_CONTAINERS"]["get_containers"]["containers"]
    (element,) = found["monitor_statistics"]
    assert shown["container_id"] == {"value": container["id"]}
    assert shown["container_status"]["executor_pid"] == container["pid"]
    assert shown["executor_id"] == {"value": element["executor_id"]} == {"value": "talker"}
    assert shown["executor_name"] == element["executor_name"]
    assert without_times(shown["resource_statistics"]) == without_times(element["statistics"])
    for statistics in (shown["resource_statistics"], element["statistics"]):
        assert (statistics["cpus_limit"], statistics["mem_limit_bytes"]) == (0.5, 64 * MB)
        assert statistics["net_traffic_control_statistics"][0]["id"] == "bw_limit"
        assert container["created"] < statistics["timestamp"]

    state = found["GET_STATE"]["get_state"]
    (task,) = state["get_tasks"]["launched_tasks"]
    assert (task["task_id"], task["state"]) == ({"value": "talker"}, "TASK_RUNNING")
    assert {each["name"]: each.get("scalar", each.get("ranges")) for each in task["resources"]} == {
        "cpus": {"value": 0.5},
        "mem": {"value": 64},
        "ports": {"range": [{"begin": 31005, "end": 31006}]},
    }
    for kind in ("GET_TASKS", "GET_EXECUTORS", "GET_FRAMEWORKS"):
        assert found[kind][kind.lower()] == state[kind.lower()]
    info = found["GET_AGENT"]["get_agent"]["agent_info"]
    assert (info["port"], info["id"]) == (5051, {"value": ask(agent, "/state").json["id"]})
    assert {"cpus", "mem", "disk", "ports"} <= {each["name"] for each in info["resources"]}

    files = found["LIST_FILES"]["list_files"]["file_infos"]
    assert [each["path"] for each in files] == [f"{container['sandbox']}/{name}" for name in ("stderr", "stdout")]
    assert base64.b64decode(found["READ_FILE"]["read_file"]["data"]) == b"hello\n"
    assert found["output"]["STDOUT"] == "hello\n"
    assert found["output"]["STDERR"].startswith("oops\n")  # and the shell's word of the kill
    assert found["WAIT_NESTED_CONTAINER"]["wait_nested_container"] == {"exit_status": 9}
    assert "cannot be found" in found["unknown"]
    assert found["empty"] == ""


@pytest.mark.parametrize("module", ["mesoshttp", "avmesos"])
def test_schedulers_of_pypi_are_refused_in_words_and_read_output(agent: Node, python: Path, module: str) -> None:
    text = "é" * 3000  # longer than what they read at once
    container = agent.launch("brief", "sh", "-c", f"printf '%s' '{text}'; sleep 0.2; echo oops >&2")
    arguments = [module, URL, PRINCIPAL, SECRET, container["id"]]
    found = json.loads(agent.bed.run(agent.bed.host, str(python), str(CLIENTS / "scheduler.py"), *arguments).stdout)
    assert found["without"] == {"registered": False, "errors": ["401 Unauthorized."]}
    assert found["with"] == {
        "registered": False,
        "errors": ["Failed to validate agent::Call: Expecting 'type' to be present"],
    }
    if module == "mesoshttp":
        return
    seen = {"STDOUT": b"", "STDERR": b""}
    for record in found["output"]:
        if record["type"] == "DATA":
            seen[record["data"]["type"]] += base64.b64decode(record["data"]["data"])
    assert seen == {"STDOUT": text.encode(), "STDERR": b"oops\n"}
    assert {each["type"] for each in found["output"]} <= {"DATA", "CONTROL"}
