"""A master and an agent of it on one host, as most tests of a cluster want them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS, Testbed, testbed
from tests.kernel.waiting import until
from tests.mesos import install
from tests.mesos.master import AnyMaster, Master
from tests.mesos.own import OwnMaster


@contextmanager
def joined(kind: type[AnyMaster], *flags: str, **settings: str) -> Iterator[tuple[AnyMaster, Node]]:
    """Both, started.

    :param flags: of the agent, besides those that let it join.
    :param settings: flags of the master.
    """
    with testbed() as bed:
        master = kind(bed, HOST_ADDRESS, **{"allocation_interval": "100ms"} | settings)
        master.start()
        agent = member(bed, master.address, *flags)
        try:
            agent.start()
            until(master.agents, "agent of the master")
            yield master, agent
        finally:
            left = agent.cleanup()
    assert left == []


def member(bed: Testbed, master: str, *flags: str) -> Node:
    """An agent to be started."""
    return Node(bed, f"--master={master}", "--registration_backoff_factor=10ms", *flags)


def genuine() -> type[Master]:
    """Mesos' own; the test is skipped if it cannot be had."""
    try:
        install.module(install.install())
    except install.Missing as missing:
        pytest.skip(str(missing))
    return Master


def genuine_or_ours() -> type[AnyMaster]:
    """Ours, if Mesos' own cannot be had."""
    try:
        install.module(install.install())
    except install.Missing:
        return OwnMaster
    return Master


def running(agent: Node) -> dict[str, dict[str, Any]]:
    """Containers that run, by name."""
    return {each["name"]: each for each in agent.client.containers() if each["state"] == "running"}
