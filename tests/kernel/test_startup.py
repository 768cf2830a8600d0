"""Starting: every check, in Mesos' order and words (mesos `port_mapping.cpp`, PortMappingIsolatorProcess::create).

The checks change nothing, so most are called here, in network namespaces that provoke them; what a started agent adds,
its exit status and what it leaves behind, is tested on a few.
"""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portslice.agent import startup
from portslice.agent.flags import AgentFlags
from portslice.agent.limits import limits
from portslice.agent.service import Agent
from portslice.cli import agent as agent_command
from portslice.demo.node import RESOURCES, Node, node
from portslice.demo.testbed import Testbed, testbed
from portslice.engines.mesos.engine import MesosEngine
from portslice.errors import PortsliceError
from portslice.flags import load
from portslice.network import namespaces
from portslice.network.host import link_speed
from portslice.sampling import Sampling
from tests.kernel.conftest import HAS_FQ_CODEL
from tests.kernel.waiting import until

pytestmark = pytest.mark.native

CONTAINERIZER = "Failed to create a containerizer: Could not create MesosContainerizer: "
ISOLATOR = CONTAINERIZER + "Failed to create isolator 'network/port_mapping': "
GOOD = {"isolation": "network/port_mapping", "resources": RESOURCES}
VETH_SPEED = 10_000 * 1_000_000 // 8  # what a veth says of itself


@pytest.fixture(scope="module")
def host() -> Iterator[Path]:
    """The network namespace of a healthy host."""
    with testbed() as bed:
        yield bed.host


def flags(**values: str) -> AgentFlags:
    return load(AgentFlags, [f"--{name}={value}" for name, value in (GOOD | values).items()], {})[0]


def refusal(**values: str) -> str:
    with pytest.raises(startup.StartupError) as error:
        startup.isolators(flags(**values))
    return str(error.value)


def test_a_healthy_host_is_accepted(host: Path) -> None:
    with namespaces.entered(host):
        startup.isolators(flags())


REFUSED = {
    "7 no resources text": (
        {"resources": "ephemeral_ports"},
        "Failed to parse --resources: Bad value for resources, missing or extra ':' in ephemeral_ports",
    ),
    "7 no range": (
        {"resources": "ephemeral_ports:[a-b]"},
        "Failed to parse --resources: Failed to parse resource ephemeral_ports value [a-b] error "
        "Expecting non-negative integers in 'a'",
    ),
    "8 ports": (
        {"resources": "ports:[31000-65536];ephemeral_ports:[32768-57344]"},
        "Invalid ports resource '[31000-65536]': Range is out of bounds",
    ),
    "9 ephemeral ports": (
        {"resources": "ephemeral_ports:[32768-65536]"},
        "Invalid ephemeral ports resource '[32768-65536]': Range is out of bounds",
    ),
    "10 none": ({"resources": "ports:[31000-32000]"}, "Ephemeral ports are not specified"),
    "10 no resources at all": ({"resources": ""}, "Ephemeral ports are not specified"),
    "11 in the assigned ports": (
        {"resources": "ports:[31000-33000];ephemeral_ports:[32768-57344]"},
        "The specified ephemeral ports {[32768,57345)} intersect with the specified non-ephemeral ports "
        "{[31000,33001)}",
    ),
    "12 well known": (
        {"resources": "ephemeral_ports:[1023-2047,4096-8191]"},
        "The specified ephemeral ports {[1023,2048)[4096,8192)} intersect with well known ports [0,1024)",
    ),
    "14 the host's": (
        {"resources": "ephemeral_ports:[32768-57345]"},
        "The specified ephemeral ports {[32768,57346)} intersect with the ephemeral ports used by the host "
        "[57345,61001)",
    ),
    "14 the agent's own": (
        {"resources": "ports:[5000-5999];ephemeral_ports:[32768-57344]"},
        "The agent's own port 5051 is among the ports of the containers, {[5000,6000)[32768,57345)}: "
        "choose another one with --port",
    ),
    "15 no power of two": (
        {"ephemeral_ports_per_container": "1000", "strict_mesos": "true"},
        "The number of ephemeral ports for each container (1000) is not a power of 2",
    ),
    "16 more than there are": (
        {"resources": "ephemeral_ports:[32768-33000]"},
        "Network Isolator is given ephemeral ports of size: 233, but asked to allocate 1024 ephemeral ports for a "
        "container",
    ),
    "17 too few": (
        {"ephemeral_ports_per_container": "8"},
        "Each container has only 8 ephemeral ports. The minimum required is: 16",
    ),
    "17 none": (
        {"ephemeral_ports_per_container": "0", "strict_mesos": "true"},
        "Each container has only 0 ephemeral ports. The minimum required is: 16",
    ),
    "18 no aligned block": (
        {"resources": "ephemeral_ports:[33000-34500]"},
        "The ephemeral ports {[33000,34501)} hold no block of 1024 ports that begins at a multiple of 1024",
    ),
    "19 public interface": ({"eth0_name": "nope"}, "The public interface nope does not exist"),
    "20 loopback interface": ({"lo_name": "nope"}, "The loopback interface nope does not exist"),
    "21 both": (
        {"egress_rate_limit_per_container": "1MB", "egress_rate_per_cpu": "1MB"},
        "Cannot specify both egress_rate_limit_per_container and egress_rate_per_cpu.",
    ),
    "22 both": (
        {"ingress_rate_limit_per_container": "1MB", "ingress_rate_per_cpu": "auto"},
        "Cannot specify both ingress_rate_limit_per_container and ingress_rate_per_cpu",
    ),
    "23 egress": (
        {"minimum_egress_rate_limit": "2MB", "maximum_egress_rate_limit": "1MB"},
        "Minimum egress rate limit cannot be greater than maximum egress rate.",
    ),
    "23 ingress": (
        {"minimum_ingress_rate_limit": "2MB", "maximum_ingress_rate_limit": "1MB"},
        "Minimum ingress rate limit cannot be greater than maximum ingress rate.",
    ),
    "24 no CPUs": (
        {"egress_rate_per_cpu": "auto"},
        "CPUs resource has to be specified to determine per CPU egress rate limit",
    ),
    "24 no whole CPU": (
        {"egress_rate_per_cpu": "auto", "resources": f"cpus:0.9;{RESOURCES}"},
        "CPUs resource has to be specified to determine per CPU egress rate limit",
    ),
    "24 no bytes": (
        {"egress_rate_per_cpu": "fast"},
        "Bad option for 'egress_rate_per_cpu' flag: Failed to convert '' to number",
    ),
    "25 no bytes": (
        {"ingress_rate_per_cpu": "10"},
        "Bad option for 'ingress_rate_per_cpu' flag: Invalid bytes '10'",
    ),
    "26 ingress": (
        {"ingress_rate_limit_per_container": "2GB"},
        f"The given ingress traffic limit for containers 2147483648 Bytes/s is greater than the host link speed "
        f"{VETH_SPEED} Bytes/s",
    ),
    "26 minimum ingress": (
        {"minimum_ingress_rate_limit": "2GB"},
        f"The given minimum ingress traffic limit for containers 2147483648 Bytes/s is greater than the host link "
        f"speed {VETH_SPEED} Bytes/s",
    ),
    "26 egress": (
        {"egress_rate_limit_per_container": "2GB"},
        f"The given egress traffic limit for containers 2147483648 Bytes/s is greater than the host link speed "
        f"{VETH_SPEED} Bytes/s",
    ),
    "26 minimum": (
        {"egress_rate_limit_per_container": "1MB", "minimum_egress_rate_limit": "2GB"},
        f"The given minimum egress traffic limit for containers 2147483648 Bytes/s is greater than the host link "
        f"speed {VETH_SPEED} Bytes/s",
    ),
    "26 a speed that is said": (
        {"egress_rate_limit_per_container": "2MB", "network_link_speed": "1MB"},
        "The given egress traffic limit for containers 2097152 Bytes/s is greater than the host link speed 1048576 "
        "Bytes/s",
    ),
    "27 no window": (
        {"network_enable_rate_statistics": "true", "network_rate_statistics_interval": "1secs"},
        "Window size and sampling interval for rate statistics are required",
    ),
    "27 no interval": (
        {"network_enable_rate_statistics": "true", "network_rate_statistics_window": "1secs"},
        "Window size and sampling interval for rate statistics are required",
    ),
    "27 no bigger window": (
        {
            "network_enable_rate_statistics": "true",
            "network_rate_statistics_window": "10ms",
            "network_rate_statistics_interval": "10ms",
        },
        "Rate statistics window size should be bigger than the sampling interval",
    ),
    "27 too often": (
        {
            "network_enable_rate_statistics": "true",
            "network_rate_statistics_window": "1secs",
            "network_rate_statistics_interval": "19999us",
        },
        "Rate statistics interval should not be smaller than 20ms",
    ),
    "35 flow parent without colon": (
        {"egress_unique_flow_per_container": "true", "egress_flow_classifier_parent": "11"},
        "Failed to parse egress_flow_classifier_parent: Failed to tokenize string: 11",
    ),
    "35 flow parent not hexadecimal": (
        {"egress_unique_flow_per_container": "true", "egress_flow_classifier_parent": "1:g"},
        "Failed to parse egress_flow_classifier_parent: Failed to convert g to a hex integer",
    ),
}


@pytest.mark.parametrize(("values", "text"), REFUSED.values(), ids=REFUSED)
def test_refused(host: Path, values: dict[str, str], text: str) -> None:
    with namespaces.entered(host):
        assert refusal(**values) == ISOLATOR + text


@pytest.mark.parametrize("size", ["16", "24", "1000", "1024", "24576"])
def test_any_size_of_blocks(host: Path, size: str) -> None:
    """15: only with --strict_mesos must it be a power of two."""
    with namespaces.entered(host):
        startup.isolators(flags(ephemeral_ports_per_container=size, resources="ephemeral_ports:[24576-57344]"))


def test_rates_are_sampled_as_often_as_allowed(host: Path) -> None:
    """27: 20 ms are enough; without the statistics nobody minds the other two flags."""
    values = {"network_rate_statistics_window": "21ms", "network_rate_statistics_interval": "20ms"}
    with namespaces.entered(host):
        startup.isolators(flags(network_enable_rate_statistics="true", **values))
        startup.isolators(flags(network_rate_statistics_interval="1ns"))
    sampling = startup.rate_sampling(flags(network_enable_rate_statistics="true", **values))
    assert sampling == Sampling(window_secs=0.021, interval_secs=0.02)


def test_fast_enough_if_so_said(host: Path) -> None:
    """26: the flag counts, not the driver."""
    with namespaces.entered(host):
        startup.isolators(flags(egress_rate_limit_per_container="2GB", network_link_speed="3GB"))


def test_the_speed_of_the_link_is_shared_among_the_cpus(host: Path) -> None:
    """24, 25: by the driver's figure, or by what is said instead of it; a fraction of a CPU does not count."""
    with namespaces.entered(host):
        speed = link_speed("eth0")
    given = flags(egress_rate_per_cpu="auto", ingress_rate_per_cpu="3MB", resources=f"cpus:3.9;{RESOURCES}")
    assert [policy.per_cpu for policy in limits(given, "eth0", speed)] == [VETH_SPEED // 3, 3 << 20]
    said = flags(ingress_rate_per_cpu="auto", network_link_speed="10000B", resources=f"cpus:10;{RESOURCES}")
    assert [policy.per_cpu for policy in limits(said, "eth0", speed)] == [None, 1000]


def test_an_unknown_speed_is_none(caplog: pytest.LogCaptureFixture) -> None:
    """24, 26: of a loopback the driver tells nothing. `auto` needs a speed; limits are not compared with one."""
    speed = namespaces.in_new(lambda: link_speed("lo"))
    text = "Failed to determine per CPU egress rate limit: Failed to determine link speed of lo: Not supported"
    with pytest.raises(PortsliceError, match=f"^{text}$"):
        limits(flags(egress_rate_per_cpu="auto", resources=f"cpus:2;{RESOURCES}"), "lo", speed)
    limits(flags(ingress_rate_limit_per_container="900TB"), "lo", speed)
    assert "The link speed of lo is unknown: the ingress traffic limit is not checked against it" in caplog.text


def test_a_maximum_above_the_speed_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """26: such a one is harmless."""
    limits(flags(maximum_egress_rate_limit="2GB"), "eth0", VETH_SPEED)
    text = "The given maximum egress rate limit is greater than the link speed and will not be achieved."
    assert text in caplog.text


# Two errors at once: Mesos' first.
BOTH = {
    "10 before 19": ("10 no resources at all", "19 public interface"),
    "12 before 17": ("12 well known", "17 too few"),
    "14 before 15": ("14 the host's", "15 no power of two"),
    "15 before 19": ("15 no power of two", "19 public interface"),
    "16 before 20": ("16 more than there are", "20 loopback interface"),
    "17 before 26": ("17 too few", "26 egress"),
    "19 before 20": ("19 public interface", "20 loopback interface"),
    "20 before 26": ("20 loopback interface", "26 egress"),
    "20 before 21": ("20 loopback interface", "21 both"),
    "21 before 22": ("21 both", "22 both"),
    "22 before 23": ("22 both", "23 egress"),
    "23 before 24": ("23 ingress", "24 no CPUs"),
    "24 before 25": ("24 no CPUs", "25 no bytes"),
    "25 before 26": ("25 no bytes", "26 egress"),
    "26 egress before ingress": ("26 egress", "26 ingress"),
    "26 before 27": ("26 egress", "27 no window"),
    "27 before 35": ("27 too often", "35 flow parent without colon"),
    "26 before 35": ("26 egress", "35 flow parent without colon"),
}


@pytest.mark.parametrize(("first", "second"), BOTH.values(), ids=BOTH)
def test_order(host: Path, first: str, second: str) -> None:
    with namespaces.entered(host):
        assert refusal(**REFUSED[second][0] | REFUSED[first][0]) == ISOLATOR + REFUSED[first][1]


def test_order_within_the_resources(host: Path) -> None:
    with namespaces.entered(host):
        text = refusal(resources="ports:[1000-2000];ephemeral_ports:[1000-2000,58000-59000]")
        assert text.startswith(f"{ISOLATOR}The specified ephemeral ports")
        assert "non-ephemeral" in text  # 11 before 12 and 14
        text = refusal(resources="ephemeral_ports:[1000-2000,58000-59000]")
        assert text.endswith("well known ports [0,1024)")  # 12 before 14
        text = refusal(resources="ephemeral_ports:[40000-40003]", ephemeral_ports_per_container="8")
        assert "given ephemeral ports of size: 4" in text  # 16 before 17


# Rows 19 to 30 on hosts that lack something. A new namespace has the kernel's own range of ports, so others are used.

PORTS = "ephemeral_ports:[61440-65535]"
NIC = ["link add eth0 type veth peer name other", "link set eth0 up", "link set other up"]
ADDRESS = ["address add 192.0.2.2/24 dev eth0"]
ROUTE = ["route add default via 192.0.2.1"]


def on_host(commands: list[str], check: Callable[[], str]) -> str:
    """What `check` returns on a host made by these `ip` commands."""

    def run() -> str:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        return check()

    return namespaces.in_new(run)


def test_no_public_interface() -> None:
    text = "Network Isolator failed to find a public interface: does not have a public interface"
    assert on_host(NIC, lambda: refusal(resources=PORTS)) == ISOLATOR + text


def test_no_address() -> None:
    text = "Failed to get the public IP network of eth0: does not have an IPv4 network"
    assert on_host([*NIC, "route add default dev eth0"], lambda: refusal(resources=PORTS)) == ISOLATOR + text


def test_no_gateway() -> None:
    text = "Failed to get the default gateway of the host: The default gateway of the host does not exist"
    made = [*NIC, *ADDRESS, "route add default dev eth0"]
    assert on_host(made, lambda: refusal(resources=PORTS)) == ISOLATOR + text


def test_no_mac_address() -> None:
    text = "Failed to get the MAC address of lo: does not have a MAC address"
    made = ["link set lo up", *NIC, *ADDRESS, *ROUTE]
    assert on_host(made, lambda: refusal(resources=PORTS, eth0_name="lo")) == ISOLATOR + text


def test_rate_before_address() -> None:
    """26 before 28, and 27."""
    values = {"resources": PORTS, "egress_rate_limit_per_container": "2GB"}
    assert "host link speed" in on_host([*NIC, "route add default dev eth0"], lambda: refusal(**values))
    values = {"resources": PORTS, "network_enable_rate_statistics": "true"}
    assert "Window size" in on_host([*NIC, "route add default dev eth0"], lambda: refusal(**values))


def test_parent_after_gateway() -> None:
    """30 before 35."""
    values = {"resources": PORTS, "egress_unique_flow_per_container": "true", "egress_flow_classifier_parent": "x"}
    assert "default gateway" in on_host([*NIC, *ADDRESS, "route add default dev eth0"], lambda: refusal(**values))


def test_the_named_interface_needs_no_default_route_but_a_gateway() -> None:
    """19: the flag counts; 30: a route without a gateway is none."""
    text = on_host([*NIC, *ADDRESS], lambda: refusal(resources=PORTS, eth0_name="eth0"))
    assert text.endswith("The default gateway of the host does not exist")


# Containerizer, launcher and isolators


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"isolation": "nope"}, CONTAINERIZER + "Unknown or unsupported isolator: nope"),
        ({"isolation": "posix/cpu,network/nope"}, CONTAINERIZER + "Unknown or unsupported isolator: network/nope"),
        (
            {"isolation": "posix/cpu,posix/cpu"},
            CONTAINERIZER + "Duplicate entries found in --isolation flag '[ posix/cpu, posix/cpu ]'",
        ),
        ({"launcher": "posix"}, CONTAINERIZER + "Unknown or unsupported launcher: posix"),
        (
            {"containerizers": "docker"},
            "Failed to create a containerizer: Unknown or unsupported containerizer: docker",
        ),
        (
            {"isolation": "cgroups/mem", "cgroups_hierarchy": "/sys/fs/nothing"},
            CONTAINERIZER + "Failed to create isolator 'cgroups': the controllers memory are not mounted below "
            "'/sys/fs/nothing'",
        ),
    ],
)
def test_refused_before_the_network(values: dict[str, str], text: str) -> None:
    assert refusal(**values) == text


def test_without_fq_codel_no_unique_flow(host: Path) -> None:
    """On a kernel that has it the same flag is accepted: this is tested on both."""
    with namespaces.entered(host):
        if HAS_FQ_CODEL:
            startup.isolators(flags(egress_unique_flow_per_container="true"))
        else:
            assert refusal(egress_unique_flow_per_container="true").startswith(
                f"{ISOLATOR}--egress_unique_flow_per_container needs fq_codel"
            )


# Flags


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("--nope", "Failed to load unknown flag 'nope'"),
        ("nope", "Unexpected argument 'nope': flags are --NAME=VALUE"),
        ("--no-port=1", "Failed to load non-boolean flag 'port' via 'no-port'"),
        ("--resources", "Failed to load non-boolean flag 'resources': Missing value"),
        (
            "--ephemeral_port_per_container=16",
            "Failed to load unknown flag 'ephemeral_port_per_container'. "
            "Did you mean --ephemeral_ports_per_container?",
        ),
        (
            "--ephemeral_ports_per_container=65536",
            "Failed to load flag 'ephemeral_ports_per_container': Failed to load value '65536': Failed to convert into "
            "required type",
        ),
        (
            "--egress_rate_limit_per_container=37500",
            "Failed to load flag 'egress_rate_limit_per_container': Failed to load value '37500': "
            "Invalid bytes '37500'",
        ),
        (
            "--egress_rate_limit_per_container=37.5MB",
            "Failed to load flag 'egress_rate_limit_per_container': Failed to load value '37.5MB': "
            "Fractional bytes '37.5MB'",
        ),
        (
            "--minimum_egress_rate_limit=300Mbit",
            "Failed to load flag 'minimum_egress_rate_limit': Failed to load value '300Mbit': "
            "Unknown bytes unit 'MBIT'",
        ),
        (
            "--egress_unique_flow_per_container=yes",
            "Failed to load flag 'egress_unique_flow_per_container': Failed to load value 'yes': Expecting a boolean "
            "(e.g., true or false)",
        ),
        (
            "--resources=file:///nonexistent/resources",
            "Failed to load flag 'resources': Failed to load value 'file:///nonexistent/resources': "
            "Error reading file '/nonexistent/resources': No such file or directory",
        ),
    ],
)
def test_bad_flags(argument: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent_command.run([argument], "mesos-slave") == 1
    assert capsys.readouterr().err == f"{text}\n\nSee `mesos-slave --help` for a list of supported flags.\n"


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert agent_command.run(["--help"], "mesos-slave") == 0
    text = capsys.readouterr().out
    assert text.startswith("Usage: mesos-slave [options]\n")
    assert "  mesos-slave --isolation=cgroups/cpu,cgroups/mem,network/port_mapping \\\n" in text
    assert "--[no-]egress_unique_flow_per_container" in text
    assert agent_command.run(["--version"]) == 0
    assert capsys.readouterr().out == "portslice 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"master": "localhost"}, "Failed to create a master detector: Failed to parse 'localhost': "),
        ({"master": "zk://localhost:2181"}, "Failed to create a master detector: "),
        ({"master": "localhost:5050", "port": "0"}, "--master needs a fixed --port: the master sends to it"),
        ({"master": "localhost:5050", "authenticatee": "mine"}, "Could not create authenticatee module 'mine': "),
        ({"master": "localhost:5050", "attributes": "rack"}, "Invalid attribute key:value pair 'rack'"),
    ],
)
def test_a_master_that_cannot_be_joined(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(PortsliceError, match=f"^{re.escape(message)}"):
        MesosEngine(Agent(flags(**arguments)))


def test_harmless_defaults_are_accepted(host: Path) -> None:
    with namespaces.entered(host):
        startup.isolators(flags(strict="false", ingress_isolate_existing_containers="true"))


# Started agents


def started(bed: Testbed, *arguments: str, program: tuple[str, ...] = (), **environment: str) -> tuple[int, str]:
    """Start an agent that ends at once; its exit status and standard error."""
    command = [*program, sys.executable, "-m", "portslice", "agent", *arguments]
    result = subprocess.run(
        bed.command(bed.host, command),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return result.returncode, result.stderr


def test_a_refused_agent_leaves_nothing(bed: Testbed) -> None:
    agent = Node(bed, "--resources=ports:[31000-32000]")
    before = state(bed)
    result = agent.agent()
    assert result.returncode == 1
    assert f"EXIT with status 1: {ISOLATOR}Ephemeral ports are not specified\n" in result.stderr
    assert "`portslice doctor` with the same flags says how to mend it." in result.stderr
    assert not agent.directory.exists()
    assert agent.leftovers() == []
    assert state(bed) == before


def state(bed: Testbed) -> list[str]:
    """What an agent could change on the host, once that is settled."""
    until(lambda: "state UP" in bed.run(bed.host, "ip", "-o", "link", "show", "eth0").stdout, "carrier")
    commands = ("ip -o link", "ip route", "tc qdisc", "sysctl -ea --pattern ^net.ipv4.conf", f"ls -A {bed.directory}")
    return [bed.run(bed.host, *command.split()).stdout for command in commands]


def test_without_root(bed: Testbed) -> None:
    # Another user, who may read the source nevertheless.
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    reader = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    status, error = started(bed, *Node(bed).flags, program=(*user, *reader))
    assert status == 1
    assert f"EXIT with status 1: {ISOLATOR}Using network isolator requires root permissions\n" in error


def test_without_the_extra(bed: Testbed, tmp_path: Path) -> None:
    """The package installed without `network-isolator` is one without pyroute2."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pyroute2'] = None\n")
    agent = Node(bed)
    status, error = started(bed, *agent.flags, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert status == 1
    assert (
        "EXIT with status 1: Failed to create a containerizer: Could not create MesosContainerizer: "
        "Unknown or unsupported isolator: network/port_mapping\n"
    ) in error
    assert not agent.directory.exists()


def test_a_taken_port(bed: Testbed) -> None:
    agent = Node(bed)
    with namespaces.entered(bed.host), socket.create_server(("0.0.0.0", 5051)):
        result = agent.agent()
    assert result.returncode == 1
    assert "EXIT with status 1: Failed to initialize, bind: Address already in use [98]: choose" in result.stderr
    assert agent.leftovers() == []


def test_flags_of_all_sources_and_a_second_agent(
    bed: Testbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags come from the environment, from files and from the command line, which wins; a block may have any size.
    A second agent with the same --runtime_dir is refused and disturbs nothing."""
    resources = tmp_path / "resources"
    resources.write_text("ports:[31000-32000];\n ephemeral_ports:[32768-57344]\n")
    monkeypatch.setenv("MESOS_EPHEMERAL_PORTS_PER_CONTAINER", "24")
    monkeypatch.setenv("MESOS_HOSTNAME", "from-the-environment")
    monkeypatch.setenv("MESOS_NOBODY_KNOWS", "ignored")
    with node(bed, f"--resources=file://{resources}", "--hostname=from-the-command-line") as agent:
        shown = agent.get("/flags")["flags"]
        assert shown["ephemeral_ports_per_container"] == "24"
        assert shown["hostname"] == "from-the-command-line"
        container = agent.launch("web", "python3", "-m", "http.server", "31000", ports="31000-31000")
        assert container["ephemeral_ports"] == [32784, 32807]
        inside = bed.run(agent.namespace(container), "sysctl", "-n", "net.ipv4.ip_local_port_range").stdout
        assert inside.split() == ["32784", "32807"]
        result = agent.agent("--port=5052")
        assert result.returncode == 1
        assert "Another agent is running with --runtime_dir=" in result.stderr
        fetch = ["curl", "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "http://10.77.0.2:31000/"]
        assert "Directory listing" in bed.run(bed.world, *fetch).stdout
        assert agent.client.container("web")["id"] == container["id"]
