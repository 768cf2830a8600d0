"""Agents that prove themselves to a master, genuine or ours, and what strangers, guessers and crowds get."""

import http.client
import json
import socket
import struct
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from google.protobuf.message import Message

from portslice.credentials import Credential
from portslice.demo.node import Node, node
from portslice.demo.testbed import HOST_ADDRESS, WORLD_ADDRESS, Testbed, testbed
from portslice.engines.mesos.schema import messages_pb2 as messages
from portslice.http.connections import MOST_OF_ONE
from tests.kernel import peer
from tests.kernel.asking import ask, over_socket
from tests.kernel.waiting import until
from tests.mesos import install
from tests.mesos.framework import Connection, send
from tests.mesos.master import PORT, AnyMaster, Master
from tests.mesos.own import OwnMaster

pytestmark = [pytest.mark.native, pytest.mark.timeout(300)]

LIGHT = "--isolation=posix/cpu,posix/mem"  # these agents need no data plane
QUICK = (
    LIGHT,
    "--registration_backoff_factor=10ms",
    "--authentication_timeout_min=100ms",
    "--authentication_backoff_factor=10ms",
    "--authentication_timeout_max=1secs",
)
KNOWN = {
    "credentials": [{"principal": "agents", "secret": "swordfish"}, {"principal": "jobs", "secret": "haddock"}]
}
AGENTS = Credential.of("agents", "swordfish")


def _file(directory: Path, name: str, content: Any) -> Path:
    file = directory / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def ground() -> Iterator[Testbed]:
    with testbed() as bed:
        yield bed


@pytest.fixture(scope="module")
def bare() -> Iterator[Testbed]:
    """Ground without a master."""
    with testbed() as bed:
        yield bed


# A master and an agent


@pytest.fixture(scope="module", params=(Master, OwnMaster), ids=("genuine", "own"))
def master(request: pytest.FixtureRequest, ground: Testbed) -> Iterator[AnyMaster]:
    """A master that wants to know its agents and frameworks."""
    flags = {
        "authenticate_agents": "true",
        "authenticators": "crammd5",
        "authenticate_http_frameworks": "true",
        "http_framework_authenticators": "basic",
        "credentials": f"file://{_file(ground.directory, 'known', KNOWN)}",
    }
    try:
        master = cast(type[AnyMaster], request.param)(ground, HOST_ADDRESS, **flags)
    except install.Missing as missing:
        pytest.skip(str(missing))
    master.start()
    yield master
    master.stop()


def test_an_agent_proves_itself(ground: Testbed, master: AnyMaster) -> None:
    """At the start, and when the master is back. Refused it ends, its containers go on, and it may come again."""
    secret = _file(ground.directory, "secret", {"principal": "agents", "secret": "swordfish"})
    agent = Node(ground, f"--master={master.address}", f"--credential=file://{secret}", *QUICK)
    try:
        agent.start()
        (first,) = until(master.agents, "agent of the master")
        own = agent.launch("own")["pid"]
        assert f"Successfully authenticated with master master@{master.address}" in agent.log
        assert f"Successfully authenticated principal 'agents' at slave(1)@{HOST_ADDRESS}:5051" in master.log
        assert ask(agent, "/flags").json["flags"]["credential"] == "(hidden)"
        master.stop()
        master.start()
        (again,) = until(master.agents, "agent of the master")
        assert again["id"] == first["id"]
        agent.stop()
        for wrong in ("agents haddock", "nobody swordfish"):
            secret.write_text(wrong)
            refused = agent.agent()
            assert refused.returncode == 1
            assert f"EXIT with status 1: Master master@{master.address} refused authentication\n" in refused.stderr
        assert "was unsuccessful: Invalid credentials" in master.log
        secret.write_text("agents swordfish\n")
        agent.start()
        until(master.agents, "agent of the master")
        assert agent.client.container("own")["pid"] == own
        for secret_text in ("swordfish", "haddock"):
            assert secret_text not in agent.log + master.log
        agent.kill("own")
    finally:
        left = agent.cleanup()
    assert left == []


def test_who_does_not_is_not_registered(ground: Testbed, master: AnyMaster) -> None:
    with node(ground, f"--master={master.address}", *QUICK, name="unknown"):
        text = f"Refusing registration of agent at slave(1)@{HOST_ADDRESS}:5051 because it is not authenticated"
        until(lambda: text in master.log, "refusal")
        assert master.agents() == []


def test_a_frameworks_principal_is_the_one_that_it_proved(ground: Testbed, master: AnyMaster) -> None:
    info: dict[str, Any] = {"user": "root", "name": "x", "roles": ["*"], "failover_timeout": 1000}
    info["capabilities"] = [{"type": "MULTI_ROLE"}]

    def subscribe(credentials: str, info: dict[str, Any]) -> str:
        """The answer's first part."""
        call = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        call |= {"framework_id": info["id"]} if "id" in info else {}
        basic = b64encode(credentials.encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {basic}"}
        with closing(Connection(ground.host, master.address)) as connection:
            connection.request("POST", "/master/api/v1/scheduler", json.dumps(call), headers)
            with connection.getresponse() as response:
                length = None if response.status != 200 else int(response.readline())
                return response.read(length).decode()

    assert subscribe("jobs:swordfish", info) == "401 Unauthorized."
    mismatch = "Authenticated principal 'jobs' does not match principal 'agents' set in `FrameworkInfo`"
    assert mismatch in subscribe("jobs:haddock", info | {"principal": "agents"})
    assert '"SUBSCRIBED"' in subscribe("jobs:haddock", info)
    (known,) = (each for each in master.get("/frameworks")["frameworks"] if each["name"] == "x")
    assert known["principal"] == "jobs"
    stolen = subscribe("agents:swordfish", info | {"id": {"value": known["id"]}})
    assert "Changing framework's principal is not allowed." in stolen
    assert '"SUBSCRIBED"' in subscribe("jobs:haddock", info | {"id": {"value": known["id"]}})


# Processes of libprocess that are made up


class Heard(NamedTuple):
    """A message that came."""

    receiver: str
    name: str
    body: bytes


def _hear(stream: Any) -> Heard:
    """The next message of a connection."""
    _, path, _ = stream.readline().split()
    length = 0
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    receiver, name = path.decode().removeprefix("/").split("/")
    return Heard(receiver, name.removeprefix("mesos.internal."), stream.read(length))


class FakeMaster:
    """A master on the host, whose every word is the test's."""

    def __init__(self, bed: Testbed, link: socket.socket) -> None:
        self._bed = bed
        self._stream = link.makefile("rb")

    def hear(self, name: str) -> Heard:
        """The next message of this name."""
        while (heard := self.hear_any()).name != name:
            pass
        return heard

    def hear_any(self) -> Heard:
        """The next message."""
        return _hear(self._stream)

    def say(self, message: Message, process: str = "session(1)", where: Path | None = None) -> int:
        """Send the agent a message; the status of the answer."""
        connection = Connection(where or self._bed.host, f"{HOST_ADDRESS}:5051")
        sender = f"{process}@{HOST_ADDRESS}:{PORT}"
        return send(connection, sender, message.DESCRIPTOR.name, message.SerializeToString())[0]


OFFER = messages.AuthenticationMechanismsMessage(mechanisms=["PLAIN", "CRAM-MD5"])
CHALLENGE = messages.AuthenticationStepMessage(data=b"<1@x>")
COMPLETED, FAILED = messages.AuthenticationCompletedMessage(), messages.AuthenticationFailedMessage()


def test_an_agent_is_not_taken_in_by_what_masters_say(bare: Testbed) -> None:
    """What comes out of turn, from elsewhere, too much or too often neither authenticates it, nor ends it, nor gets an
    answer to a challenge that is none."""
    secret = _file(bare.directory, "secret", "agents swordfish")
    with ExitStack() as stack:
        listener = stack.enter_context(closing(peer.listen(bare.host, "tcp", ("", PORT))))
        flags = (f"--master={HOST_ADDRESS}:{PORT}", f"--credential=file://{secret}", *QUICK)
        agent = stack.enter_context(node(bare, *flags, name="taken"))
        link = stack.enter_context(closing(listener.accept()[0]))
        link.settimeout(60)
        master = FakeMaster(bare, link)
        first = messages.AuthenticateMessage.FromString(master.hear("AuthenticateMessage").body)
        assert first.pid == f"slave(1)@{HOST_ADDRESS}:5051"

        def fails(why: str, *said: Message) -> None:
            """One of the agent's tries; one more where this machine is slower than the agent is patient."""
            text = f"Failed to authenticate with master master@{HOST_ADDRESS}:{PORT}: {why}"
            before = agent.log.count(text)
            while agent.log.count(text) == before:
                for message in said:
                    assert master.say(message) == 202
                master.hear("AuthenticateMessage")

        fails("Unexpected authentication 'completed' received", COMPLETED)
        fails("Unexpected authentication 'failed' received", FAILED)
        fails("Unexpected authentication 'step' received", CHALLENGE)
        fails("Unexpected authentication 'mechanisms' received", OFFER, OFFER)
        fails("it knows PLAIN, but not CRAM-MD5", messages.AuthenticationMechanismsMessage(mechanisms=["PLAIN"]))
        fails("Authentication error: later", messages.AuthenticationErrorMessage(error="later"))
        long = messages.AuthenticationStepMessage(data=b"x" * 5000)
        fails("its challenge has 5000 bytes", OFFER, long)
        fails("Unexpected authentication 'step' received", OFFER, CHALLENGE, CHALLENGE)
        fails("it does not answer", *[])
        def start() -> Heard:
            """The agent's answer to an offer, in one of its tries."""
            while True:
                assert master.say(OFFER) == 202
                if (heard := master.hear_any()).name == "AuthenticationStartMessage":
                    return heard

        def respond() -> tuple[Heard, Heard]:
            """The same, and its answer to a challenge."""
            while True:
                begin = start()
                assert master.say(CHALLENGE) == 202
                if (heard := master.hear_any()).name == "AuthenticationStepMessage":
                    return begin, heard

        for where, process in ((bare.world, "session(1)"), (bare.host, "session(2)")):
            start()
            assert master.say(COMPLETED, process, where) == (403 if where == bare.world else 202)
            master.hear("AuthenticateMessage")
        for _ in range(100):
            master.say(FAILED, "session(3)")
        assert "RegisterSlaveMessage" not in agent.log
        while True:
            begin, response = respond()
            assert (begin.receiver, begin.body) == ("session(1)", START.SerializeToString())
            answer = messages.AuthenticationStepMessage.FromString(response.body)
            assert answer.data == AGENTS.respond(b"<1@x>")
            assert master.say(COMPLETED) == 202
            if (heard := master.hear_any()).name == "RegisterSlaveMessage":
                break
        assert heard.receiver == "master"
        for message in (FAILED, OFFER, CHALLENGE):  # nobody asked
            assert master.say(message) == 202
        assert agent.process is not None
        assert agent.process.poll() is None
        assert over_socket(agent, "/health").status == 200
        assert "Traceback" not in agent.log


class FakeAgent:
    """An agent in the world, whose every word is the test's."""

    pid = f"slave(1)@{WORLD_ADDRESS}:6000"

    def __init__(self, bed: Testbed, listener: socket.socket) -> None:
        self._bed = bed
        self._listener = listener
        self._connection = Connection(bed.world, f"{HOST_ADDRESS}:{PORT}")

    def say(self, message: Message, receiver: str = "master") -> int:
        """Send the master a message over the agent's one connection; the status of the answer."""
        head = {"Libprocess-From": self.pid}
        path = f"/{receiver}/{message.DESCRIPTOR.full_name}"
        self._connection.request("POST", path, message.SerializeToString(), head)
        with self._connection.getresponse() as response:
            response.read()
            return response.status

    @contextmanager
    def spoken_to(self) -> Iterator[Any]:
        """What the master sends over its next connection."""
        link, _ = self._listener.accept()
        link.settimeout(60)
        with closing(link), link.makefile("rb") as stream:
            yield stream

    def close(self) -> None:
        self._connection.close()


HELLO = messages.AuthenticateMessage(pid=FakeAgent.pid)
START = messages.AuthenticationStartMessage(mechanism="CRAM-MD5")


def test_a_master_is_not_taken_in_by_what_agents_say(bare: Testbed) -> None:
    known = _file(bare.directory, "known", "agents swordfish\njobs haddock\n")
    master = OwnMaster(bare, HOST_ADDRESS, authenticate_slaves="true", credentials=f"file://{known}")
    with ExitStack() as stack:
        master.start()
        stack.callback(master.stop)
        listener = stack.enter_context(closing(peer.listen(bare.world, "tcp", (WORLD_ADDRESS, 6000))))
        agent, other = (stack.enter_context(closing(FakeAgent(bare, listener))) for _ in range(2))
        register = messages.RegisterSlaveMessage(slave={"hostname": "fake", "port": 6000}, version="1.11.0")

        def tries(data: bytes | None, start: Message = START) -> tuple[bytes, Heard]:
            """Authenticate; the challenge, and how it ended."""
            assert agent.say(HELLO) == 202
            with agent.spoken_to() as stream:
                offer = _hear(stream)
                if offer.name != "AuthenticationMechanismsMessage":
                    return b"", offer
                assert messages.AuthenticationMechanismsMessage.FromString(offer.body).mechanisms == ["CRAM-MD5"]
                assert agent.say(start, "crammd5-authenticator-session(1)") == 202
                asked = _hear(stream)
                if asked.name != "AuthenticationStepMessage":
                    return b"", asked
                challenge = messages.AuthenticationStepMessage.FromString(asked.body).data
                step = messages.AuthenticationStepMessage(data=AGENTS.respond(challenge) if data is None else data)
                assert agent.say(step, "crammd5-authenticator-session(1)") == 202
                return challenge, _hear(stream)

        assert agent.say(register) == 403
        assert f"Refusing registration of agent at {agent.pid} because it is not authenticated" in master.log
        long = messages.AuthenticationStepMessage(data=b"x" * 20_000)
        assert agent.say(long) == 413
        for message in (START, CHALLENGE, messages.AuthenticateMessage(pid=f"slave(1)@{HOST_ADDRESS}:5051")):
            assert agent.say(message) == 202
        assert agent.say(messages.PongSlaveMessage()) == 403
        until(lambda: f"{agent.pid} speaks of slave(1)@{HOST_ADDRESS}:5051" in master.log, "warning")
        _, error = tries(None, messages.AuthenticationStartMessage(mechanism="PLAIN"))
        assert (error.name, b"Expecting the mechanism CRAM-MD5" in error.body) == ("AuthenticationErrorMessage", True)
        _, error = tries(None, CHALLENGE)
        assert (error.name, b"Expecting authentication 'start'" in error.body) == ("AuthenticationErrorMessage", True)
        _, error = tries(b"x" * 5000)
        assert (error.name, b"not more than 4096 bytes" in error.body) == ("AuthenticationErrorMessage", True)
        challenge, end = tries(None)
        assert end.name == "AuthenticationCompletedMessage"
        _, end = tries(AGENTS.respond(challenge))  # it is asked once only
        assert end.name == "AuthenticationFailedMessage"
        assert agent.say(register) == 403  # what was known is not any more
        assert tries(None)[1].name == "AuthenticationCompletedMessage"
        assert other.say(register) == 403  # who else is at that address
        assert master.get("/slaves")["slaves"] == []
        assert agent.say(register) == 202
        with agent.spoken_to() as stream:
            assert _hear(stream).name == "SlaveRegisteredMessage"
            assert [each["hostname"] for each in master.agents()] == ["fake"]
        until(lambda: "is disconnected" in master.log, "end of the connection")
        agent = other
        ends = [tries(b"agents 00")[1] for _ in range(30)]
        assert ends[0].name == "AuthenticationFailedMessage"
        assert b"Too many wrong credentials: try again later" in ends[-1].body
        assert tries(None)[1].name == "AuthenticationErrorMessage"
        secret = _file(bare.directory, "secret", "agents swordfish")
        with node(bare, f"--master={master.address}", f"--credential=file://{secret}", *QUICK, name="other"):
            until(master.agents, "agent that does not guess")
        assert "Traceback" not in master.log


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"authenticate_agents": "true"}, "No credentials provided, authentication requests will be refused"),
        ({"authenticate_http_frameworks": "true"}, "for realm 'mesos-master-scheduler': name a file"),
        ({"authenticators": "kerberos"}, "Could not create authenticator module 'kerberos'"),
    ],
)
def test_a_masters_flags_are_checked_at_the_start(bare: Testbed, flags: dict[str, str], message: str) -> None:
    with pytest.raises(AssertionError, match=f"EXIT with status 1: .*{message}"):
        OwnMaster(bare, HOST_ADDRESS, **flags).start()


# The brakes


@pytest.fixture(scope="module")
def guarded() -> Iterator[Node]:
    """An agent with credentials."""
    with testbed() as bed:
        file = _file(bed.directory, "known", KNOWN)
        with node(bed, f"--http_credentials=file://{file}", "--ephemeral_ports_per_container=512") as agent:
            yield agent


def _ask(agent: Node, where: Path, credentials: str, times: int = 1) -> list[str]:
    """What requests with credentials get; codes."""
    url = f"http://{HOST_ADDRESS}:5051/files/debug?[1-{times}]"
    curl = ("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}\\n", "--user", credentials, url)
    return agent.bed.run(where, *curl).stdout.split()


def test_who_guesses_is_slowed_down_and_nobody_else(guarded: Node) -> None:
    agent = guarded
    one, two = (agent.namespace(agent.launch(name)) for name in ("one", "two"))
    host, world = agent.bed.host, agent.bed.world
    for where in (world, one):
        codes = _ask(agent, where, "agents:wrong", 25)
        assert codes[:20] == ["401"] * 20
        assert codes[-1] == "429"
        assert _ask(agent, where, "agents:swordfish") == ["429"]  # it would be a guess like others
        assert agent.bed.run(where, "curl", "-sS", f"http://{HOST_ADDRESS}:5051/health").returncode == 0
        curl = ("curl", "-sSi", "--user", "a:b", f"http://{HOST_ADDRESS}:5051/files/debug?[1-3]")
        head = agent.bed.run(where, *curl).stdout  # the first one may have been long enough after the others
        assert 0 < int(head.partition("Retry-After: ")[2].split()[0]) <= 5
        assert "Too many wrong credentials from" in head
        for other in {world, two, host} - {world, where}:
            assert _ask(agent, other, "agents:swordfish") == ["200"]
    assert over_socket(agent, "/files/debug").status == 200
    until(lambda: _ask(agent, one, "agents:swordfish") == ["200"], "another try")
    agent.kill("one", "two")


def test_nobody_takes_all_connections(guarded: Node) -> None:
    agent = guarded
    one, two = (agent.namespace(agent.launch(name)) for name in ("three", "four"))
    with ExitStack() as stack:
        for _ in range(MOST_OF_ONE):
            taken = peer.open_socket(one, "tcp", connect=(HOST_ADDRESS, 5051))
            stack.callback(taken.close)
        with closing(Connection(one, f"{HOST_ADDRESS}:5051")) as connection:
            connection.connect()
            response = http.client.HTTPResponse(connection.sock)
            response.begin()
            assert (response.status, response.read()) == (503, b"Too many connections.\n")
        until(lambda: "Refusing a connection from the container" in agent.log, "warning")
        for where in (two, agent.bed.host, agent.bed.world):
            assert _ask(agent, where, "agents:swordfish") == ["200"]
        assert over_socket(agent, "/health").status == 200
    for _ in range(50):  # gone before it is looked at
        reset = peer.open_socket(one, "tcp", connect=(HOST_ADDRESS, 5051))
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset.close()
    until(lambda: _ask(agent, one, "agents:swordfish") == ["200"], "room")
    agent.kill("three", "four")
    assert "Traceback" not in agent.log
