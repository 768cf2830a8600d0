"""`portslice plan`, and the picture that it and `portslice doctor` draw."""

import io
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portslice.agent.prerequisites import Ranges, host_range
from portslice.agent.startup import StartupError, check_blocks, port_resources
from portslice.cli.agent_flags import EXAMPLE, read
from portslice.cli.glyphs import Style
from portslice.cli.main import main
from portslice.cli.picture import CELLS, picture
from portslice.errors import FlagError
from portslice.network.probe import Status
from portslice.ports import MAX_PORT, PortRange, PortSet

ASCII = Style(unicode=False, colour=False)
HOST = PortRange(57345, 61000)


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["plan", "--json", *arguments]) == 0
    return dict(json.loads(capsys.readouterr().out))


def ranges(assigned: str = "31000-32000", ephemeral: str = "32768-57344", host: PortRange = HOST) -> Ranges:
    return Ranges(host, PortSet.parse(assigned), PortSet.parse(ephemeral))


# The plan


def test_the_example_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    answer = plan(capsys, f"--resources={EXAMPLE}", "--ephemeral_ports_per_container=1024")
    assert answer["containers"] == 24
    assert answer["blocks"][0] == [32768, 33791]
    assert answer["blocks"][-1] == [56320, 57343]
    assert answer["unused_ephemeral_ports"] == [[57344, 57344]]
    assert answer["assigned_ports"] == 1001
    assert answer["assigned_ports_per_container"] == 41
    assert answer["ranges"]["assigned"] == [[31000, 32000]]
    assert answer["ranges"]["ephemeral"] == [[32768, 57344]]
    assert plan(capsys, f"--resources={EXAMPLE}", "--ephemeral_ports_per_container=512")["containers"] == 48


def test_unaligned_heads_and_tails_are_never_used(capsys: pytest.CaptureFixture[str]) -> None:
    answer = plan(capsys, "--resources=ephemeral_ports:[30001-30999]", "--ephemeral_ports_per_container=16")
    assert answer["containers"] == 61
    assert answer["unused_ephemeral_ports"] == [[30001, 30015], [30992, 30999]]


@given(
    begin=st.integers(1024, 60000),
    length=st.integers(16, 5000),
    size=st.integers(16, 2000),
)
def test_blocks_are_aligned_disjoint_and_lose_nothing(begin: int, length: int, size: int) -> None:
    end = min(begin + length, MAX_PORT)
    flags = read([f"--resources=ephemeral_ports:[{begin}-{end}]", f"--ephemeral_ports_per_container={size}"])
    try:
        check_blocks(flags, port_resources(flags)[1])
    except StartupError:
        assert (-begin % size) + size > end - begin + 1  # no aligned block fits
        return
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", output)
        main(["plan", "--json", f"--resources={flags.resources}", f"--ephemeral_ports_per_container={size}"])
    answer = json.loads(output.getvalue())
    blocks = [PortRange(*block) for block in answer["blocks"]]
    assert blocks
    assert all(len(block) == size and block.begin % size == 0 for block in blocks)
    assert sum(map(len, blocks)) == len(PortSet(blocks))  # disjoint
    unused = PortSet(PortRange(*each) for each in answer["unused_ephemeral_ports"])
    assert unused.isdisjoint(PortSet(blocks))
    assert unused | PortSet(blocks) == PortSet((PortRange(begin, end),))


def test_both_forms_of_a_flag_and_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = plan(capsys, f"--resources={EXAMPLE}", "--ephemeral_ports_per_container=512")
    assert plan(capsys, "--resources", EXAMPLE, "--ephemeral_ports_per_container", "512") == joined
    with_blank = EXAMPLE.replace(";", "; ")
    assert plan(capsys, "--resources", with_blank, "--ephemeral_ports_per_container=512")["blocks"] == joined["blocks"]
    monkeypatch.setenv("MESOS_EPHEMERAL_PORTS_PER_CONTAINER", "512")
    assert plan(capsys, "--resources", EXAMPLE) == joined


def test_a_boolean_takes_no_value() -> None:
    assert read(["--strict_mesos", f"--resources={EXAMPLE}"]).strict_mesos
    with pytest.raises(FlagError, match="Expecting a boolean"):
        read(["--strict_mesos", "maybe"])


def test_without_resources_it_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan"]) == 0
    captured = capsys.readouterr()
    assert f"No --resources given: taking the documentation's example, {EXAMPLE}" in captured.err
    assert "Containers that fit:         24" in captured.out


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", f"--resources={EXAMPLE}", "--ephemeral_ports_per_container=8192"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Containers that fit:         3"
    assert lines[2] == "Assigned ports left of each: 333 of 1001, if shared evenly; 2 remain"
    assert [line.split() for line in lines[-3:]] == [
        ["1", "32768-40959"],
        ["2", "40960-49151"],
        ["3", "49152-57343"],
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--resources=ports:[1-2]"], 1, "Ephemeral ports are not specified"),
        (
            ["--resources=ports:[31000-33000];ephemeral_ports:[32768-57344]"],
            1,
            "The specified ephemeral ports {[32768,57345)} intersect with the specified non-ephemeral ports "
            "{[31000,33001)}",
        ),
        (
            [f"--resources={EXAMPLE}", "--ephemeral_ports_per_container=8"],
            1,
            "Each container has only 8 ephemeral ports. The minimum required is: 16",
        ),
        (
            [f"--resources={EXAMPLE}", "--ephemeral_ports_per_container=1000", "--strict_mesos"],
            1,
            "The number of ephemeral ports for each container (1000) is not a power of 2",
        ),
        (["--resuorces=x"], 2, "Failed to load unknown flag 'resuorces'. Did you mean --resources?"),
        (["--resources"], 2, "Failed to load non-boolean flag 'resources': Missing value"),
    ],
)
def test_errors(arguments: list[str], status: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"portslice: {text}\n" in captured.err


# The host's range


def test_the_remedy_is_the_line_of_the_documentation() -> None:
    check = host_range(ranges(host=PortRange(32768, 60999)))
    assert check.status is Status.WRONG
    assert check.remedy == (
        "sysctl -w net.ipv4.ip_local_port_range='57345 61000' && "
        "echo 'net.ipv4.ip_local_port_range = 57345 61000' >> /etc/sysctl.conf"
    )


def test_assigned_ports_conflict_as_well() -> None:
    check = host_range(ranges(assigned="57000-57344,60000-60100", ephemeral="32768-50000"))
    assert check.status is Status.WRONG
    assert "[60000-60100]" in check.detail


@given(st.lists(st.tuples(st.integers(0, 65), st.integers(0, 20)), max_size=8))
def test_the_remedy_never_overlaps(parts: list[tuple[int, int]]) -> None:
    taken = PortSet(PortRange(at * 993, min(at * 993 + length * 500, MAX_PORT)) for at, length in parts)
    check = host_range(Ranges(PortRange(0, MAX_PORT), PortSet(), taken))
    assert check.ok == (not taken)
    if "sysctl -w" in check.remedy:
        begin, end = map(int, check.remedy.split("'")[1].split())
        room = PortSet((PortRange(begin, end),))
        assert room.isdisjoint(taken)
        assert begin >= 1024


def test_no_room_for_the_host() -> None:
    check = host_range(ranges(assigned="1024-30000", ephemeral=f"30001-{MAX_PORT}"))
    assert check.status is Status.WRONG
    assert check.remedy == "leave the host some ports in --resources"


# The picture


def line(drawn: str) -> str:
    return drawn.splitlines()[0]


def test_a_cell_is_1024_ports() -> None:
    drawn = picture(ranges(), ASCII)
    assert line(drawn) == "." * 30 + "aa" + "e" * 24 + "hhhh" + "." * 4
    assert len(line(drawn)) == CELLS == 64
    assert drawn.splitlines()[1] == "0               16384           32768           49152      65535"


def test_both_ends_of_the_ports() -> None:
    assert line(picture(ranges("0-0", f"{MAX_PORT}-{MAX_PORT}"), ASCII)) == "a" + "." * 55 + "hhhh" + "..." + "e"


def test_one_port_in_conflict_shows() -> None:
    drawn = picture(ranges(ephemeral="32768-57345"), ASCII)
    assert line(drawn)[56] == "X"
    assert line(drawn).count("X") == 1
    assert drawn.splitlines()[-1].split() == ["X", "in", "conflict", "57345-57345", "(1)"]


def test_the_legend_counts() -> None:
    legend = picture(ranges("31000-31009,31500-31500"), ASCII).splitlines()[3:]
    assert [row.rsplit("  ", 1)[1] for row in legend] == [
        "57345-61000 (3656)",
        "31000-31009, 31500-31500 (11)",
        "32768-57344 (24577)",
    ]


def test_what_the_terminal_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    with open(slave, "w", encoding="utf-8") as terminal, open(master, "rb"):
        assert Style.of(terminal) == Style(unicode=True, colour=True)
        monkeypatch.setenv("NO_COLOR", "1")
        assert Style.of(terminal) == Style(unicode=True, colour=False)
    assert Style.of(io.TextIOWrapper(io.BytesIO(), encoding="ascii")) == ASCII


def test_colours_change_nothing_else() -> None:
    coloured = picture(ranges(), Style(unicode=False, colour=True))
    assert "\x1b[36me\x1b[0m" in coloured
    plain = coloured.replace("\x1b[0m", "")
    for code in ("2", "32", "33", "36"):
        plain = plain.replace(f"\x1b[{code}m", "")
    assert plain == picture(ranges(), ASCII)
