"""The containers' ports are reserved on the host: the kernel never chooses one, and others' reservations stay."""

import fcntl
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from portslice.demo.node import Node, node
from portslice.demo.testbed import Testbed
from portslice.network import namespaces, reserved, sysctl
from portslice.ports import PortSet
from tests.kernel.peer import listen, open_socket

PARAMETER = "ipv4/ip_local_reserved_ports"
MANAGED = "31000-32000,32768-57344"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A network namespace with its loopback alone; the test is in it."""
    path = tmp_path / "namespace"
    namespaces.create(path)
    with namespaces.entered(path):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield path
    namespaces.remove(path)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "reserved.json"


def text() -> str | None:
    return sysctl.read(PARAMETER)


def test_added_to_what_others_reserved_and_taken_back(host: Path, record: Path) -> None:
    sysctl.write(PARAMETER, "80,8080-8090")
    reserved.reserve(PortSet.parse("8085-8095,31000-32000,65535"), record)
    assert text() == "80,8080-8095,31000-32000,65535"
    reserved.reserve(PortSet.parse("8085-8095,31500-32000,65535"), record)  # an agent with less than the one before
    assert text() == "80,8080-8095,31500-32000,65535"
    sysctl.write(PARAMETER, "80,8080-8095,9000,31500-32000,65535")
    reserved.release(record)
    assert text() == "80,8080-8090,9000"
    assert not record.exists()
    reserved.release(record)
    assert text() == "80,8080-8090,9000"


def test_all_and_nothing(host: Path, record: Path) -> None:
    reserved.reserve(PortSet.parse("0-65535"), record)
    assert text() == "0-65535"
    reserved.release(record)
    assert text() == ""


def test_what_somebody_overwrote_is_reserved_again(host: Path, record: Path) -> None:
    reserved.reserve(PortSet.parse("31000-32000"), record)
    sysctl.write(PARAMETER, "80")
    reserved.reserve(PortSet.parse("31000-32000"), record)
    assert text() == "80,31000-32000"
    reserved.release(record)
    assert text() == "80"


def test_lists_longer_than_a_page(host: Path, record: Path) -> None:
    """Some 8,000 numbers, a dozen pages: none is cut by a page's end, and none is missing."""
    sysctl.write(PARAMETER, "80,8080-8090")
    many = PortSet.of(range(1, 65536, 8))
    reserved.reserve(many, record)
    assert reserved.reserved() == many | PortSet.parse("80,8080-8090")
    reserved.release(record)
    assert text() == "80,8080-8090"


@pytest.mark.parametrize("member", ["boot", "namespace"])
def test_a_record_of_another_boot_or_namespace_takes_nothing(host: Path, record: Path, member: str) -> None:
    """After a boot the same ports may be reserved by the administrator's own settings."""
    reserved.reserve(PortSet.parse("31000-32000"), record)
    record.write_text(json.dumps({**json.loads(record.read_text()), member: "another"}))
    reserved.reserve(PortSet.parse("31000-32000,40000"), record)
    reserved.release(record)
    assert text() == "31000-32000"


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"ports": "x"}', '{"ports": 5}'])
def test_a_broken_record_takes_nothing(host: Path, record: Path, content: str) -> None:
    sysctl.write(PARAMETER, "31000-32000")
    record.write_text(content)
    reserved.release(record)
    assert text() == "31000-32000"
    assert not record.exists()


def test_agents_at_once(host: Path, tmp_path: Path) -> None:
    """Both read the list, add to it and write it: without a lock one would write over the other's."""
    sysctl.write(PARAMETER, "80")

    def come_and_go(number: int) -> None:
        with namespaces.entered(host):
            for _ in range(20):
                reserved.reserve(PortSet.parse(f"{number}000-{number}999"), tmp_path / f"{number}.json")
                assert PortSet.parse(f"80,{number}000-{number}999").issubset(reserved.reserved())
                reserved.release(tmp_path / f"{number}.json")
        finished.append(number)

    finished: list[int] = []
    agents = [Thread(target=come_and_go, args=(number,)) for number in (3, 4)]
    for each in agents:
        each.start()
    for each in agents:
        each.join()
    assert sorted(finished) == [3, 4]
    assert text() == "80"


def test_whoever_keeps_the_lock_stops_nobody_for_long(
    host: Path, record: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Any user can take it."""
    monkeypatch.setattr(reserved, "_PATIENCE_SECS", 0.05)
    with host.open() as namespace:
        fcntl.flock(namespace, fcntl.LOCK_EX)
        reserved.reserve(PortSet.parse("31000"), record)
        assert text() == "31000"
        assert "keeps the network namespace's file locked" in caplog.text
    caplog.clear()
    reserved.release(record)
    assert text() == ""
    assert not caplog.records


# What the kernel makes of it


def bound(namespace: Path, protocol: str) -> int:
    """The port that bind(2) to port 0 chooses."""
    with open_socket(namespace, protocol, bind=("", 0)) as opened:
        return int(opened.getsockname()[1])


def connected(namespace: Path, protocol: str) -> int:
    """The port that connect(2) chooses."""
    with open_socket(namespace, protocol, connect=("127.0.0.1", 9)) as opened:
        return int(opened.getsockname()[1])


def bound6(namespace: Path, protocol: str) -> int:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with namespaces.entered(namespace), socket.socket(socket.AF_INET6, kind) as opened:
        opened.bind(("::", 0))
        return int(opened.getsockname()[1])


@pytest.mark.parametrize("choose", [bound, bound6, connected])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_kernel_does_not_choose_a_reserved_port(
    host: Path, record: Path, choose: Callable[[Path, str], int], protocol: str
) -> None:
    sysctl.write("ipv4/ip_local_port_range", "40000 40007")
    with listen(host, "tcp", ("127.0.0.1", 9)):
        reserved.reserve(PortSet.parse("40000-40002,40004-40007"), record)
        assert choose(host, protocol) == 40003
        reserved.reserve(PortSet.parse("40000-40007"), record)
        with pytest.raises(OSError, match=r"\[Errno (98|99|11)\]"):
            choose(host, protocol)
        reserved.release(record)
        assert choose(host, protocol) in range(40000, 40008)


# The agent


def on(bed: Testbed) -> str:
    return bed.run(bed.host, "sysctl", "-n", "net.ipv4.ip_local_reserved_ports").stdout.strip()


@pytest.mark.native
def test_an_agent_reserves_what_it_manages(bed: Testbed) -> None:
    """As long as there is something of it on the host: over a crash, and over a stop while containers run."""
    bed.run(bed.host, "sysctl", "-qw", "net.ipv4.ip_local_reserved_ports=80,31990-32010")
    agent = Node(bed)
    agent.start()
    try:
        everything = "80,31000-32010,32768-57344"
        assert on(bed) == everything
        bed.run(bed.host, "sysctl", "-qw", "net.ipv4.ip_local_port_range=57343 57346")  # after the start
        assert {bound(bed.host, protocol) for protocol in ("tcp", "udp") for _ in range(10)} <= {57345, 57346}
        bed.run(bed.host, "sysctl", "-qw", "net.ipv4.ip_local_port_range=57345 61000")
        agent.crash()
        assert on(bed) == everything
        agent.start()
        agent.launch("web")
        assert agent.stop() == 0
        assert on(bed) == everything
        agent.start()
        agent.kill("web")
        assert agent.stop() == 0
        assert on(bed) == "80,31990-32010"
    finally:
        bed.run(bed.host, "sysctl", "-qw", "net.ipv4.ip_local_port_range=57345 61000")
        agent.cleanup()


@pytest.mark.native
def test_cleanup_takes_the_reservation_back(bed: Testbed) -> None:
    agent = Node(bed)
    agent.start()
    agent.launch("web")
    agent.crash()
    assert on(bed) == MANAGED
    assert agent.cleanup() == []
    assert on(bed) == ""


@pytest.mark.native
def test_a_start_that_fails_reserves_nothing(bed: Testbed) -> None:
    agent = Node(bed)
    bed.run(bed.host, "sysctl", "-qw", "net.ipv4.ip_local_reserved_ports=80")
    assert agent.agent("--ip=192.0.2.99").returncode == 1
    assert on(bed) == "80"


@pytest.mark.native
def test_a_second_agent(bed: Testbed) -> None:
    """It adds its own and takes back its own."""
    other = "--resources=ports:[20000-20999];ephemeral_ports:[21000-24095]"
    with node(bed) as first:
        second = Node(bed, other, "--port=5052", name="second")
        second.start()
        try:
            assert on(bed) == "20000-24095,31000-32000,32768-57344"
        finally:
            assert second.stop() == 0
        assert on(bed) == MANAGED
        assert first.client.containers() == []
    assert on(bed) == ""
