"""The kernel tests' host: a testbed of namespaces, and an agent on it."""

import os
import signal
from collections.abc import Iterator

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import Testbed, testbed
from portslice.network.probe import Kernel

if os.geteuid() != 0:
    pytest.exit("The kernel tests need root", returncode=1)

# A shell starts what is in its background with these ignored, and so would be all that the tests start.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

HAS_FQ_CODEL = Kernel().has_fq_codel()
NETWORK_STATISTICS = (
    "--network_enable_socket_statistics_summary",
    "--network_enable_socket_statistics_details",
    "--network_enable_snmp_statistics",
    "--network_enable_rate_statistics",
)
"""All that an agent can measure of a container's network, which by default it does not."""


@pytest.fixture
def bed() -> Iterator[Testbed]:
    """A host and the world, without an agent."""
    with testbed() as built:
        yield built


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """An agent without limits that a module's tests share; each test ends its own containers."""
    with testbed() as built, node(built) as agent:
        yield agent


@pytest.fixture
def agent(shared_node: Node) -> Iterator[Node]:
    """The shared agent, with no container before and after."""
    yield shared_node
    running = [each["id"] for each in shared_node.client.containers() if each["state"] == "running"]
    shared_node.kill(*running)


@pytest.fixture
def fq_codel() -> None:
    """For tests that need fq_codel; those run on the other kernel."""
    if not HAS_FQ_CODEL:
        pytest.skip("this kernel has no fq_codel")
