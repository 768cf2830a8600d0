"""What an agent has to give, and who it is."""

import re
from pathlib import Path

import pytest

from portslice.agent import identity, offer
from portslice.agent.flags import AgentFlags
from portslice.agent.startup import StartupError
from portslice.errors import PortsliceError
from portslice.resources import parse_attributes


def test_what_is_not_named_has_a_default(tmp_path: Path) -> None:
    flags = AgentFlags(resources="cpus:3;ephemeral_ports:[31500-40000];bugs:{a}", work_dir=tmp_path / "not" / "yet")
    offered = offer.of(flags).resources
    assert [resource.name for resource in offered] == ["cpus", "ephemeral_ports", "bugs", "mem", "disk", "ports"]
    assert offered.scalar("cpus") == 3
    assert offered.ranges("ports") == ((31000, 31499),)
    assert offered.scalar("mem")
    assert offered.scalar("disk")


@pytest.mark.parametrize(
    ("total", "reserve", "given"),
    [(4096, 1024, 3072), (2048, 1024, 1024), (2047, 1024, 1023), (3, 1024, 1)],
)
def test_a_small_machine_gives_half(total: int, reserve: int, given: float) -> None:
    assert offer._but(total << 20, reserve) == given


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (AgentFlags(resources="cpus"), "Failed to determine agent resources: Bad value for resources"),
        (AgentFlags(attributes="rack"), "Invalid attribute key:value pair 'rack'"),
    ],
)
def test_what_cannot_be_read(flags: AgentFlags, message: str) -> None:
    with pytest.raises(StartupError, match=f"^{re.escape(message)}"):
        offer.of(flags)


def test_attributes() -> None:
    assert parse_attributes("rack:abc;level:10;keys:[1000-1500, 1501-1502];url:http://a:1 ; w:-0.5;") == {
        "rack": "abc",
        "level": 10.0,
        "keys": ((1000, 1502),),
        "url": "http://a:1",
        "w": -0.5,
    }
    assert parse_attributes("") == {}


@pytest.mark.parametrize("text", ["rack", "rack:", ":abc", "rack:{a,b}", "keys:[5-3", "a:1;b"])
def test_bad_attributes_are_refused(text: str) -> None:
    with pytest.raises(PortsliceError, match="Invalid attribute key:value pair '"):
        parse_attributes(text)


def test_an_agent_keeps_its_id(tmp_path: Path) -> None:
    first = identity.of(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-S0", first)
    assert identity.of(tmp_path) == first
    (tmp_path / "agent_id").write_text("nonsense")
    with pytest.raises(PortsliceError, match=f"'{tmp_path}/agent_id' holds no agent id: delete it"):
        identity.of(tmp_path)
