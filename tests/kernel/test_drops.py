"""What was refused, and why: over the socket, by `portslice drops`, and in the statistics."""

import json
import re
import socket
from typing import Any

import pytest

from portslice.cli.main import main
from portslice.demo.node import Node
from portslice.demo.testbed import HOST_ADDRESS, NIC, WORLD_ADDRESS
from portslice.network.reasons import EXPLANATIONS
from tests.kernel.frames import BROADCAST, ETH_P_EXPERIMENTAL, Frame
from tests.kernel.peer import open_link, open_socket
from tests.kernel.waiting import until

WORLD_LINK = "world"


def drops(agent: Node, name: str | None = None) -> dict[tuple[str | None, str], dict[str, Any]]:
    """The answer by (container, reason)."""
    rows = agent.client.drops(name)
    found = {(row["container"], row["reason"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def send_from(agent: Node, container: dict[str, Any], port: int, count: int, to: int = 9) -> None:
    """Datagrams to the world."""
    with open_socket(agent.namespace(container), "udp", bind=("", port)) as sender:
        for _ in range(count):
            sender.sendto(b"x", (WORLD_ADDRESS, to))
    until(lambda: drops(agent)[container["name"], "foreign_port"]["last"]["destination_port"] == to, "the last one")


def test_by_container_and_reason_with_the_last_packet(agent: Node) -> None:
    web, other = agent.launch("web"), agent.launch("other")
    send_from(agent, web, 2000, 3)
    send_from(agent, web, 2001, 1, to=10)
    send_from(agent, other, web["ephemeral_ports"][0], 1)
    refused = drops(agent)
    last = refused["web", "foreign_port"].pop("last")
    assert 0 <= last.pop("age_secs") < 60
    assert last == {
        "source": HOST_ADDRESS,
        "source_port": 2001,
        "destination": WORLD_ADDRESS,
        "destination_port": 10,
        "protocol": socket.IPPROTO_UDP,
    }
    assert refused["web", "foreign_port"] == {
        "container": "web",
        "id": web["id"],
        "reason": "foreign_port",
        "packets": 4,
    }
    assert refused["other", "foreign_port"]["packets"] == 1
    assert {container for container, _ in drops(agent, "web")} == {"web"}
    assert drops(agent, other["id"])["other", "foreign_port"]["packets"] == 1
    agent.kill("web")
    again = agent.launch("web")  # in the same slot
    assert ("web", "foreign_port") not in drops(agent)
    assert "net_last_foreign_port" not in agent.statistics("web")
    send_from(agent, again, 2002, 1)
    assert drops(agent)["web", "foreign_port"]["packets"] == 1


def test_what_concerns_no_container_is_the_hosts(agent: Node) -> None:
    before = drops(agent).get((None, "martian_destination"), {"packets": 0})["packets"]
    (link,) = json.loads(agent.bed.run(agent.bed.host, "ip", "-json", "link", "show", NIC).stdout)
    mac = bytes.fromhex(link["address"].replace(":", ""))
    with open_link(agent.bed.world, WORLD_LINK) as wire:
        wire.send(bytes(Frame(WORLD_ADDRESS, "127.0.0.1", 7, 8, mac=mac)))
    row = until(lambda: drops(agent).get((None, "martian_destination")), "refusal")
    assert (row["packets"], row["id"]) == (before + 1, None)
    assert (row["last"]["source"], row["last"]["source_port"]) == (WORLD_ADDRESS, 7)
    assert (row["last"]["destination"], row["last"]["destination_port"]) == ("127.0.0.1", 8)
    agent.launch("web")
    assert (None, "martian_destination") not in drops(agent, "web")


def test_sorted_by_name_and_then_by_number(agent: Node) -> None:
    for name in ("b", "a", "c"):
        container = agent.launch(name)
        send_from(agent, container, 2000, 2 if name == "b" else 4)
        with open_link(agent.namespace(container), NIC) as inside:
            for _ in range(3):
                inside.send(bytes(Frame(HOST_ADDRESS, WORLD_ADDRESS, 2000, 9, mac=BROADCAST)))
        until(lambda: sum(row["packets"] for row in agent.client.drops(name)) >= 5, "refusals")  # noqa: B023
    rows = [(row["container"], row["packets"]) for row in agent.client.drops() if row["container"]]
    assert rows == sorted(rows, key=lambda row: (row[0], -row[1]))
    assert {name for name, _ in rows} == {"a", "b", "c"}


def test_in_the_statistics(agent: Node) -> None:
    container = agent.launch("web")
    assert agent.statistics("web")["net_drops"].get("foreign_port", 0) == 0
    assert "net_last_foreign_port" not in agent.statistics("web")
    send_from(agent, container, 2000, 3)
    send_from(agent, container, 2001, 2, to=10)
    statistics = agent.statistics("web")
    assert statistics["net_drops"] == agent.drops("web")
    assert statistics["net_drops"]["foreign_port"] == 5
    assert statistics["net_last_foreign_port"] == 2001


@pytest.mark.native
def test_for_people(agent: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTSLICE_SOCKET", str(agent.socket))
    container = agent.launch("web")
    assert main(["drops", "web"]) == 0
    assert capsys.readouterr().out == "No packet of web was refused.\n"
    send_from(agent, container, 2000, 3)
    with open_link(agent.namespace(container), NIC) as inside:
        inside.send(bytes(Frame(HOST_ADDRESS, WORLD_ADDRESS, 2000, 9, ethertype=ETH_P_EXPERIMENTAL)))
    until(lambda: len(drops(agent, "web")) == 2, "both reasons")
    for command in (["drops"], ["drops", "web"]):
        assert main(command) == 0
        table, explanations = capsys.readouterr().out.split("\n\n")
        header, *lines = table.splitlines()
        assert re.split(r"  +", header) == ["CONTAINER", "REFUSED", "PACKETS", "PROTOCOL", "LAST FROM", "TO", "AGO"]
        first, second = (re.split(r" +", line) for line in lines if line.startswith("web"))
        assert first[:6] == ["web", "foreign_port", "3", "udp", f"{HOST_ADDRESS}:2000", f"{WORLD_ADDRESS}:9"]
        assert re.fullmatch(r"\d+s", first[6])
        assert second[2:6] == ["1", "-", "-", "-"]
        assert f"foreign_port: {EXPLANATIONS['foreign_port']}\n" in explanations
    assert main(["drops", "web", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(row["reason"], row["packets"]) for row in shown] == [("foreign_port", 3), (second[1], 1)]
    agent.kill("web")
    for name, text in (("web", "The container 'web' is not running"), ("no/such", "There is no container 'no/such'")):
        assert main(["drops", name]) == 1
        assert capsys.readouterr().err == f"portslice: {text}\n"


@pytest.mark.native
def test_the_help_explains_every_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["drops", "--help"])
    text = capsys.readouterr().out
    assert "examples:\n  portslice drops\n" in text
    for reason, explanation in EXPLANATIONS.items():
        assert re.search(rf"^  {reason} +{re.escape(explanation)}$", text, re.MULTILINE)
