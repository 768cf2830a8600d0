"""libprocess' transport, between the host's namespace and the world's."""

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest

from portslice.demo.node import node
from portslice.demo.testbed import HOST_ADDRESS, WORLD_ADDRESS, Testbed, testbed
from portslice.engines.mesos.schema.messages_pb2 import PingSlaveMessage, PongSlaveMessage, ShutdownMessage
from portslice.engines.mesos.wire import Link, Pid
from portslice.network import namespaces
from portslice.network.sockdiag import SockDiag
from tests.kernel import peer
from tests.kernel.waiting import until
from tests.mesos.framework import Connection, send

pytestmark = pytest.mark.native

PORT = 5050


@pytest.fixture(scope="module")
def ground() -> Iterator[Testbed]:
    with testbed() as built:
        yield built


def test_messages_go_in_order_over_one_connection(ground: Testbed) -> None:
    sender = Pid("slave(1)", "10.77.0.1", 5051)

    async def send() -> None:
        link = await Link.open((HOST_ADDRESS, PORT), 10)
        for text in ("first", "second"):
            link.send(sender, "master", ShutdownMessage(message=text))
        link.send(sender, "slave-observer(1)", PongSlaveMessage())
        await link.flush()
        link.close()
        assert (link.local[0], link.remote) == ("10.77.0.1", (HOST_ADDRESS, PORT))

    with closing(peer.listen(ground.host, "tcp", ("", PORT))) as server:
        with namespaces.entered(ground.world):
            asyncio.run(send())
        connection, _ = server.accept()
        with closing(connection), connection.makefile("rb") as stream:
            heard = stream.read()
    head = (
        b"POST /%s HTTP/1.1\r\nUser-Agent: libprocess/slave(1)@10.77.0.1:5051\r\n"
        b"Libprocess-From: slave(1)@10.77.0.1:5051\r\nConnection: Keep-Alive\r\nHost: \r\nContent-Length: %d\r\n\r\n"
    )
    shutdown = b"master/mesos.internal.ShutdownMessage"
    assert heard == b"".join(
        (
            head % (shutdown, 7) + b"\x0a\x05first",
            head % (shutdown, 8) + b"\x0a\x06second",
            head % (b"slave-observer(1)/mesos.internal.PongSlaveMessage", 0),
        )
    )


def test_a_master_elsewhere_is_known_by_its_address(ground: Testbed) -> None:
    sender = f"slave-observer(1)@{WORLD_ADDRESS}:{PORT}"
    ping = PingSlaveMessage(connected=True).SerializeToString()
    with (
        closing(peer.listen(ground.world, "tcp", ("", PORT))) as master,
        node(ground, f"--master={WORLD_ADDRESS}:{PORT}") as agent,
    ):
        container = agent.launch("c")
        with closing(master.accept()[0]) as link:
            assert link.recv(1 << 16).startswith(b"POST /master/mesos.internal.RegisterSlaveMessage HTTP/1.1\r\n")
            for where, status in ((ground.world, 202), (ground.host, 403), (agent.namespace(container), 403)):
                assert send(Connection(where, f"{HOST_ADDRESS}:5051"), sender, "PingSlaveMessage", ping)[0] == status
            until(lambda: b"POST /slave-observer(1)/mesos.internal.PongSlaveMessage" in link.recv(1 << 16), "pong")
        agent.kill("c")


def test_whose_a_connection_is(ground: Testbed) -> None:
    """An end in another namespace is nobody's, even where somebody listens on its port."""
    with closing(peer.listen(ground.host, "tcp", ("", PORT))), SockDiag(ground.host) as diag:
        for where, local in ((ground.host, HOST_ADDRESS), (ground.world, WORLD_ADDRESS)):
            with closing(peer.open_socket(where, "tcp", connect=(HOST_ADDRESS, PORT))) as client:
                own = client.getsockname()
                assert own[0] == local
                assert diag.owner(own, (HOST_ADDRESS, PORT)) == (0 if where == ground.host else None)
        assert diag.owner((HOST_ADDRESS, PORT), (WORLD_ADDRESS, 1)) is None
        command = ("setpriv", "--reuid=65534", "nc", HOST_ADDRESS, str(PORT), "-p", "40000")
        other = ground.start(ground.host, *command)
        assert until(lambda: diag.owner((HOST_ADDRESS, 40000), (HOST_ADDRESS, PORT)), "connection") == 65534
        other.kill()


def test_a_peer_that_takes_nothing_is_given_up(ground: Testbed) -> None:
    async def send() -> int:
        link = await Link.open((HOST_ADDRESS, PORT), 10)
        ended = asyncio.create_task(link.closed())
        count = 0
        while not ended.done():
            link.send(Pid("slave(1)", "10.77.0.1", 5051), "master", ShutdownMessage(message="x" * (1 << 20)))
            count += 1
            await asyncio.sleep(0)
        return count

    with closing(peer.listen(ground.host, "tcp", ("", PORT))), namespaces.entered(ground.world):
        assert 32 < asyncio.run(send()) < 100
